"""Base64url by way of msgspec, which the package has anyway."""

from __future__ import annotations

from typing import Final

from msgspec import MsgspecError, json

# JSON has no bytes, and msgspec writes them as a string of standard base64 with padding. It does so faster than
# binascii, and reads it back in half the time. Its reader is strict about the alphabet, the length and the padding.
_encode: Final = json.Encoder().encode
_decode: Final = json.Decoder(bytes).decode

_BACKSLASH: Final = ord("\\")  # starts one of JSON's escapes. A quotation mark ends the string early
_CLOSING: Final = (b'"', b'="', b'=="')  # with as many characters of padding as are missing


def encode(data: bytes) -> bytes:
    """The text of `data`."""
    return _encode(data).strip(b'"=').replace(b"+", b"-").replace(b"/", b"_")


def decode(text: bytes, missing: int) -> bytes:
    """The bytes of `text`, which lacks so many characters of padding. Raises `ValueError` for another alphabet."""
    if _BACKSLASH in text:
        raise ValueError("not base64url")
    try:
        return _decode(b'"' + text.replace(b"-", b"+").replace(b"_", b"/") + _CLOSING[missing])
    except MsgspecError as error:
        raise ValueError("not base64url") from error
