"""Seal and open: the envelope of version 1, its text, and the choice of the one key that may open it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cookiesession import base64url
from cookiesession.aead import Fernet
from cookiesession.errors import InvalidToken
from cookiesession.keys import VERSION

if TYPE_CHECKING:
    from cookiesession.keys import Key, KeyRing

# envelope = header (0x01 | key id) | nonce | ciphertext | tag     (Fernet: the standard token, which starts with 0x80)
HEADER: Final = 5
"""Bytes before the nonce: the version and the key id, which are the `header` of a key."""


def bind(purpose: str, context: bytes) -> bytes:
    """The part of the associated data that says what an envelope is for.

    The purpose comes with its length, so that no two pairs of purpose and context give the same bytes.
    """
    name = purpose.encode("ascii")
    return bytes([len(name)]) + name + context


def seal(plaintext: bytes, key: Key, binding: bytes, now: int) -> bytes:
    """The token: `plaintext` sealed under `key` for what `bind()` said, as text.

    `now` (seconds since the epoch) is written down by Fernet alone, which cannot do without.
    """
    header = key.header
    text = base64url.encode(header + key.aead.seal(plaintext, header + binding, now))
    return text if header else text + b"=" * (-len(text) % 4)


def open(token: bytes, ring: KeyRing, binding: bytes, *, now: int) -> tuple[bytes, Key]:
    """The plaintext and the key that opened it. Raises `InvalidToken` for whatever `seal()` would not have written.

    One key is tried, the one that the envelope names. A Fernet token names none: every Fernet key of the ring is.
    """
    text = token.rstrip(b"=")
    try:
        envelope = base64url.decode(text)
    except ValueError as error:
        raise InvalidToken("malformed") from error
    if len(token) - len(text) != (-len(text) % 4 if envelope[:1] == Fernet.VERSION else 0):
        raise InvalidToken("malformed")
    return open_bytes(envelope, ring, binding, now=now)


def seal_bytes(plaintext: bytes, key: Key, binding: bytes, now: int) -> bytes:
    """The envelope itself, which `seal()` makes text of."""
    return key.header + key.aead.seal(plaintext, key.header + binding, now)


def open_bytes(envelope: bytes, ring: KeyRing, binding: bytes, *, now: int) -> tuple[bytes, Key]:
    """What `open()` gives for the text of `envelope`."""
    header = envelope[:HEADER]
    key = ring.by_header.get(header)
    if key is not None:
        return key.aead.open(envelope[HEADER:], header + binding, now=now), key
    version = envelope[:1]
    if version == Fernet.VERSION:
        return _open_fernet(envelope, ring, binding, now)
    raise InvalidToken("unknown_key" if version == VERSION else "malformed")


def _open_fernet(envelope: bytes, ring: KeyRing, binding: bytes, now: int) -> tuple[bytes, Key]:
    for key in ring.fernet:
        try:
            return key.aead.open(envelope, binding, now=now), key
        except InvalidToken as error:
            if error.reason != "forged":
                raise
    raise InvalidToken("forged" if ring.fernet else "unknown_key")
