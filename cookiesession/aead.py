"""The three algorithms behind one pair of verbs. Every primitive is `cryptography`'s; what lives here is their use."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import weakref
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final, Literal, Protocol

from cryptography import fernet
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from cookiesession.errors import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Callable

Algorithm = Literal["xaes-256-gcm", "aes-256-gcm", "fernet"]
"""The names of the algorithms, as they stand in a key."""

CLOCK_SKEW: Final = 60
"""Seconds that a token may come from the future: the tolerance of the Fernet reference implementation."""

SEAL_LIMIT: Final = 2**32
"""Seals under one AES-GCM key with random 96-bit nonces (NIST SP 800-38D, section 8.3)."""

_HALF: Final = 12  # bytes: half of an XAES nonce, and the whole of an AES-GCM one
_NONCE: Final = 24  # bytes, of XAES
_TAG: Final = 16  # bytes
_SEALS_PER_HALF: Final = 2**16
_CACHED_CIPHERS: Final = 1024

_logger = logging.getLogger("cookiesession")


class AEAD(Protocol):
    """Authenticated encryption under one secret."""

    def seal(self, plaintext: bytes, associated_data: bytes, now: int) -> bytes:
        """The nonce and the ciphertext of `plaintext`, bound to `associated_data`."""
        ...

    def open(self, sealed: bytes, associated_data: bytes, *, now: int) -> bytes:
        """The plaintext. Raises `InvalidToken` unless `sealed` was made by `seal()` with the same associated data."""
        ...


def create(algorithm: Algorithm, secret: bytes, name: str) -> AEAD:
    """The `algorithm` under `secret` (32 bytes); `name` is what warnings call it."""
    if algorithm == "xaes-256-gcm":
        return XAES256GCM(secret)
    if algorithm == "aes-256-gcm":
        return AES256GCM(secret, name)
    return Fernet(secret)


def derive(secret: bytes, half: bytes) -> AESGCM:
    """The AES-256-GCM of one first half of an XAES nonce.

    C2SP XAES-256-GCM: NIST SP 800-108r1 in counter mode over CMAC-AES256, with a 16-bit counter, the label "X", a zero
    byte and the half nonce as context, and no length field.
    """
    kdf = KBKDFCMAC(
        algorithm=AES,
        mode=Mode.CounterMode,
        length=32,
        rlen=2,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"X\0" + half,
    )
    return AESGCM(kdf.derive(secret))


class XAES256GCM:
    """XAES-256-GCM (C2SP), with a 24-byte random nonce.

    The first half of the nonce selects a derived AES-256-GCM key. This process keeps one random first half for up to
    2^16 seals, which spreads the derivation's cost over them; the second half is random for every seal. Two seals
    share a nonce with a probability of 2^-32 only after 2^49 of them, and neither a fork nor a cloned machine repeats
    one, since no counter is involved.
    """

    __slots__ = ("__weakref__", "_ciphers", "_left", "_own", "_random", "_secret")

    def __init__(self, secret: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._secret = secret
        self._random = random
        self._ciphers: dict[bytes, AESGCM] = {}
        self._begin()
        _instances.add(self)

    def seal(self, plaintext: bytes, associated_data: bytes, now: int = 0) -> bytes:
        """24 bytes of nonce, the ciphertext and 16 bytes of tag."""
        self._left -= 1
        if self._left < 0:
            self._begin()
        half, cipher = self._own
        rest = self._random(_HALF)
        return half + rest + cipher.encrypt(rest, plaintext, associated_data)

    def open(self, sealed: bytes, associated_data: bytes, *, now: int = 0) -> bytes:
        """The plaintext. A derived cipher is remembered only once it has opened something: forgeries evict nothing."""
        if len(sealed) < _NONCE + _TAG:
            raise InvalidToken("malformed")
        half = sealed[:_HALF]
        known = self._ciphers.get(half)
        cipher = known or derive(self._secret, half)
        try:
            plaintext = cipher.decrypt(sealed[_HALF:_NONCE], sealed[_NONCE:], associated_data)
        except InvalidTag as error:
            raise InvalidToken("forged") from error
        if known is None:
            self._remember(half, cipher)
        return plaintext

    def _begin(self) -> None:
        half = self._random(_HALF)
        self._own = half, derive(self._secret, half)
        self._left = _SEALS_PER_HALF - 1
        self._remember(*self._own)

    def _remember(self, half: bytes, cipher: AESGCM) -> None:
        if len(self._ciphers) >= _CACHED_CIPHERS:
            self._ciphers = {}  # rather than a lock: a thread that still holds the old one loses nothing
        self._ciphers[half] = cipher

    @staticmethod
    def _begin_all() -> None:
        for instance in _instances:
            instance._left = 0


# A forked child begins halves of its own.
_instances: weakref.WeakSet[XAES256GCM] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=XAES256GCM._begin_all)


class AES256GCM:
    """AES-256-GCM with a 12-byte random nonce: at most 2^32 seals under one key.

    This process counts its own seals and warns once, at half of the limit. Instances that share a key share the limit.
    """

    __slots__ = ("_cipher", "_count", "_name", "_random")

    def __init__(self, secret: bytes, name: str, random: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = AESGCM(secret)
        self._name = name
        self._random = random
        self._count = itertools.count(1)

    def seal(self, plaintext: bytes, associated_data: bytes, now: int = 0) -> bytes:
        """12 bytes of nonce, the ciphertext and 16 bytes of tag."""
        if next(self._count) == SEAL_LIMIT // 2:
            _logger.warning(
                "key %s has sealed 2^31 times in this process; AES-GCM is safe for 2^32 in all: "
                "rotate it, or use an xaes-256-gcm key",
                self._name,
            )
        nonce = self._random(_HALF)
        return nonce + self._cipher.encrypt(nonce, plaintext, associated_data)

    def open(self, sealed: bytes, associated_data: bytes, *, now: int = 0) -> bytes:
        """The plaintext."""
        if len(sealed) < _HALF + _TAG:
            raise InvalidToken("malformed")
        try:
            return self._cipher.decrypt(sealed[:_HALF], sealed[_HALF:], associated_data)
        except InvalidTag as error:
            raise InvalidToken("forged") from error


class Fernet:
    """Stock Fernet, of version 0x80: AES-128-CBC and HMAC-SHA256 with a time of sealing.

    Fernet has no associated data. Its plaintext therefore starts with the SHA-256 of the token's version and time and
    of the associated data.
    """

    __slots__ = ("_fernet",)

    VERSION: Final = b"\x80"
    _HEADER: Final = 9  # bytes: the version, and the time as a 64-bit big-endian number of seconds
    _DIGEST: Final = 32  # bytes

    def __init__(self, secret: bytes) -> None:
        self._fernet = fernet.Fernet(urlsafe_b64encode(secret))

    def seal(self, plaintext: bytes, associated_data: bytes, now: int) -> bytes:
        """The bytes of a Fernet token made at `now` (seconds since the epoch)."""
        header = self.VERSION + now.to_bytes(8, "big")
        text = self._fernet.encrypt_at_time(self._digest(header, associated_data) + plaintext, now)
        return urlsafe_b64decode(text)

    def open(self, sealed: bytes, associated_data: bytes, *, now: int) -> bytes:
        """The plaintext. Refuses a time more than `CLOCK_SKEW` seconds after `now`."""
        header = sealed[: self._HEADER]
        try:
            plaintext = self._fernet.decrypt(urlsafe_b64encode(sealed))
        except fernet.InvalidToken as error:
            raise InvalidToken("forged") from error
        # The whole token is authenticated by now: this compares public values, and its timing tells nothing.
        if plaintext[: self._DIGEST] != self._digest(header, associated_data):
            raise InvalidToken("forged")
        if int.from_bytes(header[1:], "big") > now + CLOCK_SKEW:
            raise InvalidToken("future")
        return plaintext[self._DIGEST :]

    @staticmethod
    def _digest(header: bytes, associated_data: bytes) -> bytes:
        return hashlib.sha256(header + associated_data).digest()
