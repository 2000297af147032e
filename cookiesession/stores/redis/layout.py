"""How a record lies in Redis: the bytes of its string, and its entry in the index of a subject. Plain functions."""

from __future__ import annotations

import struct
from typing import Final

from cookiesession.stores import KEY_LENGTH, Record

GRACE: Final = 300
"""Seconds for which an index keeps an entry without a record: its writer may be on the way from one to the other."""

# The layout, the version, the second of expiry, the second of writing (of 2^32) and the length of the subject.
_HEADER: Final = struct.Struct(">4sqqIB")
LAYOUT: Final = b"csr\x01"
"""What the string of every record starts with."""
_START: Final = struct.Struct(">4sq")

START_LENGTH: Final = _HEADER.size + KEY_LENGTH
"""Bytes of which `entry_of` makes something."""

_WRITTEN: Final = 2**20  # seconds that the low bits of a score tell apart: 12 days
_LAST: Final = 2**33 - 1  # the latest expiry of a score: year 2242; times 2^20, a double still holds it exactly


def start_of(version: int) -> bytes:
    """What the string of a record of this version starts with, and that of no other version does.

    Bytes, since the numbers of a server-side script are doubles and end at 2^53.
    """
    return _START.pack(LAYOUT, version)


def pack(record: Record, written_at: int) -> bytes:
    """The string of a record. Raises `ValueError` for a version or a subject that the protocol does not know."""
    subject = record.subject or b""
    if record.version < 1 or len(subject) != (0 if record.subject is None else KEY_LENGTH):
        raise ValueError("a record's version is at least 1, and its subject of 32 bytes or None")
    header = _HEADER.pack(LAYOUT, record.version, record.expires_at, written_at % 2**32, len(subject))
    return header + subject + record.value


def unpack(text: bytes | None) -> Record | None:
    """The record of a string; None for whatever `pack` has not written."""
    return _split(text)[0]


def entry_of(text: bytes | None) -> tuple[bytes, int] | None:
    """The subject in whose index the record of this string is, and its score there; None where it is in none."""
    record, written_at = _split(text)
    if record is None or record.subject is None:
        return None
    return record.subject, score_of(record.expires_at, written_at)


def score_of(expires_at: int, written_at: int) -> int:
    """The score of an entry: by expiry, and after that by when it was written."""
    return min(max(expires_at, 0), _LAST) * _WRITTEN + written_at % _WRITTEN


def may_be_in_flight(score: float, now: int) -> bool:
    """Whether the writer of an entry may not have come to the record yet.

    Once in twelve days this is said of an old entry too, for ten minutes, which does no harm.
    """
    if not 0 <= score < 2**53:  # no score of ours
        return False
    age = (now - int(score)) % _WRITTEN
    return not GRACE <= age < _WRITTEN - GRACE


def _split(text: bytes | None) -> tuple[Record | None, int]:
    if text is None or len(text) < _HEADER.size:
        return None, 0
    layout, version, expires_at, written_at, length = _HEADER.unpack_from(text)
    end = _HEADER.size + length
    if layout != LAYOUT or version < 1 or length not in (0, KEY_LENGTH) or len(text) < end:
        return None, 0
    return Record(text[end:], version, expires_at, text[_HEADER.size : end] or None), written_at
