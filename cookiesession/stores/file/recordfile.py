"""The bytes of a record's file: a header that describes them strictly, and the value. No I/O."""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import Final

from cookiesession.errors import StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record

MAGIC: Final = b"csrecord"
"""What every such file starts with."""

FORMAT: Final = 1
"""The number of this layout. A file of another one is left alone, since a newer release may run beside this one."""

# The magic, the format, whether there is a subject, the version, the end, the subject, the length of the value.
_HEADER: Final = Struct(">8sBBQqQ32s")
_CHECKSUM: Final = hashlib.sha256().digest_size
HEADER_LENGTH: Final = _HEADER.size + _CHECKSUM
"""Bytes before the value: the header and the SHA-256 of the key, the header and the value."""

_VERSIONS: Final = range(1, 2**63)
_SECONDS: Final = range(-(2**63), 2**63)
_NOBODY: Final = bytes(KEY_LENGTH)


def pack(key: bytes, record: Record) -> bytes:
    """The file of a record. Raises `ValueError` for a record that is none."""
    if record.version not in _VERSIONS or record.expires_at not in _SECONDS:
        raise ValueError("a version is from 1 to 2^63 - 1, and an end fits into 64 bits")
    header = _HEADER.pack(
        MAGIC,
        FORMAT,
        record.subject is not None,
        record.version,
        record.expires_at,
        len(record.value),
        record.subject or _NOBODY,
    )
    return header + _checksum(key, header, record.value) + record.value


def unpack(key: bytes, content: bytes) -> Record | None:
    """The record of a file, or None for what `pack()` does not make for this key.

    Raises `StoreUnavailable` for the file of another release, with a layout that this one does not know.
    """
    if len(content) < HEADER_LENGTH or not content.startswith(MAGIC):
        return None
    header, value = content[: _HEADER.size], content[HEADER_LENGTH:]
    _, layout, owned, version, expires_at, length, subject = _HEADER.unpack(header)
    if layout != FORMAT:
        raise StoreUnavailable(f"a record has layout {layout}, of another release of cookiesession; this one knows 1")
    if length != len(value) or content[_HEADER.size : HEADER_LENGTH] != _checksum(key, header, value):
        return None
    if version not in _VERSIONS or owned not in (0, 1) or (not owned and subject != _NOBODY):
        return None
    return Record(value, version, expires_at, subject if owned else None)


def size(start: bytes) -> int | None:
    """The bytes of the whole file that starts so, by its header; None where it starts with no header."""
    if len(start) < _HEADER.size or not start.startswith(MAGIC):
        return None
    length: int = _HEADER.unpack_from(start)[5]
    return HEADER_LENGTH + length


def _checksum(key: bytes, header: bytes, value: bytes) -> bytes:
    # Against accidents: half a file, a file under another's name. Against people there is the seal of the value.
    checksum = hashlib.sha256(key + header)
    checksum.update(value)
    return checksum.digest()
