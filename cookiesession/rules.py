"""`Rules`: of what a session consists, when it begins and ends, and what counts as a change. Knows no header."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from msgspec.structs import replace

from cookiesession import codec
from cookiesession.codec import ENCODING_ERRORS, Codec
from cookiesession.errors import ConfigurationError, UnencodableData
from cookiesession.payload import ID_LENGTH, LAST_SECOND, Payload, seconds
from cookiesession.session import PLACEHOLDER, Session, SessionDict, UnopenedDict
from cookiesession.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cookiesession.configuration import Configuration
    from cookiesession.state import Scope

T = TypeVar("T")


class Rules(Generic[T]):
    """What holds for a manager's sessions wherever they live. Their data is as `codec` has it."""

    _state_type: type[Any] = State

    def __init__(self, configuration: Configuration, codec: Codec[T]) -> None:
        self.cookie: Final = configuration.cookie
        self.model: Final = configuration.model
        self.guards: Final = configuration.guards
        self.reporter: Final = configuration.reporter
        self.clock = configuration.clock
        self.random = configuration.random
        self.codec = codec
        self.lifetime = configuration.lifetime
        self._idle_timeout = configuration.idle_timeout
        self._flags = configuration.flags
        self._precise = configuration.revocation is not None
        try:
            self._empty = self.encode(codec.default())
        except UnencodableData as error:
            raise ConfigurationError(f"a new session could not be saved: {error}") from error

    def handle(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> Session[T] | SessionDict:
        """The session of a request as a handler gets it: without a model the dict of the data, else the `Session`."""
        state: State[T] = self._state_type(self, headers, scope)
        if self.model is not None:
            return Session(state)
        data = UnopenedDict(PLACEHOLDER)
        data._state = state  # type: ignore[assignment]  # without a model T is a dict
        return data

    # What a session asks of its owner.

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session; makes `state` that of one."""
        return self._begin_at(state, self.clock())

    def _begin_at(self, state: State[T], moment: float) -> T:
        now = int(moment)
        data = self.codec.default()
        encoded = self.codec.encode(data)  # not always that of another default: it may hold the time, or an id
        # Without an id: most sessions that begin end with their request, and randomness takes a system call.
        expires_at = min(now + self.lifetime, LAST_SECOND)
        payload = Payload(self._flags, now, now, expires_at, self._idle_timeout, b"", None, encoded)
        state.settle(replace(payload, fraction=_fraction(moment)) if self._precise else payload)
        state.overdue = bool(state.brought)
        state.is_new = state.blank = True
        return data

    def renewed(self, payload: Payload) -> Payload:
        """`payload` without its id, and with the times of a session that begins now."""
        moment = self.clock()
        now = int(moment)
        return replace(
            payload,
            created_at=now,
            fraction=_fraction(moment) if self._precise else 0,
            renewed_at=now,
            expires_at=min(now + self.lifetime, LAST_SECOND),
            idle_timeout=self._idle_timeout,
            id=b"",
            superseded_by=None,
        )

    def identify(self, state: State[T]) -> None:
        """Gives the payload of `state` an id, if it has none yet."""
        state.payload = self.identified(state.payload)

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is of the type that this manager's sessions hold."""
        self.codec.require(data)

    def expiry(self, payload: Payload, lifetime: timedelta) -> int:
        """The second at which a session ends that lives from now for `lifetime`. Raises `ConfigurationError`."""
        return min(int(self.clock()) + seconds("lifetime", lifetime), LAST_SECOND)

    def remaining(self, payload: Payload) -> timedelta:
        """How long a session of this payload lives at the longest."""
        return timedelta(seconds=max(payload.expires_at - self.clock(), 0))

    # The steps of saving.

    def changed(self, handle: Session[T] | SessionDict) -> bytes | None:
        """The bytes of an opened session's data, if they are not those that are kept. Raises `UnencodableData`."""
        data: Any = handle if type(handle) is SessionDict else cast("Session[T]", handle)._data
        try:
            encoded = self.codec.encode(data)
        except ENCODING_ERRORS as error:
            refusal = codec.unencodable(self.codec, data, error)
        else:
            kept = handle._state.payload.data
            return None if encoded == kept or self.codec.same(encoded, kept) else encoded
        raise refusal  # here, since a UnicodeEncodeError carries the value and would be its context

    def compare(self, handle: Session[T] | SessionDict) -> tuple[bytes, bool]:
        """The bytes of an opened session's data, and whether it or what belongs to it has changed. Raises the same."""
        encoded, state = self.changed(handle), handle._state
        return (state.payload.data, state.amended) if encoded is None else (encoded, True)

    def encode(self, data: T) -> bytes:
        """The bytes of `data`. Raises `UnencodableData`, which names the entry."""
        try:
            return self.codec.encode(data)
        except ENCODING_ERRORS as error:
            refusal = codec.unencodable(self.codec, data, error)
        raise refusal  # here, as in changed()

    def is_over(self, state: State[T], encoded: bytes) -> bool:
        """Whether nothing is left to be kept: no data, or that of a fresh session, and nobody whose session it is."""
        if encoded != self._empty and not (state.blank and encoded == state.payload.data):
            return False
        return state.payload.subject is None

    def used(self, payload: Payload, encoded: bytes, now: int) -> Payload:
        """`payload` with this data, used now."""
        return replace(
            payload,
            renewed_at=now if now > payload.created_at else payload.created_at,  # noqa: FURB136 - a call takes longer
            idle_timeout=self._idle_timeout,
            id=payload.id or self.random(ID_LENGTH),
            data=encoded,
        )

    def identified(self, payload: Payload) -> Payload:
        """`payload` with an id: its own, or if it has none a new one."""
        return payload if payload.id else replace(payload, id=self.random(ID_LENGTH))


def _fraction(moment: float) -> int:
    """Microseconds since the last whole second."""
    return int(moment % 1 * 1_000_000)
