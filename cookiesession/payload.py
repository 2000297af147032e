"""What is inside the seal: a fixed binary header, the encoded part and padding; and the rules of time."""

from __future__ import annotations

import hashlib
import re
import struct
from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import asdict, astuple, replace

from cookiesession import codec
from cookiesession.aead import CLOCK_SKEW
from cookiesession.errors import ConfigurationError, InvalidToken

ID_LENGTH: Final = 16
"""Bytes of a session id: 128 random bits (OWASP asks for 64)."""

ID_TEXT: Final = re.compile("[0-9a-f]{32}")
"""An id as text."""

BOUND_LENGTH: Final = 16
"""Bytes of the hash of what a session is bound to: nobody can choose it, so a second preimage takes 2^128 tries."""

PADDING: Final = 32
"""Bytes to a multiple of which a plaintext is padded, so that its length tells little."""

COMPRESSED_PADDING: Final = 256
"""The same where compression would let a length tell more (CRIME, BREACH)."""

LAST_SECOND: Final = 2**32 - 1
"""The last second that a payload can name, in the year 2106."""

PERSISTENT: Final = 0x01
"""Flag: the browser keeps the cookie when it closes."""

# plaintext = flags | created_at | renewed_at | expires_at | idle timeout | session id | encoded part | 0x80 | zeros
HEADER: Final = struct.Struct(f">BIIII{ID_LENGTH}s")
"""The fixed part of a plaintext, by the fields of `Payload`."""

END: Final = b"\x80"
"""What ends the encoded part; zeros follow it (ISO/IEC 7816-4)."""

COMPRESSED: Final = 0x02
"""Flag: the encoded part is a zlib stream."""

_LENGTH: Final = HEADER.size
_read_header: Final = HEADER.unpack_from
_write_header: Final = HEADER.pack
_END: Final = END[0]
_ENDS: Final = tuple(END + bytes(zeros) for zeros in range(COMPRESSED_PADDING))
_NO_EXTENSION: Final = astuple(codec.NO_EXTENSION)
_EXTENDED: Final = 0x04  # the encoded part holds more than the data, such as a subject
_KNOWN_FLAGS: Final = PERSISTENT | COMPRESSED | _EXTENDED


class Payload(msgspec.Struct, frozen=True, gc=False):
    """A session as it is sealed. Times are whole seconds since the epoch."""

    flags: int
    created_at: int
    renewed_at: int
    """When it was last written because it was used; the idle timeout counts from here."""
    expires_at: int
    idle_timeout: int
    """Seconds without use after which the session ends; 0 for never."""
    id: bytes
    """Empty until somebody asks for it, or the session is sealed."""
    subject: str | None
    data: bytes
    """The data, as the codec encodes it."""
    label: str | None = None
    """What tells a session from the others of its subject: the browser's name, say."""
    superseded_by: bytes | None = None
    """The `id_hash()` of what it was renewed to, where this is left for requests under way; empty for none stored."""
    bound: bytes | None = None
    """The hash of what the guards of `bind=` said of the client."""
    fraction: int = 0
    """Microseconds of `created_at`, where sessions can be ended by the time at which they began."""

    def __repr__(self) -> str:
        return "<Payload>"  # neither the id nor the data, in no crash report

    def began(self) -> float:
        """When the session began, in seconds since the epoch."""
        return self.created_at + self.fraction / 1_000_000

    def ends_at(self) -> int:
        """The first second at which the session is over if nobody uses it."""
        if not self.idle_timeout:
            return self.expires_at
        return min(self.expires_at, self.renewed_at + self.idle_timeout)

    def is_due(self, now: int) -> bool:
        """Whether half of the idle timeout has passed, so that whoever uses the session writes it."""
        return 2 * (now - self.renewed_at) > self.idle_timeout > 0


def id_hash(id: bytes) -> bytes:
    """The SHA-256 of an id: what may be shown and stored, since nobody makes a cookie of it."""
    return hashlib.sha256(id).digest()


def pack(payload: Payload, *, compress: bool = False) -> bytes:
    """The plaintext of `payload`, compressed if that makes it smaller. Raises `UnencodableData` for its words."""
    flags = payload.flags & PERSISTENT
    encoded = payload.data
    extension = (payload.subject, payload.label, payload.superseded_by, payload.bound, payload.fraction)
    if extension != _NO_EXTENSION:
        encoded = codec.extend(encoded, codec.Extension(*extension))
        flags |= _EXTENDED
    if compress and len(encoded) <= codec.MAX_ENCODED and len(compressed := codec.compress(encoded)) < len(encoded):
        encoded = compressed
        flags |= COMPRESSED
    header = _write_header(
        flags, payload.created_at, payload.renewed_at, payload.expires_at, payload.idle_timeout, payload.id
    )
    plaintext = header + encoded
    padding = COMPRESSED_PADDING if flags & COMPRESSED else PADDING
    return plaintext + _ENDS[-(len(plaintext) + 1) % padding]


def unpack(plaintext: bytes, now: int) -> Payload:
    """The payload of an authentic `plaintext`, if it is valid at `now`: from a minute before it was made until it ends.

    Raises `InvalidToken` for another time, and for a layout that this version does not write. The browser's clock and
    the cookie's own expiry have no say in it.
    """
    body = plaintext.rstrip(b"\0")
    zeros = len(plaintext) - len(body)
    if len(body) <= _LENGTH or body[-1] != _END or len(plaintext) % PADDING:
        raise InvalidToken("unsupported")
    flags, created_at, renewed_at, expires_at, idle_timeout, id = _read_header(body)
    payload = Payload(flags, created_at, renewed_at, expires_at, idle_timeout, id, None, body[_LENGTH:-1])
    _check_times(payload, now)
    if flags <= PERSISTENT and zeros < PADDING:
        return payload
    return _unpack_further(payload, len(plaintext), len(body))


def _check_times(payload: Payload, now: int) -> None:
    soon = now + CLOCK_SKEW
    if payload.created_at > soon or payload.renewed_at > soon:
        raise InvalidToken("future")
    if now >= payload.expires_at:
        raise InvalidToken("expired")
    if payload.idle_timeout and now >= payload.renewed_at + payload.idle_timeout:
        raise InvalidToken("idle")


def _unpack_further(payload: Payload, padded: int, length: int) -> Payload:
    flags, encoded, extension = payload.flags, payload.data, codec.NO_EXTENSION
    padding = COMPRESSED_PADDING if flags & COMPRESSED else PADDING
    if flags & ~_KNOWN_FLAGS or padded != length + -length % padding:
        raise InvalidToken("unsupported")
    if flags & COMPRESSED:
        encoded = codec.decompress(encoded)
    if flags & _EXTENDED:
        encoded, extension = codec.reduce(encoded)
    return replace(payload, data=encoded, **asdict(extension))


def seconds(option: str, value: timedelta, *, or_none: bool = False) -> int:
    """The whole seconds of an option. Raises `ConfigurationError` for less than one and for more than a century.

    With `or_none` it may also be no time at all.
    """
    if or_none and value == timedelta(0):
        return 0
    if not isinstance(value, timedelta) or not timedelta(seconds=1) <= value <= timedelta(days=36500):
        least = "timedelta(0), or" if or_none else "a timedelta of"
        raise ConfigurationError(f"{option} is {least} at least one second and at most a century")
    return int(value.total_seconds())
