"""`CookieMode`: sessions that live in their cookies. Knows headers, keys and time, and waits for nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from msgspec.structs import replace

from cookiesession import chunks, codec, cookies, envelope
from cookiesession.codec import DECODING_ERRORS, ENCODING_ERRORS, MAX_ENCODED, Codec
from cookiesession.errors import ConfigurationError, InvalidToken, SessionTooLarge, UnencodableData
from cookiesession.events import Cleared, LateWrite, Opened, Rejected, Reporter, Resealed, Sealed, TooLarge
from cookiesession.keys import KeySource, ring_after
from cookiesession.payload import ID_LENGTH, LAST_SECOND, PERSISTENT, Payload, pack, seconds, unpack
from cookiesession.session import Session, SessionDict, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from cookiesession.cookies import Cookie
    from cookiesession.keys import Key

T = TypeVar("T")

_logger = logging.getLogger("cookiesession")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a manager was told, checked and in the units of a payload."""

    keys: KeySource
    cookie: Cookie
    model: Any
    lifetime: int
    idle_timeout: int
    """0 for never."""
    flags: int
    compress: bool
    renew_grace: int
    overflow: bool
    anonymous: bool
    """What a store that fails leaves."""
    reporter: Reporter
    clock: Callable[[], float]
    random: Callable[[int], bytes]


