"""`Recent`: what the cookies held that were opened last, so that the next request with them opens them for less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from cookiesession.payload import COMPRESSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cookiesession.keys import Key, KeyRing
    from cookiesession.payload import Payload

    Cookies = Sequence[tuple[bytes, bytes]]
    """The chunks of one token, as a header has them: the rest of each name, and the value."""
    _Entry = tuple[Cookies, "Unsealed", KeyRing, int, int]
    """What the cookies held, the ring that opened them, and from and until which second it is known to be valid."""

LIMIT: Final = 512 * 1024
"""Bytes in each of two generations: of tokens, and of what they held where it was compressed."""

# Characters at the end of the last cookie, which hold the token's tag. They tell cookies apart as well as the whole,
# which takes longer to hash.
_ENDING: Final = 24


class Unsealed(msgspec.Struct, frozen=True, gc=False):
    """What a key has opened, and what it was opened from."""

    payload: Payload
    key: Key
    size: int
    """Bytes of the token."""
    indexes: Sequence[int]
    """Of the chunks that held it."""


class Recent:
    """Authentic payloads by the cookies that held them, of one ring alone: another ring has opened nothing yet.

    Once `limit` bytes of newer ones have come, what nobody has asked for meanwhile is forgotten.

    How long a look takes tells nobody about a token that he does not have: cookies are compared only with those of the
    same end, and ends where they have the same hash, which the interpreter seeds at random. Who could guess an end
    could guess on: where the last chunk is shorter than one, nothing is remembered.

    Threads need no lock: each entry names its ring, whatever another thread has made of the others.
    """

    __slots__ = ("_left", "_limit", "_newer", "_older", "_ring")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._ring: KeyRing | None = None
        self._begin({})

    def find(self, cookies: Cookies, ring: KeyRing, now: int) -> Unsealed | None:
        """What `ring` has opened these cookies to, if it is remembered and known to be valid at `now`."""
        if ring is not self._ring:
            return None
        ending = cookies[-1][1][-_ENDING:]
        entry = self._newer.get(ending)
        if entry is None:
            entry = self._older.get(ending)
            if entry is None:
                return None
            self._put(ending, entry)
        known, unsealed, opener, since, until = entry
        return unsealed if opener is ring and known == cookies and since <= now < until else None

    def add(self, cookies: Cookies, ring: KeyRing, unsealed: Unsealed, now: int) -> None:
        """Remembers what `ring` has opened these cookies to, and that it is valid from `now` on."""
        ending = cookies[-1][1][-_ENDING:]
        if len(ending) < _ENDING:
            return
        if ring is not self._ring:
            self._ring = ring
            self._begin({})
        self._put(ending, (cookies, unsealed, ring, now, unsealed.payload.ends_at()))

    def _put(self, ending: bytes, entry: _Entry) -> None:
        size = _size(entry[1])
        if size > self._left:
            self._begin(self._newer)
        self._left -= size
        self._newer[ending] = entry

    def _begin(self, older: dict[bytes, _Entry]) -> None:
        self._older = older
        self._newer: dict[bytes, _Entry] = {}
        self._left = self._limit


def _size(unsealed: Unsealed) -> int:
    """The bytes that count: a compressed token may have held a thousand times its length."""
    payload = unsealed.payload
    if not payload.flags & COMPRESSED:
        return unsealed.size
    return unsealed.size + len(payload.data) + len(payload.subject or "") + len(payload.label or "")
