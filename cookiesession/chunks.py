"""A token over several cookies: how it is cut, how the pieces are named, and how they are put together again."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING, Final

from cookiesession.cookies import BLANK, LINE_LIMIT, MAX_CHUNKS
from cookiesession.errors import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TRIES: Final = 4
"""How many cookies of one name, and how many combinations of chunks, are tried before a session counts as absent."""

INDEXES: Final = tuple(tuple(range(count)) for count in range(MAX_CHUNKS + 1))
"""The indexes of the chunks of a token, by their number."""

# The first chunk has the cookie's own name and starts with the count and a dot, the others are numbered from 1.
_SUFFIXES: Final = (b"", *(b".%d" % index for index in range(1, MAX_CHUNKS)))
_BY_SUFFIX: Final = {suffix: index for index, suffix in enumerate(_SUFFIXES)}
_COUNTS: Final = {b"%d." % count: count for count in range(2, MAX_CHUNKS + 1)}
_DOT: Final = ord(".")
_PREFIX: Final = 2  # bytes of a count and its dot


def names(cookie_name: bytes) -> tuple[bytes, ...]:
    """The names of the cookies that hold the chunks, by index."""
    return tuple(cookie_name + suffix for suffix in _SUFFIXES)


def capacity(room: int, max_chunks: int) -> int:
    """The longest token, in bytes, that fits into `max_chunks` cookies of `room` bytes."""
    return room if max_chunks == 1 else room * max_chunks - _PREFIX


def split(token: bytes, room: int) -> list[bytes]:
    """The values of the cookies that hold `token`: itself where it fits into `room` bytes, else a count and pieces."""
    if len(token) <= room:
        return [token]
    count = -(-(len(token) + _PREFIX) // room)
    text = b"%d." % count + token
    return [text[start : start + room] for start in range(0, len(text), room)]


def scatter(parts: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The cookies of a token's chunks, as a browser sends them back: the rest of each name, and the value."""
    if len(parts) == 1:  # nearly always; the rest takes four times as long
        return [(b"", parts[0])]
    return list(zip(_SUFFIXES, parts, strict=False))


def gather(
    cookies: Sequence[tuple[bytes, bytes]], max_chunks: int
) -> tuple[tuple[int, ...], Iterable[Sequence[bytes]]]:
    """The indexes of the chunks among `cookies` (the rest of a name, and the value), and what might be a session.

    Each candidate is the values of one session's chunks, a missing one empty: at most `TRIES`, first come first.
    """
    if len(cookies) == 1:  # a whole token, as on nearly every request
        suffix, value = cookies[0]
        value = value.strip(BLANK)
        if not suffix and len(value) > 1 and value[1] != _DOT:
            return INDEXES[1], ((value,),)
    found: dict[int, list[bytes]] = {}
    for suffix, value in cookies:
        index = _BY_SUFFIX.get(suffix.rstrip(BLANK))
        if index is not None:
            found.setdefault(index, []).append(value.strip(BLANK))
    return tuple(found), islice(_combinations(found, max_chunks), TRIES)


def join(parts: Sequence[bytes]) -> bytes:
    """The token of one candidate. Raises `InvalidToken` for a missing chunk and for what `split()` does not write."""
    first = parts[0]
    if len(parts) == 1 and 1 < len(first) <= LINE_LIMIT and first[1] != _DOT:  # nearly always
        return first
    for part in parts:
        if not 0 < len(part) <= LINE_LIMIT:
            raise InvalidToken("too_large" if part else "incomplete")
    if first[1:2] != b".":
        return first
    if _COUNTS.get(first[:_PREFIX]) != len(parts):
        raise InvalidToken("chunk_count")
    return first[_PREFIX:] + b"".join(parts[1:])


def _combinations(found: Mapping[int, Sequence[bytes]], max_chunks: int) -> Iterator[tuple[bytes, ...]]:
    if not found:
        return
    for first in found.get(0, (b"",))[:TRIES]:
        count = _COUNTS.get(first[:_PREFIX], 1)
        others = range(1, count) if count <= max_chunks else ()
        yield from product((first,), *(found.get(index, (b"",))[:TRIES] for index in others))
