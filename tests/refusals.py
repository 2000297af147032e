"""Tokens of all sorts, and every reason why one is refused, with a token that provokes it and the words for it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
from harness import START
from pydantic import BaseModel

from cookiesession import Cookie, Key, KeyRing, base64url, envelope
from cookiesession.chunks import split
from cookiesession.cookies import LINE_LIMIT
from cookiesession.keys import ALGORITHMS
from cookiesession.payload import PERSISTENT, Payload, pack
from cookiesession.schedule import ScheduledKey, moment

if TYPE_CHECKING:
    from cookiesession.aead import Algorithm
    from cookiesession.errors import Reason

DAY = 86400
NAME = b"__Host-session"
ID = bytes(range(0xA0, 0xB0))
DATA = {"user_id": 42, "name": "Ada"}
KEYS: dict[Algorithm, Key] = {
    algorithm: Key(algorithm, bytes(range(start, start + 32))) for start, algorithm in enumerate(ALGORITHMS, 128)
}
KEY, AES, FERNET = KEYS.values()
STRANGER = Key("xaes-256-gcm", bytes(range(200, 232)))
RING = KeyRing(KEY, AES, FERNET)
SECRETS = [key.export().rpartition(".")[2] for key in (*KEYS.values(), STRANGER)]


class Visitor(BaseModel):
    """A model that refuses `DATA`."""

    user_id: str = ""


def payload(
    data: Any = DATA,
    *,
    created_at: int = START,
    renewed_at: int = START,
    expires_at: int = START + DAY,
    idle_timeout: int = 0,
    subject: str | None = None,
    flags: int = PERSISTENT,
) -> Payload:
    """A session that lives for a day."""
    encoded = data if isinstance(data, bytes) else msgspec.msgpack.encode(data)
    return Payload(flags, created_at, renewed_at, expires_at, idle_timeout, ID, subject, encoded)


def sealed(plaintext: bytes, key: Key = KEY, name: bytes = NAME, now: int = START) -> bytes:
    """A token of what may be no payload."""
    return envelope.seal(plaintext, key, envelope.bind("cookie", name), now=now)


def token(key: Key = KEY, name: bytes = NAME, **options: Any) -> bytes:
    """A token of a session."""
    return sealed(pack(payload(**options)), key, name)


def laid_out(flags: int, encoded: bytes, padding: int = 32) -> bytes:
    """What `pack()` would write for these flags, put together by hand."""
    body = struct.pack(">BIIII16s", flags, START, START, START + DAY, 0, ID) + encoded + b"\x80"
    return body + bytes(-len(body) % padding)


def flip(text: bytes, index: int) -> bytes:
    """A text with another character of base64url at an index."""
    return text[:index] + (b"A" if text[index : index + 1] != b"A" else b"B") + text[index:][1:]


def scheduled(key: Key, activates: int, retires: int | None = None) -> ScheduledKey:
    """A key with times, in days from the start."""
    at = moment(START + activates * DAY)
    end = None if retires is None else moment(START + retires * DAY)
    return ScheduledKey(key=key, added=at, activates=at, retires=end)


PIECES = split(token(data={"text": "x" * 7000}), Cookie().room)
LONE_CHUNK = split(token(data={"text": "x" * 4000}), Cookie().room)[0]

REFUSALS: dict[str, tuple[bytes, Reason, str]] = {
    "character": (b"ab%c", "malformed", "character 3 of 4 is '%', which base64url does not have"),
    "control": (b"abc\x1b", "malformed", r"character 4 of 4 is '\x1b', which"),
    "line-break": (b"ab\ncd", "malformed", r"character 3 of 5 is '\n', which"),
    "quoted": (b'"' + token() + b'"', "malformed", "character 1 of "),
    "length": (b"abcde", "malformed", "its 5 characters make no whole number of bytes"),
    "last-bits": (b"AQIDB_", "malformed", "its last character, '_', sets bits that belong to no byte"),
    "padding-only": (b"==", "malformed", "it is nothing but padding"),
    "newer": (b"AgID", "malformed", "its first byte is 0x02, and version 1 writes 0x01 and Fernet 0x80"),
    "padded": (token() + b"=", "malformed", "it ends in =, as only Fernet tokens do"),
    "fernet-unpadded": (token(FERNET).rstrip(b"=") + b"===", "malformed", "a Fernet token whose padding (=) is "),
    "short": (base64url.encode(b"\x01" + KEY.fingerprint + b"x" * 39), "malformed", "its 44 bytes are too few for a "),
    "too-large": (b"A" * (LINE_LIMIT + 1), "too_large", "has 3801 bytes, and none that was written here has "),
    "lone-chunk": (LONE_CHUNK, "incomplete", "the first of 2 chunks, and there is no __Host-session.1: look at "),
    "no-first": (NAME + b".1=abc", "incomplete", "the cookie __Host-session is empty, or only later chunks of it are "),
    "empty": (NAME + b"=;", "incomplete", "the cookie __Host-session is empty, or "),
    "three-chunks": (PIECES[0], "chunk_count", "the first of 3 chunks, and the limit is max_chunks=2"),
    "no-count": (b"x.abc", "chunk_count", "it begins with 'x' and a dot, and a count of chunks is 2 to 9"),
    "strange-count": (b"\xff.abc", "chunk_count", r"it begins with '\\xff' and a dot"),
    "one-chunk": (b"1.abc", "chunk_count", "it begins with '1' and a dot"),
    "key": (token(STRANGER), "unknown_key", f"names the key {STRANGER.id}, and the keys are {KEY.id} (xaes"),
    "no-key": (b"AQ", "unknown_key", "it names the key of no id, and the keys are "),
    "changed": (flip(token(), 80), "forged", f"does not authenticate under the key {KEY.id} (xaes-256-gcm, primary"),
    "fernet-changed": (flip(token(FERNET), 80), "forged", "does not authenticate under any Fernet key for the cookie "),
    "session": (token(name=b"session"), "forged", "sealed for the cookie session, and not for __Host-session"),
    "secure": (token(AES, name=b"__Secure-session"), "forged", "sealed for the cookie __Secure-session, and not for "),
    "fernet-name": (token(FERNET, name=b"session"), "forged", "sealed for the cookie session, and not for "),
    "other-purpose": (
        envelope.seal(pack(payload()), KEY, envelope.bind("record", NAME), now=START),
        "forged",
        "it is changed or cut short, or was sealed for another cookie or purpose",
    ),
    "layout": (sealed(b"something else"), "unsupported", "has a layout that this version does not read: a newer "),
    "flag": (sealed(laid_out(0x11, b"\x80")), "unsupported", "has a layout that this version does not read"),
    "future": (
        token(created_at=START + 3600, renewed_at=START + 3600),
        "future",
        "made at 2027-01-15T09:00:00Z, 1h from now, and 60s are tolerated",
    ),
    "renewed-in-future": (token(renewed_at=START + 61), "future", "made at 2027-01-15T08:01:01Z, 1m1s from now"),
    "fernet-future": (sealed(pack(payload()), FERNET, now=START + 120), "future", "08:02:00Z, 2m from now"),
    "fernet-far": (sealed(pack(payload()), FERNET, now=2**63), "future", f"made at second {2**63}, {2**63 - START}s"),
    "fernet-future-layout": (sealed(b"x", FERNET, now=START + 120), "future", "08:02:00Z, 2m from now"),
    "expired": (token(created_at=0, renewed_at=0, expires_at=START - 5400), "expired", "06:30:00Z, 1h30m ago"),
    "expiring": (token(expires_at=START), "expired", "its lifetime ended at 2027-01-15T08:00:00Z, 0s ago"),
    "idle": (
        token(created_at=0, renewed_at=START - 2400, idle_timeout=1800),
        "idle",
        "nobody used it for its idle timeout of 30m after 2027-01-15T07:20:00Z: it ended at 2027-01-15T07:50:00Z",
    ),
    "no-messagepack": (token(data=b"\xc1"), "undecodable", "its data is no MessagePack of plain data"),
    "bad-compression": (sealed(laid_out(3, b"no zlib", 256)), "undecodable", "its compressed data is damaged"),
    "bad-extension": (sealed(laid_out(5, b"\x80")), "undecodable", "its data is no MessagePack of plain data"),
    "invalid": (token(), "invalid", "the model refuses its data at user_id, unless an upgrade makes something of it"),
}  # fmt: skip
