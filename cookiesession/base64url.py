"""Bytes as text: base64url without padding (RFC 4648, section 5), where every byte string has exactly one spelling."""

from __future__ import annotations

from typing import Final

from msgspec import MsgspecError, json

# JSON has no bytes, and msgspec writes them as a string of standard base64 with padding. It does so faster than
# binascii, and reads it back in half the time. Its reader is strict about the alphabet, the length and the padding.
_encode: Final = json.Encoder().encode
_decode: Final = json.Decoder(bytes).decode

# The standard alphabet's own characters, and what starts one of JSON's escapes. A quotation mark ends the string early.
_PLUS, _SLASH, _EQUALS, _BACKSLASH = b"+/=\\"
_CLOSING: Final = (b'"', b'="', b'=="')  # with as many characters of padding as are missing
# The last character of a partial group carries 4 or 2 unused bits. Only the spelling that leaves them zero is ours.
_LAST: Final = {1: b"AEIMQUYcgkosw048", 2: b"AQgw"}


def encode(data: bytes) -> bytes:
    """The text of `data`."""
    return _encode(data).strip(b'"=').replace(b"+", b"-").replace(b"/", b"_")


def decode(text: bytes) -> bytes:
    """The bytes whose `encode()` is `text`. Raises `ValueError` for any other text."""
    missing = -len(text) % 4
    if missing and (missing == 3 or text[-1] not in _LAST[missing]):
        raise ValueError("not canonical base64url")
    if _PLUS in text or _SLASH in text or _EQUALS in text or _BACKSLASH in text:
        raise ValueError("not base64url")
    try:
        return _decode(b'"' + text.replace(b"-", b"+").replace(b"_", b"/") + _CLOSING[missing])
    except MsgspecError as error:
        raise ValueError("not base64url") from error
