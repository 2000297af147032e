"""`CookieMode`: sessions that live in their cookies. Waits for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

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

# W3C Clear Site Data, section 3.1: what browsers know of it. Not "*", which would take what it may mean later.
_CLEAR_SITE_DATA: Final = (b"clear-site-data", b'"cache", "cookies", "storage"')


class CookieSessions(Rules[T], Generic[T]):
    """What holds for sessions whose cookies hold their data."""

    def __init__(self, configuration: Configuration, codec: Codec[T]) -> None:
        super().__init__(configuration, codec)
        self._cookies = SealedCookies(configuration, "cookie")

    def transact(self, session: Session[T], change: Callable[[T], T | None]) -> Awaitable[None]:
        """Never: a cookie has no newest version that everybody could see."""
        raise ConfigurationError("transact() needs a store: SessionManager(..., store=...)")

    def _resume(self, state: State[T], data: T, now: int) -> T:
        """`data`, of the session that the request brought."""
        payload = state.payload
        state.settle(payload)
        state.due = payload.idle_timeout != 0 and payload.is_due(now)
        state.overdue = state.due or state.rotated
        state.is_new = False
        return data

    def _save(self, handle: Any, encoded: bytes, *, changed: bool) -> Headers:
        """The headers for a session whose data is `encoded` now."""
        state: State[T] = handle._state
        if (state.blank or encoded == self._empty) and self.is_over(state, encoded):  # else it cannot be
            headers = self._cookies.delete(state)
            state.settle(replace(state.payload, data=encoded))
            return forgetting(state, headers)
        data: Any = handle if type(handle) is SessionDict else handle._data
        now = int(self.clock())
        used = changed or state.due
        if used:
            self.codec.verify(data, encoded, state.payload.data)
            payload = self.used(state.payload, encoded, now)
        else:  # it only changes its key, and keeps its times: rotation extends nothing
            payload = self.identified(state.payload)
        try:
            headers = self._cookies.write(state, payload, now, resealed=not used)
        except SessionTooLarge as error:
            largest = codec.largest_entries(self.codec, data)
            raise SessionTooLarge(error.size, error.limit, largest, is_data=error.is_data) from None
        state.settle(payload)
        return forgetting(state, headers) if state.site_data else headers


class CookieMode(CookieSessions[T], Generic[T]):
    """The owner of sessions that end when they expire, or when the browser deletes them."""

    def open(self, state: State[T]) -> T:
        """The data of the request's session, or of a fresh one; fills in the rest of `state`."""
        moment = self.clock()
        now = int(moment)
        data = self._cookies.open(state, self.codec.decode, now)
        return self._begin_at(state, moment) if data is None else self._resume(state, data, now)

    async def load(self, state: State[T]) -> None:
        """Nothing: all there is came with the request."""

    def commit(self, handle: Session[T] | SessionDict) -> Headers:
        """The headers that save an opened session, as `SessionManager.save()` promises them."""
        state, encoded = handle._state, self.changed(handle)
        if encoded is None and not state.amended and not state.overdue:
            return []
        return self._save(handle, encoded or state.payload.data, changed=encoded is not None or state.amended)

    def report_late_write(self, handle: Session[T] | SessionDict) -> None:
        """Reports a change of an opened session that came after `commit()`, when the headers had left."""
        state = handle._state
        try:
            is_lost = self.changed(handle) is not None or state.amended
        except UnencodableData:
            is_lost = True
        if is_lost or state.site_data or (state.blank and state.key is not None):  # the latter by clear()
            self.reporter.report(LateWrite())


def forgetting(state: State[Any], headers: Headers) -> Headers:
    """`headers`, with one more where the browser is to forget what it has of the site, and has not been told so."""
    if not state.site_data:
        return headers
    state.site_data = False
    return [*headers, _CLEAR_SITE_DATA]
