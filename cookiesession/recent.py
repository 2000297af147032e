"""`Recent`: what the tokens held that were opened last, so that the next request with one of them opens it for less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cookiesession.keys import Key, KeyRing
    from cookiesession.payload import Payload

LIMIT: Final = 512 * 1024
"""Bytes of tokens in each of two generations. What they held is smaller than they are."""

# Characters at the end of a token, which hold its tag. They tell tokens apart as well as the whole, which would take
# longer to hash.
_ENDING: Final = 24


class Recent:
    """Authentic payloads by their tokens, of one ring alone: another ring has opened nothing yet.

    Once `limit` bytes of newer tokens have come, what nobody has asked for meanwhile is forgotten. Whoever finds
    something checks its times, as after opening it.

    A token is compared only with one whose end has the same hash, and the interpreter seeds these at random: how long
    that takes tells nobody about a token that he does not have.
    """

    __slots__ = ("_left", "_limit", "_newer", "_older", "_ring")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._ring: KeyRing | None = None
        self._begin({})

    def find(self, token: bytes, ring: KeyRing) -> tuple[bytes, Payload, Key] | None:
        """`token`, what `ring` has opened it to, and the key that did; None if it is not remembered."""
        if ring is not self._ring:
            return None
        ending = token[-_ENDING:]
        found = self._newer.get(ending)
        if found is None:
            found = self._older.get(ending)
            if found is not None:
                self._put(ending, found)
        return found if found is not None and found[0] == token else None

    def add(self, token: bytes, ring: KeyRing, payload: Payload, key: Key) -> None:
        """Remembers what `ring` has opened `token` to."""
        if ring is not self._ring:
            self._ring = ring
            self._begin({})
        self._put(token[-_ENDING:], (token, payload, key))

    def _put(self, ending: bytes, found: tuple[bytes, Payload, Key]) -> None:
        size = len(found[0])
        if size > self._left:
            self._begin(self._newer)
        self._left -= size
        self._newer[ending] = found

    def _begin(self, older: dict[bytes, tuple[bytes, Payload, Key]]) -> None:
        self._older = older
        self._newer: dict[bytes, tuple[bytes, Payload, Key]] = {}
        self._left = self._limit