class CookieMode(Generic[T]):
    """The owner of sessions whose cookies hold their data, as `codec` encodes it, sealed for one `purpose`."""

    def __init__(self, configuration: Configuration, codec: Codec[T], purpose: str = "cookie") -> None:
        self.reporter: Final = configuration.reporter
        self.cookie: Final = configuration.cookie
        self.model: Final = configuration.model
        self.keys = configuration.keys
        self.clock = configuration.clock
        self.random = configuration.random
        self._lifetime = configuration.lifetime
        self._idle_timeout = configuration.idle_timeout
        self._flags = configuration.flags
        self._compress = configuration.compress
        self.codec = codec
        self._empty = codec.encode(codec.default())
        self._names = chunks.names(self.cookie.full_name)
        self._scanner = cookies.scanner(self.cookie.full_name)
        self._room = self.cookie.room
        self.capacity = chunks.capacity(self.cookie.room, self.cookie.max_chunks)
        self._binding = envelope.bind(purpose, self.cookie.full_name)
        self._warned_of_chunks = False

    def commit(self, handle: Session[T] | SessionDict) -> list[tuple[bytes, bytes]]:
        """The headers that save an opened session, as `SessionManager.save()` promises them."""
        state: State[T] = handle._state  # type: ignore[assignment]  # without a model T is a dict
        data: T = handle._data if isinstance(handle, Session) else handle  # type: ignore[assignment]  # likewise
        encoded, changed = self.compare(state, data)
        if not changed and not state.overdue:
            return []
        if self.is_over(state, encoded):
            return self.delete(state, encoded)
        if not changed and not state.due:  # it only changes its key, and keeps its times: rotation extends nothing
            return self.write(state, self.identified(state.payload), data, resealed_from=state.key)
        self.codec.verify(data, encoded)
        return self.write(state, self.used(state.payload, encoded), data)

    def report_late_write(self, handle: Session[T] | SessionDict) -> None:
        """Reports a change of an opened session that came after `commit()`, when the headers had left."""
        state, data = unwrap(handle)
        try:
            _, changed = self.compare(state, data)
        except UnencodableData:
            changed = True
        if changed or (state.blank and state.key is not None):  # the latter by clear()
            self.reporter.report(LateWrite())

    # What a session asks of its owner.

    def open(self, state: State[T]) -> T:
        """The data of the request's session, or of a fresh one; fills in the rest of `state`."""
        now = int(self.clock())
        ring = self.keys.current(now)
        found = cookies.read(state.headers, self._scanner)
        state.brought, candidates = chunks.gather(found, self.cookie.max_chunks)
        for parts in candidates:
            try:
                token = chunks.join(parts)
                try:
                    plaintext, key = envelope.open(token, ring, self._binding, now=now)
                except InvalidToken as invalid:
                    ring = ring_after(invalid, self.keys, now)
                    plaintext, key = envelope.open(token, ring, self._binding, now=now)
                payload = unpack(plaintext, now)
                data = self.codec.decode(payload.data)
            except InvalidToken as invalid:
                self.reporter.report(Rejected(reason=invalid.reason, path=invalid.path))
            except DECODING_ERRORS:
                self.reporter.report(Rejected(reason="undecodable"))
            else:
                rotated = key is not ring.primary
                state.settle(payload, state.brought, key)
                state.due = payload.idle_timeout != 0 and payload.is_due(now)
                state.overdue = state.due or rotated
                state.is_new = False
                if self.reporter.debugging():
                    opened = Opened(key_id=key.id, primary=not rotated, size=len(token), chunks=len(parts))
                    self.reporter.report(opened)
                return data
        state.key = None
        return self._begin(state, now)

    async def load(self, state: State[T]) -> None:
        """Nothing: all there is came with the request."""

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session; makes `state` that of one."""
        return self._begin(state, int(self.clock()))

    def renewed(self, payload: Payload) -> Payload:
        """`payload` without its id, and with the times of a session that begins now."""
        now = int(self.clock())
        expires_at = min(now + self._lifetime, LAST_SECOND)
        times = {"created_at": now, "renewed_at": now, "expires_at": expires_at, "idle_timeout": self._idle_timeout}
        return replace(payload, **times, id=b"", superseded_by=None)

    def identify(self, state: State[T]) -> None:
        """Gives the payload of `state` an id, if it has none yet."""
        state.payload = self.identified(state.payload)

    def identified(self, payload: Payload) -> Payload:
        """`payload` with an id: its own, or if it has none a new one."""
        return payload if payload.id else replace(payload, id=self.random(ID_LENGTH))

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is of the type that this manager's sessions hold."""
        self.codec.require(data)

    def expiry(self, lifetime: timedelta) -> int:
        """The second at which what lives from now for `lifetime` ends. Raises `ConfigurationError`."""
        return min(int(self.clock()) + seconds("lifetime", lifetime), LAST_SECOND)

    def transact(self, session: Session[T], change: Callable[[T], T | None]) -> Awaitable[None]:
        """Never: a cookie has no newest version that everybody could see."""
        raise ConfigurationError("transact() needs a store: SessionManager(..., store=...)")

    # The steps of saving, which server-side sessions take too.

    def compare(self, state: State[T], data: T) -> tuple[bytes, bool]:
        """The bytes of `data`, and whether it or what belongs to it has changed. Raises `UnencodableData`."""
        try:
            encoded = self.codec.encode(data)
        except ENCODING_ERRORS as error:
            refusal = codec.unencodable(self.codec, data, error)
        else:
            kept = state.payload.data
            return (kept, state.amended) if encoded == kept or self.codec.same(encoded, kept) else (encoded, True)
        raise refusal  # here, since a UnicodeEncodeError carries the value and would be its context

    def encode(self, data: T) -> bytes:
        """The bytes of `data`. Raises `UnencodableData`, which names the entry."""
        try:
            return self.codec.encode(data)
        except ENCODING_ERRORS as error:
            refusal = codec.unencodable(self.codec, data, error)
        raise refusal  # here, as in compare()

    def is_over(self, state: State[T], encoded: bytes) -> bool:
        """Whether nothing is left to be kept: no data, or that of a fresh session, and nobody whose session it is."""
        is_empty = encoded == self._empty or (state.blank and encoded == state.payload.data)
        return is_empty and state.payload.subject is None

    def used(self, payload: Payload, encoded: bytes) -> Payload:
        """`payload` with this data, used now."""
        renewed_at = max(int(self.clock()), payload.created_at)
        id = payload.id or self.random(ID_LENGTH)
        return replace(payload, data=encoded, renewed_at=renewed_at, idle_timeout=self._idle_timeout, id=id)

    def write(
        self, state: State[T], payload: Payload, data: T, *, resealed_from: Key | None = None
    ) -> list[tuple[bytes, bytes]]:
        """The headers that put `payload` into the cookies. Raises `SessionTooLarge`, by the entries of `data`."""
        now = int(self.clock())
        key = self.keys.current(now).primary
        if self._compress and len(payload.data) > MAX_ENCODED:
            raise self._too_large(len(payload.data), MAX_ENCODED, data)
        token = envelope.seal(pack(payload, compress=self._compress), key, self._binding, now=now)
        if len(token) > self.capacity:
            raise self._too_large(len(token), self.capacity, data)
        age = max(payload.ends_at() - now, 1) if payload.flags & PERSISTENT else None
        if len(token) <= self._room:
            headers = [(b"set-cookie", self.cookie.line(self._names[0], token, age))]
        else:
            self._warn_of_chunks()
            values = zip(self._names, chunks.split(token, self._room), strict=False)
            headers = [(b"set-cookie", self.cookie.line(name, value, age)) for name, value in values]
        count = len(headers)
        for index in state.brought:
            if index >= count:
                headers.append(self._deletion(index))
        state.settle(payload, range(count), key)
        if self.reporter.debugging():
            self.reporter.report(_sealed(key, resealed_from, len(token), count))
        return headers

    def length(self, payload: Payload) -> int:
        """The bytes of the token that `write()` would make of `payload`."""
        now = int(self.clock())
        key = self.keys.current(now).primary
        return len(envelope.seal(pack(payload, compress=self._compress), key, self._binding, now=now))

    def delete(self, state: State[T], encoded: bytes) -> list[tuple[bytes, bytes]]:
        """The headers that take the cookies away; `encoded` is the data that `state` goes on with."""
        headers = [self._deletion(index) for index in state.brought]
        if state.key is not None:
            self.reporter.report(Cleared())
        state.settle(replace(state.payload, data=encoded), (), None)
        return headers

    def _begin(self, state: State[T], now: int) -> T:
        data = self.codec.default()
        encoded = self.codec.encode(data)  # not always that of another default: it may hold the time, or an id
        # Without an id: most sessions that begin end with their request, and randomness takes a system call.
        expires_at = min(now + self._lifetime, LAST_SECOND)
        payload = Payload(self._flags, now, now, expires_at, self._idle_timeout, b"", None, encoded)
        state.settle(payload, state.brought, state.key)
        state.overdue = bool(state.brought)
        state.is_new = state.blank = True
        return data

    def _too_large(self, size: int, limit: int, data: T) -> SessionTooLarge:
        self.reporter.report(TooLarge(size=size, limit=limit))
        return SessionTooLarge(size, limit, codec.largest_entries(self.codec, data))

    def _deletion(self, index: int) -> tuple[bytes, bytes]:
        return b"set-cookie", self.cookie.line(self._names[index], b"", max_age=0)

    def _warn_of_chunks(self) -> None:
        if not self._warned_of_chunks:
            self._warned_of_chunks = True
            _logger.warning(
                "a session takes more than one cookie: a proxy in front must take response headers of over 4 KB "
                "(nginx: proxy_buffer_size 16k; its default answers 502)"
            )


def unwrap(handle: Session[T] | SessionDict) -> tuple[State[T], T]:
    """The state and the data behind what a request's scope holds."""
    if isinstance(handle, Session):
        return handle._state, handle._data  # type: ignore[return-value]  # an opened session has data
    return handle._state, handle  # type: ignore[return-value]  # without a model T is a dict


def _sealed(key: Key, resealed_from: Key | None, size: int, count: int) -> Sealed | Resealed:
    if resealed_from is None:
        return Sealed(key_id=key.id, size=size, chunks=count)
    return Resealed(key_id=key.id, old_key_id=resealed_from.id, size=size, chunks=count)
