"""Keys and the ring that holds them. A key is a secret with its algorithm; its name is its fingerprint."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from typing import Final, NoReturn, Protocol, cast, get_args, runtime_checkable

from cookiesession import aead, base64url
from cookiesession.aead import Algorithm
from cookiesession.errors import KEYGEN, ConfigurationError, InvalidToken

ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

VERSION: Final = b"\x01"
"""The first byte of every envelope but Fernet's."""

_TAG: Final = "csk1"  # "cookiesession key, version 1": something for a secret scanner to look for
_SECRET: Final = 32  # bytes
# 32 random bytes hold 30 different values on average. Fewer than 16, or nothing but printable ASCII, comes by chance
# less than once in 10^13 keys, and by hand nearly always.
_LEAST_VARIETY: Final = 16
_PRINTABLE: Final = frozenset(range(0x20, 0x7F))
_KEY: Final = re.compile(rf"{_TAG}\.[a-z0-9-]+\.[A-Za-z0-9_-]{{20}}")  # so much of a key that it is to be kept secret


class Key:
    """A secret and the algorithm it is for. Neither `repr` nor `str` shows the secret, and pickle refuses.

    >>> key = Key.generate()
    >>> Key.parse(key.export()) == key
    True
    """

    __slots__ = ("_secret", "aead", "algorithm", "fingerprint", "header", "id")

    def __init__(self, algorithm: Algorithm, secret: bytes) -> None:
        """`secret` is 32 random bytes. Raises `ConfigurationError` for anything that cannot be that."""
        if algorithm not in ALGORITHMS:
            raise ConfigurationError(f"a key's algorithm is one of {', '.join(ALGORITHMS)}; make a key with: {KEYGEN}")
        _require_strong(secret)
        self._secret = secret
        self.algorithm: Final = algorithm
        # The domain keeps this hash from ever meeting another hash of the same secret.
        named = b"cookiesession/v1/key-id\0" + algorithm.encode() + b"\0" + secret
        self.fingerprint: Final = hashlib.sha256(named).digest()[:4]
        # What its envelopes start with. Fernet's have a header of their own, which names no key.
        self.header: Final = b"" if algorithm == "fernet" else VERSION + self.fingerprint
        self.id: Final = self.fingerprint.hex()
        self.aead: Final = aead.create(algorithm, secret, self.id)

    @classmethod
    def generate(cls, algorithm: Algorithm = "xaes-256-gcm") -> Key:
        """A new key from the operating system's randomness."""
        return cls(algorithm, secrets.token_bytes(_SECRET))

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that `export()` gave. Raises `ConfigurationError`, which does not show the text."""
        if not isinstance(text, str):
            raise ConfigurationError(f"a key is a str, as export() gives it; make one with: {KEYGEN}")
        tag, _, rest = text.strip().partition(".")
        algorithm, _, encoded = rest.partition(".")
        if tag != _TAG:
            raise ConfigurationError(f"a key starts with {_TAG!r} and is not a password; make one with: {KEYGEN}")
        try:
            secret = base64url.decode(encoded.encode("ascii", "replace"))
        except ValueError:
            raise ConfigurationError(f"a key is damaged or cut short; make one with: {KEYGEN}") from None
        return cls(cast("Algorithm", algorithm), secret)

    def export(self) -> str:
        """The secret as text, for `parse()`. Whoever holds it can read and write every session."""
        return f"{_TAG}.{self.algorithm}.{base64url.encode(self._secret).decode()}"

    def __repr__(self) -> str:
        return f"<Key {self.id} {self.algorithm}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return self.algorithm == other.algorithm and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __copy__(self) -> Key:
        return self

    def __deepcopy__(self, memo: object) -> Key:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled, so that it cannot end up in a cache or a queue; use export()")


class KeyRing:
    """The keys in use: `primary` seals, every key opens.

    >>> old, new = Key.generate(), Key.generate()
    >>> ring = KeyRing.parse(f"{new.export()} {old.export()}")
    >>> ring.primary == new
    True
    """

    __slots__ = ("by_header", "fernet", "keys", "primary")

    def __init__(self, primary: Key, *others: Key) -> None:
        """Raises `ConfigurationError` when two keys have one id: a key given twice, or a collision of 32 bits."""
        if not all(isinstance(key, Key) for key in (primary, *others)):
            raise ConfigurationError(
                f"a ring is made of keys; of text by KeyRing.parse(text), as it comes from: {KEYGEN}"
            )
        self.primary: Final = primary
        self.keys: Final = (primary, *others)
        self.fernet: Final = tuple(key for key in self.keys if key.algorithm == "fernet")
        self.by_header: Final = {key.header: key for key in self.keys if key.algorithm != "fernet"}
        ids = [key.id for key in self.keys]
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            raise ConfigurationError(f"two keys of the ring have the id {twice[0]}; replace one by: {KEYGEN}")

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """The ring of keys separated by white space, the primary first. Raises `ConfigurationError`."""
        keys = [Key.parse(word) for word in text.split()] if isinstance(text, str) else []
        if not keys:
            raise ConfigurationError(f"there is no key; make one with: {KEYGEN}")
        return cls(*keys)

    @classmethod
    def from_env(cls, name: str) -> KeyRing:
        """The ring in the environment variable `name`. Raises `ConfigurationError`."""
        if not isinstance(name, str):  # say the variable's value, which is missing
            raise ConfigurationError('from_env() takes the name of an environment variable, such as "SESSION_KEYS"')
        require_no_key(name, "the name of an environment variable")
        text = os.environ.get(name, "")
        if not text.strip():
            raise ConfigurationError(f"the environment variable {name} holds no key; set it to the output of: {KEYGEN}")
        return cls.parse(text)

    def current(self, now: float) -> KeyRing:
        """Itself: a ring is a `KeySource` that never changes."""
        return self

    def __repr__(self) -> str:
        return f"<KeyRing {' '.join(key.id for key in self.keys)}>"


@runtime_checkable
class KeySource(Protocol):
    """Whatever gives a ring. `KeyRing` is one; so is an object of yours that fetches keys from elsewhere.

    >>> isinstance(KeyRing(Key.generate()), KeySource)
    True
    """

    def current(self, now: float) -> KeyRing:
        """The ring to use at `now` (seconds since the epoch).

        Called once for every session opened or sealed, on the event loop: it must not block. While the keys are the
        same, so should be the ring: what one ring has opened is remembered for it alone. An exception is the operator's
        and becomes a 500.
        """
        ...


@runtime_checkable
class RefreshingKeySource(KeySource, Protocol):
    """A `KeySource` that can look for newer keys at once. `KeyFile` is one."""

    def refresh(self, now: float) -> KeyRing:
        """The ring to use at `now`, after another look.

        Called when a token names a key that `current()` did not give. Anybody can send such tokens: whoever implements
        this looks at most once in a while, and waits for a bounded time.
        """
        ...


def ring_after(invalid: InvalidToken, keys: KeySource, now: float) -> KeyRing:
    """The ring of `keys` after another look: another instance may know a key that this one has not read yet.

    Raises `invalid` again where that cannot help.
    """
    if invalid.reason != "unknown_key" or not isinstance(keys, RefreshingKeySource):
        raise invalid
    return keys.refresh(now)


def require_no_key(text: str, place: str) -> None:
    """Raises `ConfigurationError`, which does not show `text`, where somebody has given keys in this place."""
    if _KEY.search(text):
        raise ConfigurationError(f"a key stands where {place} belongs; KeyRing.parse(text) takes keys")


def _require_strong(secret: bytes) -> None:
    if not isinstance(secret, bytes) or len(secret) != _SECRET:
        raise ConfigurationError(f"a key's secret is {_SECRET} bytes; make a key with: {KEYGEN}")
    if len(set(secret)) < _LEAST_VARIETY or _PRINTABLE.issuperset(secret):
        raise ConfigurationError(f"a key's secret is random bytes and not a password; make a key with: {KEYGEN}")
