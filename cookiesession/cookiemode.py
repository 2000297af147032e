"""`CookieMode`: sessions that live in their cookies. Waits for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec.structs import replace

from cookiesession import codec
from cookiesession.errors import ConfigurationError, SessionTooLarge, UnencodableData
from cookiesession.events import LateWrite
from cookiesession.rules import Rules
from cookiesession.sealedcookies import SealedCookies
from cookiesession.session import Session, SessionDict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cookiesession.codec import Codec
    from cookiesession.configuration import Configuration
    from cookiesession.sealedcookies import Headers
    from cookiesession.state import State

T = TypeVar("T")


class CookieMode(Rules[T], Generic[T]):
    """The owner of sessions whose cookies hold their data."""

    def __init__(self, configuration: Configuration, codec: Codec[T]) -> None:
        super().__init__(configuration, codec)
        self._cookies = SealedCookies(configuration, "cookie")

    # What a session asks of its owner, besides the rules.

    def open(self, state: State[T]) -> T:
        """The data of the request's session, or of a fresh one; fills in the rest of `state`."""
        now = int(self.clock())
        data = self._cookies.open(state, self.codec.decode, now)
        if state.key is None:
            return self.begin(state)
        payload = state.payload
        state.settle(payload)
        state.due = payload.idle_timeout != 0 and payload.is_due(now)
        state.overdue = state.due or state.rotated
        state.is_new = False
        return data  # type: ignore[return-value]  # where there is a key there is data

    async def load(self, state: State[T]) -> None:
        """Nothing: all there is came with the request."""

    def transact(self, session: Session[T], change: Callable[[T], T | None]) -> Awaitable[None]:
        """Never: a cookie has no newest version that everybody could see."""
        raise ConfigurationError("transact() needs a store: SessionManager(..., store=...)")

    # Saving

    def commit(self, handle: Session[T] | SessionDict) -> Headers:
        """The headers that save an opened session, as `SessionManager.save()` promises them."""
        state, data = unwrap(handle)
        encoded, changed = self.compare(state, data)
        if not changed and not state.overdue:
            return []
        if self.is_over(state, encoded):
            headers = self._cookies.delete(state)
            state.settle(replace(state.payload, data=encoded))
            return headers
        now = int(self.clock())
        used = changed or state.due
        if used:
            self.codec.verify(data, encoded)
            payload = self.used(state.payload, encoded, now)
        else:  # it only changes its key, and keeps its times: rotation extends nothing
            payload = self.identified(state.payload)
        try:
            headers = self._cookies.write(state, payload, now, resealed=not used)
        except SessionTooLarge as error:
            raise SessionTooLarge(error.size, error.limit, codec.largest_entries(self.codec, data)) from None
        state.settle(payload)
        return headers

    def report_late_write(self, handle: Session[T] | SessionDict) -> None:
        """Reports a change of an opened session that came after `commit()`, when the headers had left."""
        state, data = unwrap(handle)
        try:
            _, changed = self.compare(state, data)
        except UnencodableData:
            changed = True
        if changed or (state.blank and state.key is not None):  # the latter by clear()
            self.reporter.report(LateWrite())


def unwrap(handle: Session[T] | SessionDict) -> tuple[State[T], T]:
    """The state and the data behind what a request's scope holds."""
    if isinstance(handle, Session):
        return handle._state, handle._data  # type: ignore[return-value]  # an opened session has data
    return handle._state, handle  # type: ignore[return-value]  # without a model T is a dict
