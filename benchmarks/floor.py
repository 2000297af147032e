"""The floor: what a session costs that is written by hand, for one payload, with the primitives and nothing else.

No headers are read or written, no name is looked for, no time, key or error is checked, nothing is padded. What is left
is what a sealed session cannot do without: text to bytes and back (binascii), AES-256-GCM (cryptography), MessagePack
(msgspec). A read encodes the data once more, since nested changes are found so.
"""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from measuring import Handler
    from starlette.types import Scope

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder(dict[Any, Any]).decode
cipher: Final = AESGCM(bytes(32))
NONCE: Final = 12  # bytes
ASSOCIATED_DATA: Final = b"session"


def seal(data: dict[str, Any]) -> bytes:
    """The text of `data`."""
    nonce = os.urandom(NONCE)
    return b2a_base64(nonce + cipher.encrypt(nonce, encode(data), ASSOCIATED_DATA), newline=False)


def reading(data: dict[str, Any]) -> Handler:
    """A handler that opens `data`, reads an entry, and looks for changes."""
    text = seal(data)

    def read(_: Scope) -> bool:
        sealed = a2b_base64(text)
        encoded = cipher.decrypt(sealed[:NONCE], sealed[NONCE:], ASSOCIATED_DATA)
        session = decode(encoded)
        session["views"]
        return encode(session) != encoded

    return read


def writing(data: dict[str, Any]) -> Handler:
    """A handler that opens `data`, changes an entry, finds the change, and seals the data anew."""
    text = seal(data)

    def write(_: Scope) -> bytes:
        sealed = a2b_base64(text)
        encoded = cipher.decrypt(sealed[:NONCE], sealed[NONCE:], ASSOCIATED_DATA)
        session = decode(encoded)
        session["views"] += 1
        changed = encode(session)
        if changed == encoded:
            return text
        nonce = os.urandom(NONCE)
        return b2a_base64(nonce + cipher.encrypt(nonce, changed, ASSOCIATED_DATA), newline=False)

    return write
