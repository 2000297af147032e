"""Bytes as text: base64url without padding (RFC 4648, section 5), where every byte string has exactly one spelling."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from typing import Final

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
# The standard alphabet's own "+", "/" and "=" become NUL, which the strict decoder refuses.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
# The last character of a partial group carries 4 or 2 unused bits. Only the spelling that leaves them zero is ours.
_LAST: Final = {1: b"AEIMQUYcgkosw048", 2: b"AQgw"}


def encode(data: bytes) -> bytes:
    """The text of `data`."""
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """The bytes whose `encode()` is `text`. Raises `ValueError` for any other text."""
    missing = -len(text) % 4
    if missing and (missing == 3 or text[-1] not in _LAST[missing]):
        raise ValueError("not canonical base64url")
    return a2b_base64(text.translate(_TO_STANDARD) + b"=" * missing, strict_mode=True)
