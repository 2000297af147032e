"""`SealedCookies`: payloads in cookies. Opened from the headers of a request, sealed into those of a response."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from cookiesession import chunks, cookies, envelope
from cookiesession.codec import DECODING_ERRORS, MAX_ENCODED
from cookiesession.errors import InvalidToken, SessionTooLarge
from cookiesession.events import Cleared, Opened, Rejected, Resealed, Sealed, TooLarge
from cookiesession.keys import ring_after
from cookiesession.payload import PERSISTENT, pack, unpack
from cookiesession.recent import Recent, Unsealed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cookiesession.configuration import Configuration
    from cookiesession.guards import Guards
    from cookiesession.keys import Key, KeyRing
    from cookiesession.payload import Payload
    from cookiesession.state import Carried

T = TypeVar("T")

Headers = list[tuple[bytes, bytes]]

_ONE: Final = chunks.INDEXES[1]  # one chunk, as of most sessions
_EXPIRED: Final = frozenset({"expired", "idle"})

_logger = logging.getLogger("cookiesession")


class SealedCookies:
    """The cookies of one name, sealed for one `purpose`."""

    def __init__(self, configuration: Configuration, purpose: str) -> None:
        self._keys = configuration.keys
        self._cookie: Final = configuration.cookie
        self._reporter = configuration.reporter
        self._compress = configuration.compress
        self._names = chunks.names(self._cookie.full_name)
        self._first = self._cookie.full_name + b"="
        self._max_chunks = self._cookie.max_chunks
        self._room = self._cookie.room
        self._capacity = chunks.capacity(self._room, self._max_chunks)
        self._guards = configuration.guards
        self._binding = envelope.bind(purpose, self._cookie.full_name)
        self._recent = Recent()
        self._warned_of_chunks = False

    def open(self, carried: Carried, decode: Callable[[bytes], T], now: int) -> T | None:
        """What `decode` makes of the first payload that opens and is valid now; fills in `carried`.

        Without a key where there is none. `decode` refuses as a codec does.
        """
        carried.expired = False
        carried.key = None
        carried.is_watched = self._reporter.debugging()
        if self._guards is not None:
            carried.headers = tuple(carried.headers)  # read twice
            carried.bound = None
        found = cookies.read(carried.headers, self._names[0])
        if not found:
            carried.brought = ()
            return None
        ring = self._keys.current(now)
        known = self._recent.find(found, ring, now)
        if known is not None:
            carried.brought = known.indexes
            return self._accept(carried, known, ring, decode)
        carried.brought, candidates = chunks.gather(found, self._max_chunks)
        for parts in candidates:
            try:
                unsealed, ring = self._unseal(parts, ring, now)
            except InvalidToken as invalid:
                self._reject(carried, invalid)
                continue
            if found == chunks.scatter(parts):  # the token and nothing besides, be it blanks
                self._recent.add(found, ring, unsealed, now)
            data = self._accept(carried, unsealed, ring, decode)
            if carried.key is not None:
                return data
        return None

    def _unseal(self, parts: Sequence[bytes], ring: KeyRing, now: int) -> tuple[Unsealed, KeyRing]:
        """What the chunks hold, and the ring that the key is in. Raises `InvalidToken`."""
        token = chunks.join(parts)
        try:
            plaintext, key = envelope.open(token, ring, self._binding, now=now)
        except InvalidToken as invalid:
            ring = ring_after(invalid, self._keys, now)
            plaintext, key = envelope.open(token, ring, self._binding, now=now)
        return Unsealed(unpack(plaintext, now), key, len(token), chunks.INDEXES[len(parts)]), ring

    def _accept(self, carried: Carried, unsealed: Unsealed, ring: KeyRing, decode: Callable[[bytes], T]) -> T | None:
        """What `decode` makes of a payload; fills in `carried`. Without a key where it is not for this client."""
        payload, key, guards = unsealed.payload, unsealed.key, self._guards
        try:
            if guards is not None and payload.bound is not None:  # None: sealed when there were none
                self._check(carried, payload.bound, guards)
            data = decode(payload.data)
        except InvalidToken as invalid:
            self._reject(carried, invalid)
        except DECODING_ERRORS:
            self._reporter.report(Rejected(reason="undecodable"))
        else:
            carried.payload = payload
            carried.key = key
            carried.expired = False  # what came before it in the header is not this session
            primary = key is ring.primary
            carried.rotated = not primary or (payload.bound is None and guards is not None)
            if carried.is_watched:
                opened = Opened(key_id=key.id, primary=primary, size=unsealed.size, chunks=len(unsealed.indexes))
                self._reporter.report(opened)
            return data
        return None

    def _reject(self, carried: Carried, invalid: InvalidToken) -> None:
        carried.expired |= invalid.reason in _EXPIRED
        self._reporter.report(Rejected(reason=invalid.reason, path=invalid.path))

    def write(self, carried: Carried, payload: Payload, now: int, *, resealed: bool = False) -> Headers:
        """The headers that put `payload` into the cookies. Raises `SessionTooLarge`, without the largest entries."""
        key = self._keys.current(now).primary
        if self._compress and len(payload.data) > MAX_ENCODED:
            raise self._too_large(len(payload.data), MAX_ENCODED, is_data=True)
        if self._guards is not None:
            payload = replace(payload, bound=self._bound(carried, self._guards))
        token = envelope.seal(pack(payload, compress=self._compress), key, self._binding, now)
        age = payload.ends_at() - now if payload.flags & PERSISTENT else None
        attributes = self._cookie.attributes(age)
        brought = _ONE
        if len(token) <= self._room:
            headers = [(b"set-cookie", self._first + token + attributes)]
        else:
            headers = self._split(token, attributes)
            brought = chunks.INDEXES[len(headers)]
        if carried.brought is not brought:
            headers += [self._deletion(index) for index in carried.brought if index not in brought]
        if carried.is_watched:
            self._reporter.report(_sealed(key, carried.key if resealed else None, len(token), len(brought)))
        carried.brought = brought
        carried.key = key
        carried.payload = payload
        carried.rotated = False
        return headers

    def delete(self, carried: Carried) -> Headers:
        """The headers that take the cookies away."""
        headers = [self._deletion(index) for index in carried.brought]
        if carried.key is not None:
            self._reporter.report(Cleared())
        carried.brought = ()
        carried.key = None
        return headers

    def recognize(self, carried: Carried) -> None:
        """Asks the guards for the client, once. Raises what a guard raises: better before anything is stored."""
        if self._guards is not None:
            self._bound(carried, self._guards)

    def fits(self, carried: Carried, payload: Payload, now: int) -> bool:
        """Whether `write()` would not raise `SessionTooLarge`."""
        if len(payload.data) > MAX_ENCODED:
            return False
        key = self._keys.current(now).primary
        if self._guards is not None:  # the very hash, as compressed lengths differ
            payload = replace(payload, bound=self._bound(carried, self._guards))
        return len(envelope.seal(pack(payload, compress=self._compress), key, self._binding, now)) <= self._capacity

    def _check(self, carried: Carried, bound: bytes, guards: Guards) -> None:
        """Raises `InvalidToken` for a session of another client."""
        try:
            is_same = hmac.compare_digest(bound, self._bound(carried, guards))
        except Exception as error:  # noqa: BLE001 - whatever the application's guard raises
            # Without its traceback, whose frames hold headers; at a bounded rate, since a client may make it raise.
            self._reporter.log(type(guards), logging.ERROR, "a guard of bind raised %s", type(error).__name__)
            is_same = False
        if not is_same:
            raise InvalidToken("bound")

    def _bound(self, carried: Carried, guards: Guards) -> bytes:
        if carried.bound is None:
            carried.bound = guards.hash(carried.scope, carried.headers)
        return carried.bound

    def _split(self, token: bytes, attributes: bytes) -> Headers:
        """The headers of a token that one cookie does not hold. Raises `SessionTooLarge` where several do not."""
        if len(token) > self._capacity:
            raise self._too_large(len(token), self._capacity)
        self._warn_of_chunks()
        values = zip(self._names, chunks.split(token, self._room), strict=False)
        return [(b"set-cookie", name + b"=" + value + attributes) for name, value in values]

    def _too_large(self, size: int, limit: int, *, is_data: bool = False) -> SessionTooLarge:
        self._reporter.report(TooLarge(size=size, limit=limit))
        return SessionTooLarge(size, limit, is_data=is_data)

    def _deletion(self, index: int) -> tuple[bytes, bytes]:
        return b"set-cookie", self._cookie.line(self._names[index], b"", max_age=0)

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
