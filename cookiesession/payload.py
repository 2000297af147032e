"""What is inside the seal: a fixed binary header, the encoded part and padding; and the rules of time."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from msgspec.structs import replace

from cookiesession import codec
from cookiesession.aead import CLOCK_SKEW
from cookiesession.errors import InvalidToken

ID_LENGTH: Final = 16
"""Bytes of a session id: 128 random bits (OWASP asks for 64)."""

PADDING: Final = 32
"""Bytes to a multiple of which a plaintext is padded, so that its length tells little."""

COMPRESSED_PADDING: Final = 256
"""The same where compression would let a length tell more (CRIME, BREACH)."""

LAST_SECOND: Final = 2**32 - 1
"""The last second that a payload can name, in the year 2106."""

PERSISTENT: Final = 0x01
"""Flag: the browser keeps the cookie when it closes."""

# plaintext = flags | created_at | renewed_at | expires_at | idle timeout | session id | encoded part | 0x80 | zeros
_HEADER: Final = struct.Struct(f">BIIII{ID_LENGTH}s")
_END: Final = b"\x80"  # and zeros after it: ISO/IEC 7816-4
_ENDS: Final = tuple(_END + bytes(zeros) for zeros in range(COMPRESSED_PADDING))
_COMPRESSED: Final = 0x02  # the encoded part is a zlib stream
_EXTENDED: Final = 0x04  # the encoded part holds more than the data, such as a subject
_KNOWN_FLAGS: Final = PERSISTENT | _COMPRESSED | _EXTENDED


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

    def ends_at(self) -> int:
        """The first second at which the session is over if nobody uses it."""
        if not self.idle_timeout:
            return self.expires_at
        return min(self.expires_at, self.renewed_at + self.idle_timeout)


def pack(payload: Payload, *, compress: bool = False) -> bytes:
    """The plaintext of `payload`, compressed if that makes it smaller. Raises `UnencodableData` for its subject."""
    flags = payload.flags & PERSISTENT
    encoded = payload.data
    if payload.subject is not None:
        encoded = codec.extend(encoded, payload.subject)
        flags |= _EXTENDED
    if compress and len(compressed := codec.compress(encoded)) < len(encoded):
        encoded = compressed
        flags |= _COMPRESSED
    header = _HEADER.pack(
        flags, payload.created_at, payload.renewed_at, payload.expires_at, payload.idle_timeout, payload.id
    )
    plaintext = header + encoded
    padding = COMPRESSED_PADDING if flags & _COMPRESSED else PADDING
    return plaintext + _ENDS[-(len(plaintext) + 1) % padding]


def unpack(plaintext: bytes, now: int) -> Payload:
    """The payload of an authentic `plaintext`, if it is valid at `now`: from a minute before it was made until it ends.

    Raises `InvalidToken` for another time, and for a layout that this version does not write. The browser's clock and
    the cookie's own expiry have no say in it.
    """
    body = plaintext.rstrip(b"\0")
    if not body.endswith(_END, _HEADER.size) or len(plaintext) % PADDING:
        raise InvalidToken("unsupported")
    flags, created_at, renewed_at, expires_at, idle_timeout, id = _HEADER.unpack_from(body)
    if created_at > now + CLOCK_SKEW or renewed_at > now + CLOCK_SKEW:
        raise InvalidToken("future")
    if now >= expires_at:
        raise InvalidToken("expired")
    if idle_timeout and now >= renewed_at + idle_timeout:
        raise InvalidToken("idle")
    payload = Payload(flags, created_at, renewed_at, expires_at, idle_timeout, id, None, body[_HEADER.size : -1])
    if flags <= PERSISTENT and len(plaintext) - len(body) < PADDING:
        return payload
    return _unpack_further(payload, len(plaintext), len(body))


def _unpack_further(payload: Payload, padded: int, length: int) -> Payload:
    flags, encoded, subject = payload.flags, payload.data, None
    padding = COMPRESSED_PADDING if flags & _COMPRESSED else PADDING
    if flags & ~_KNOWN_FLAGS or padded != length + -length % padding:
        raise InvalidToken("unsupported")
    if flags & _COMPRESSED:
        encoded = codec.decompress(encoded)
    if flags & _EXTENDED:
        encoded, subject = codec.reduce(encoded)
    return replace(payload, data=encoded, subject=subject)
