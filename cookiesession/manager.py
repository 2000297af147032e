"""`SessionManager`: what becomes of a request's session. Knows headers, keys and time, and nothing of ASGI."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack, overload

from msgspec.structs import replace

from cookiesession import chunks, codec, cookies, envelope
from cookiesession.codec import DECODING_ERRORS, ENCODING_ERRORS, MAX_ENCODED, Codec
from cookiesession.cookies import Cookie
from cookiesession.errors import ConfigurationError, InvalidToken, SessionTooLarge
from cookiesession.events import Cleared, Event, LateWrite, Opened, Rejected, Reporter, Resealed, Sealed, TooLarge
from cookiesession.keys import KeySource, RefreshingKeySource
from cookiesession.payload import ID_LENGTH, LAST_SECOND, PERSISTENT, Payload, pack, unpack
from cookiesession.schema import codec_for
from cookiesession.session import PLACEHOLDER, Outcome, Session, SessionDict, State, UnopenedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cookiesession.keys import Key, KeyRing
    from cookiesession.models import Upgrade

T = TypeVar("T")

_logger = logging.getLogger("cookiesession")


class Options(TypedDict, total=False):
    """The keyword arguments of `SessionManager`, but for the model."""

    cookie: Cookie
    lifetime: timedelta
    idle_timeout: timedelta | None
    persistent: bool
    compress: bool
    on_event: Callable[[Event], object] | None
    clock: Callable[[], float]
    random: Callable[[int], bytes]


class ModelOptions(Options, total=False):
    """All keyword arguments of `SessionManager`, which `SessionMiddleware` passes on."""

    model: Any
    upgrade: Upgrade | None


class SessionManager(Generic[T]):
    """Opens sessions from request headers and saves them as response headers, for any framework or none.

    - `keys`: a `KeyRing`, a `KeyFile`, or a `KeySource` of yours.
    - `model`: the type of the data: a pydantic `BaseModel`, a `msgspec.Struct`, a dataclass or a `TypedDict`, whose
      fields have defaults. Without one it is a dict.
    - `upgrade`: called with the plain data of an old session that `model` no longer accepts. It returns new data, plain
      or as the model, or None to give up. What it raises is logged, and gives up too.
    - `cookie`: the cookie's name, attributes and limits.
    - `lifetime`: how long a session lives from its creation, 1 second or more.
    - `idle_timeout`: how long it lives unused. A session that is used is written again once half of it has passed.
    - `persistent`: whether browsers keep new sessions when they close.
    - `compress`: makes large sessions smaller. Leave it off where a session holds both a secret and text that somebody
      else can choose: its length then tells about the secret.
    - `on_event`: called with every `Event`, on the event loop; what it raises is logged.
    - `clock` and `random`: seconds since the epoch, and that many random bytes. For tests.

    Raises `ConfigurationError` for options that cannot work.

    >>> import asyncio
    >>> from cookiesession import Key, KeyRing
    >>> manager = SessionManager(KeyRing(Key.generate()))
    >>> session = manager.session(headers=[])
    >>> session.data["name"] = "Ada"
    >>> [(name, line)] = asyncio.run(manager.save(session))
    >>> later = manager.session([(b"cookie", line)])
    >>> later.data["name"]
    'Ada'
    """

    _codec: Codec[T]

    @overload
    def __init__(self: SessionManager[dict[str, Any]], keys: KeySource, **options: Unpack[Options]) -> None: ...

    @overload
    def __init__(
        self, keys: KeySource, *, model: type[T], upgrade: Upgrade | None = None, **options: Unpack[Options]
    ) -> None: ...

    def __init__(
        self,
        keys: KeySource,
        *,
        model: Any = None,
        upgrade: Upgrade | None = None,
        cookie: Cookie = Cookie(),
        lifetime: timedelta = timedelta(days=14),
        idle_timeout: timedelta | None = None,
        persistent: bool = True,
        compress: bool = False,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not isinstance(keys, KeySource):
            raise ConfigurationError(
                "keys is a KeyRing or KeyFile: KeyRing.from_env(name), KeyRing.parse(text), KeyFile(path)"
            )
        self.cookie = cookie
        self.model = model
        self.reporter = Reporter(on_event, clock)
        self._keys = keys
        self._clock = clock
        self._random = random
        self._lifetime = _seconds("lifetime", lifetime)
        self._idle_timeout = 0 if idle_timeout is None else _seconds("idle_timeout", idle_timeout)
        self._flags = PERSISTENT if persistent else 0
        self._compress = compress
        self._codec = codec_for(model, upgrade)
        self._empty = self._codec.encode(self._codec.default())
        self._names = chunks.names(cookie.full_name)
        self._scanner = cookies.scanner(cookie.full_name)
        self._room = cookie.room
        self._capacity = chunks.capacity(cookie.room, cookie.max_chunks)
        self._binding = envelope.bind("cookie", cookie.full_name)
        self._warned_of_chunks = False

    def session(self, headers: Iterable[tuple[bytes, bytes]]) -> Session[T]:
        """The session of a request with these headers: names in lower case and values, as ASGI has them.

        Costs nothing before the session is touched, and never raises for what a client sent.
        """
        return Session.of(self.handle(headers))

    def handle(self, headers: Iterable[tuple[bytes, bytes]]) -> Session[T] | SessionDict:
        """The same as a handler gets it: without a model the dict of the data, else the `Session`."""
        state = State(self, headers)
        if self.model is not None:
            return Session(state)
        data = UnopenedDict(PLACEHOLDER)
        data._state = state  # type: ignore[assignment]  # without a model T is a dict
        return data

    async def save(self, session: Session[T]) -> list[tuple[bytes, bytes]]:
        """The `set-cookie` headers for the response; none where nothing has to be written.

        Call it once the handler is done and before the response starts. Where the session was touched at all, the
        response also needs `Vary: Cookie`, and with these headers `Cache-Control: no-store`. Raises `SessionTooLarge`
        and `UnencodableData`; the client then keeps what it has.
        """
        return self.commit(session) if session._state.opened else []

    def commit(self, handle: Session[T] | SessionDict) -> list[tuple[bytes, bytes]]:
        """What `save()` gives for an opened session, also by its dict."""
        state: State[T] = handle._state  # type: ignore[assignment]  # without a model T is a dict
        data: T = handle._data if isinstance(handle, Session) else handle  # type: ignore[assignment]  # likewise
        encoded, refusal = b"", None
        try:
            encoded = self._codec.encode(data)
        except ENCODING_ERRORS as error:
            refusal = codec.unencodable(self._codec, data, error)
        if refusal is not None:
            raise refusal  # here, since a UnicodeEncodeError carries the value and would be its context
        kept = state.payload.data
        if encoded != kept and self._codec.same(encoded, kept):
            encoded = kept
        changed = encoded != kept or state.amended
        if not changed and not state.overdue:
            return []
        empty = encoded == self._empty or (state.blank and encoded == kept)
        if state.outcome(empty=empty) is Outcome.CLEAR:
            return self._delete(state, encoded)
        return self._write(state, encoded, data, used=changed or state.due)

    def report_late_write(self, handle: Session[T] | SessionDict) -> None:
        """Reports a change of an opened session that came after `save()`, when the headers had left."""
        state = handle._state
        data: T = handle._data if isinstance(handle, Session) else handle  # type: ignore[assignment]  # see commit()
        try:
            encoded = self._codec.encode(data)
        except ENCODING_ERRORS:
            encoded = b""
        kept = state.payload.data
        if state.amended or (encoded != kept and not self._codec.same(encoded, kept)):
            self.reporter.report(LateWrite())

    # What a session asks of its owner.

    def open(self, state: State[T]) -> T:
        """The data of the request's session, or of a fresh one; fills in the rest of `state`."""
        now = int(self._clock())
        ring = self._keys.current(now)
        found = cookies.read(state.headers, self._scanner)
        state.brought, candidates = chunks.gather(found, self.cookie.max_chunks)
        for parts in candidates:
            try:
                token = chunks.join(parts)
                try:
                    plaintext, key = envelope.open(token, ring, self._binding, now=now)
                except InvalidToken as invalid:
                    ring = self._ring_after(invalid, now)
                    plaintext, key = envelope.open(token, ring, self._binding, now=now)
                payload = unpack(plaintext, now)
                data = self._codec.decode(payload.data)
            except InvalidToken as invalid:
                self.reporter.report(Rejected(reason=invalid.reason, path=invalid.path))
            except DECODING_ERRORS:
                self.reporter.report(Rejected(reason="undecodable"))
            else:
                rotated = key is not ring.primary
                state.settle(payload, state.brought, key)
                state.due = payload.idle_timeout != 0 and 2 * (now - payload.renewed_at) > payload.idle_timeout
                state.overdue = state.due or rotated
                state.is_new = False
                if self.reporter.debugging():
                    opened = Opened(key_id=key.id, primary=not rotated, size=len(token), chunks=len(parts))
                    self.reporter.report(opened)
                return data
        state.key = None
        return self._begin(state, now)

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session; makes `state` that of one."""
        return self._begin(state, int(self._clock()))

    def renewed(self, payload: Payload) -> Payload:
        """`payload` without its id, and with the times of a session that begins now."""
        return self._born(int(self._clock()), payload.flags, payload.subject, payload.data)

    def identified(self, payload: Payload) -> Payload:
        """`payload` with an id: its own, or if it has none a new one."""
        return payload if payload.id else replace(payload, id=self._random(ID_LENGTH))

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is of the type that this manager's sessions hold."""
        self._codec.require(data)

    def expiry(self, lifetime: timedelta) -> int:
        """The second at which what lives from now for `lifetime` ends. Raises `ConfigurationError`."""
        return min(int(self._clock()) + _seconds("lifetime", lifetime), LAST_SECOND)

    def _ring_after(self, invalid: InvalidToken, now: int) -> KeyRing:
        # Another instance may know a key that this one has not read yet. Raises `invalid` where that cannot help.
        if invalid.reason != "unknown_key" or not isinstance(self._keys, RefreshingKeySource):
            raise invalid
        return self._keys.refresh(now)

    def _begin(self, state: State[T], now: int) -> T:
        data = self._codec.default()
        encoded = self._codec.encode(data)  # not always that of another default: it may hold the time, or an id
        state.settle(self._born(now, self._flags, None, encoded), state.brought, state.key)
        state.overdue = bool(state.brought)
        state.is_new = state.blank = True
        return data

    def _born(self, now: int, flags: int, subject: str | None, data: bytes) -> Payload:
        # Without an id: most sessions that begin end with their request, and randomness takes a system call.
        expires_at = min(now + self._lifetime, LAST_SECOND)
        return Payload(flags, now, now, expires_at, self._idle_timeout, b"", subject, data)

    def _write(self, state: State[T], encoded: bytes, data: T, *, used: bool) -> list[tuple[bytes, bytes]]:
        now = int(self._clock())
        key = self._keys.current(now).primary
        payload, old_key = state.payload, state.key
        if used:
            self._codec.verify(data, encoded)
            renewed_at = max(now, payload.created_at)
            payload = replace(
                self.identified(payload), data=encoded, renewed_at=renewed_at, idle_timeout=self._idle_timeout
            )
        # else it only changes its key, and keeps its times: rotation extends nothing
        if self._compress and len(encoded) > MAX_ENCODED:
            raise self._too_large(len(encoded), MAX_ENCODED, data)
        token = envelope.seal(pack(payload, compress=self._compress), key, self._binding, now=now)
        if len(token) > self._capacity:
            raise self._too_large(len(token), self._capacity, data)
        age = max(payload.ends_at() - now, 1) if payload.flags & PERSISTENT else None
        if len(token) <= self._room:
            headers = [(b"set-cookie", self.cookie.line(self._names[0], token, age))]
        else:
            self._warn_of_chunks()
            lines = zip(self._names, chunks.split(token, self._room), strict=False)
            headers = [(b"set-cookie", self.cookie.line(name, value, age)) for name, value in lines]
        count = len(headers)
        for index in state.brought:
            if index >= count:
                headers.append(self._deletion(index))
        state.settle(payload, range(count), key)
        if self.reporter.debugging():
            self.reporter.report(_sealed(key, None if used else old_key, len(token), count))
        return headers

    def _too_large(self, size: int, limit: int, data: T) -> SessionTooLarge:
        self.reporter.report(TooLarge(size=size, limit=limit))
        return SessionTooLarge(size, limit, codec.largest_entries(self._codec, data))

    def _delete(self, state: State[T], encoded: bytes) -> list[tuple[bytes, bytes]]:
        headers = [self._deletion(index) for index in state.brought]
        if state.key is not None:
            self.reporter.report(Cleared())
        state.settle(replace(state.payload, data=encoded), (), None)
        return headers

    def _deletion(self, index: int) -> tuple[bytes, bytes]:
        return b"set-cookie", self.cookie.line(self._names[index], b"", max_age=0)

    def _warn_of_chunks(self) -> None:
        if not self._warned_of_chunks:
            self._warned_of_chunks = True
            _logger.warning(
                "a session takes more than one cookie: a proxy in front must take response headers of over 4 KB "
                "(nginx: proxy_buffer_size 16k; its default answers 502)"
            )


def _sealed(key: Key, resealed_from: Key | None, size: int, count: int) -> Sealed | Resealed:
    if resealed_from is None:
        return Sealed(key_id=key.id, size=size, chunks=count)
    return Resealed(key_id=key.id, old_key_id=resealed_from.id, size=size, chunks=count)


def _seconds(option: str, value: timedelta) -> int:
    if not isinstance(value, timedelta) or not timedelta(seconds=1) <= value <= timedelta(days=36500):
        raise ConfigurationError(f"{option} is a timedelta of at least one second and at most a century")
    return int(value.total_seconds())
