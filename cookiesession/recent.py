"""`Recent`: what the tokens held that were opened last, so that the next request with one of them opens it for less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cookiesession.keys import Key, KeyRing
    from cookiesession.payload import Payload

LIMIT: Final = 512 * 1024
"""Bytes of tokens in each of two generations. What they held is smaller than they are."""


class Recent:
    """Authentic payloads by their tokens, of one ring alone: another ring has opened nothing yet.

    Once `limit` bytes of newer tokens have come, what nobody has asked for meanwhile is forgotten. Whoever finds
    something checks its times, as after opening it.

    A dict compares tokens only where their hashes are equal, and the interpreter seeds these at random: how long that
    takes tells nobody about a token that he does not have.
    """

    __slots__ = ("_left", "_limit", "_newer", "_older", "_ring")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._ring: KeyRing | None = None
        self._begin({})

    def find(self, token: bytes, ring: KeyRing) -> tuple[Payload, Key] | None:
        """What `ring` has opened `token` to, and the key that did; None if it is not remembered."""
        if ring is not self._ring:
            return None
        found = self._newer.get(token)
        if found is None:
            found = self._older.get(token)
            if found is not None:
                self._put(token, found)
        return found

    def add(self, token: bytes, ring: KeyRing, payload: Payload, key: Key) -> None:
        """Remembers what `ring` has opened `token` to."""
        if ring is not self._ring:
            self._ring = ring
            self._begin({})
        self._put(token, (payload, key))

    def _put(self, token: bytes, found: tuple[Payload, Key]) -> None:
        if len(token) > self._left:
            self._begin(self._newer)
        self._left -= len(token)
        self._newer[token] = found

    def _begin(self, older: dict[bytes, tuple[Payload, Key]]) -> None:
        self._older = older
        self._newer: dict[bytes, tuple[Payload, Key]] = {}
        self._left = self._limit
