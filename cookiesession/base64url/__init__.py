"""Bytes as text: base64url without padding (RFC 4648, section 5), where every byte string has exactly one spelling."""

from __future__ import annotations

from typing import Final

try:
    from cookiesession.base64url.by_pybase64 import decode as _decode
    from cookiesession.base64url.by_pybase64 import encode
except ImportError:
    from cookiesession.base64url.by_msgspec import decode as _decode
    from cookiesession.base64url.by_msgspec import encode

__all__ = ["decode", "encode"]

# The standard alphabet's own characters, which its decoders take for ours.
_PLUS, _SLASH, _EQUALS = b"+/="
# The last character of a partial group carries 4 or 2 unused bits. Only the spelling that leaves them zero is ours.
_LAST: Final = {1: b"AEIMQUYcgkosw048", 2: b"AQgw"}


def decode(text: bytes) -> bytes:
    """The bytes whose `encode()` is `text`. Raises `ValueError` for any other text."""
    missing = -len(text) % 4
    if missing and (missing == 3 or text[-1] not in _LAST[missing]):
        raise ValueError("not canonical base64url")
    if _PLUS in text or _SLASH in text or _EQUALS in text:
        raise ValueError("not base64url")
    return _decode(text, missing)
