"""Seal and open: one text for one session, one key for one token, and no other use than the one it was sealed for."""

from __future__ import annotations

import io
import json
import os
import pickle
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cryptography.fernet
import cryptography_vectors
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import ConfigurationError, InvalidToken, Key, KeyRing, aead, base64url, envelope
from cookiesession.keys import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.aead import AEAD, Algorithm
    from cookiesession.errors import Reason

VECTORS = Path(__file__).parent / "vectors"
NOW = 1_800_000_000
BINDING = envelope.bind("cookie", b"__Host-session")
PLAINTEXT = b"hunter2 is the plaintext of every token"
GCM: tuple[Algorithm, ...] = ("xaes-256-gcm", "aes-256-gcm")
NONCES = {"xaes-256-gcm": 24, "aes-256-gcm": 12}
CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# Fixed keys, so that a failure can be had again; their nonces are still random.
KEYS = {algorithm: Key(algorithm, bytes(range(start, start + 32))) for start, algorithm in enumerate(ALGORITHMS, 128)}
OTHERS = {algorithm: Key(algorithm, bytes(range(start, start + 32))) for start, algorithm in enumerate(ALGORITHMS, 192)}
RING = KeyRing(*KEYS.values(), *OTHERS.values())

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
both_gcm = pytest.mark.parametrize("algorithm", GCM)
algorithms = st.sampled_from(ALGORITHMS)


def read(name: str) -> Any:
    """One of the project's own files of vectors."""
    return json.loads((VECTORS / name).read_bytes())


def seal(key: Key, plaintext: bytes = PLAINTEXT, binding: bytes = BINDING) -> bytes:
    """A token."""
    return envelope.seal(plaintext, key, binding, now=NOW)


def open_(token: bytes, ring: KeyRing = RING, binding: bytes = BINDING) -> bytes:
    """The plaintext of a token."""
    return envelope.open(token, ring, binding, now=NOW)[0]


def reason_for(token: bytes, ring: KeyRing = RING, binding: bytes = BINDING) -> Reason | None:
    """Why `token` is refused, or None if it opens."""
    try:
        envelope.open(token, ring, binding, now=NOW)
    except InvalidToken as error:
        return error.reason
    return None


def text_of(data: bytes, *, padded: bool = False) -> bytes:
    """The text of the bytes of an envelope, with the padding that Fernet has."""
    text = base64url.encode(data)
    return text + b"=" * (-len(text) % 4 * padded)


def envelope_of(token: bytes) -> bytes:
    """The bytes of a token's envelope."""
    return base64url.decode(token.rstrip(b"="))


class Counting:
    """An algorithm that counts how often it is asked to open."""

    def __init__(self, inner: AEAD) -> None:
        self.inner = inner
        self.opened = 0

    def seal(self, plaintext: bytes, associated_data: bytes, now: int) -> bytes:
        """Seals."""
        return self.inner.seal(plaintext, associated_data, now=now)

    def open(self, sealed: bytes, associated_data: bytes, *, now: int) -> bytes:
        """Opens, and counts."""
        self.opened += 1
        return self.inner.open(sealed, associated_data, now=now)


# The format


@both_gcm
def test_envelope_is_version_key_id_nonce_ciphertext_tag(algorithm: Algorithm) -> None:
    """Byte for byte, with every byte of the header in the associated data."""
    key = KEYS[algorithm]

    data = envelope_of(seal(key))

    assert b"\x01" + key.fingerprint == data[:5]
    assert 5 + NONCES[algorithm] + len(PLAINTEXT) + 16 == len(data)
    assert PLAINTEXT == key.aead.open(data[5:], b"\x01" + key.fingerprint + BINDING, now=NOW)


def test_fernet_token_is_that_of_the_stock_library() -> None:
    """`Fernet(secret).decrypt(token)` gives our plaintext after 32 bytes of hash; the time of sealing is ours."""
    token = seal(KEYS["fernet"])

    stock = cryptography.fernet.Fernet(urlsafe_b64encode(bytes(range(130, 162))))

    assert PLAINTEXT == stock.decrypt(token)[32:]
    assert stock.extract_timestamp(token) == NOW


@every_algorithm
def test_token_is_text_for_a_cookie(algorithm: Algorithm) -> None:
    """Letters, digits, - and _; and = at the end of Fernet's."""
    tokens = [seal(KEYS[algorithm], bytes(length)) for length in range(8)]

    assert set(b"".join(tokens)) <= set(CHARACTERS + b"=" * (algorithm == "fernet"))


@given(algorithm=algorithms, plaintext=st.binary(max_size=400), context=st.binary(max_size=80))
def test_what_is_sealed_opens_under_the_key_that_sealed_it(
    algorithm: Algorithm, plaintext: bytes, context: bytes
) -> None:
    """The plaintext comes back, with the key."""
    binding = envelope.bind("cookie", context)

    token = seal(KEYS[algorithm], plaintext, binding)

    assert (plaintext, KEYS[algorithm]) == envelope.open(token, RING, binding, now=NOW)


@every_algorithm
def test_same_plaintext_twice_gives_different_text(algorithm: Algorithm) -> None:
    """Nobody sees that a session is what it was, or equal to another's. Case A13, CVE-2012-3458."""
    tokens = {seal(KEYS[algorithm], bytes(64)) for _ in range(50)}

    assert len(tokens) == 50
    assert len({envelope_of(token)[-80:] for token in tokens}) == 50


# Frozen vectors


@pytest.mark.parametrize("vector", read("envelope_v1.json")["opens"], ids=lambda vector: vector["name"])
def test_frozen_token_opens_for_ever(vector: dict[str, Any]) -> None:
    """What version 1 sealed opens in every later version, to the same bytes."""
    ring = KeyRing(*map(Key.parse, vector["keys"]))
    binding = envelope.bind(vector["purpose"], bytes.fromhex(vector["context"]))

    plaintext, key = envelope.open(vector["token"].encode(), ring, binding, now=vector["now"])

    assert vector["plaintext"] == plaintext.hex()
    assert vector["name"].partition(":")[0] == key.algorithm


@pytest.mark.parametrize(
    "vector",
    [vector for vector in read("envelope_v1.json")["opens"] if len(vector["keys"]) == 1],
    ids=lambda vector: vector["name"],
)
def test_frozen_randomness_seals_the_frozen_token(monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any]) -> None:
    """With the same nonce, every later version writes what version 1 wrote."""
    randomness = bytes.fromhex(vector["randomness"])
    scripted = io.BytesIO(randomness).read
    scripted_gcm: dict[str, Callable[[bytes, str], AEAD]] = {
        "xaes-256-gcm": lambda secret, _: aead.XAES256GCM(secret, random=scripted),
        "aes-256-gcm": lambda secret, name: aead.AES256GCM(secret, name, random=scripted),
        "fernet": lambda secret, _: aead.Fernet(secret),  # draws its own
    }
    monkeypatch.setattr(aead, "create", lambda algorithm, secret, name: scripted_gcm[algorithm](secret, name))
    monkeypatch.setattr(os, "urandom", lambda length: randomness[:length])
    binding = envelope.bind(vector["purpose"], bytes.fromhex(vector["context"]))

    token = envelope.seal(bytes.fromhex(vector["plaintext"]), Key.parse(vector["keys"][0]), binding, now=vector["now"])

    assert vector["token"] == token.decode()


@pytest.mark.parametrize("vector", read("envelope_v1.json")["fails"], ids=lambda vector: vector["name"])
def test_frozen_token_fails_for_its_reason(vector: dict[str, Any]) -> None:
    """What version 1 refuses stays refused, and for the reason that the vector names."""
    ring = KeyRing(*map(Key.parse, vector["keys"]))
    binding = envelope.bind(vector["purpose"], bytes.fromhex(vector["context"]))

    with pytest.raises(InvalidToken) as caught:
        envelope.open(vector["token"].encode(), ring, binding, now=vector["now"])

    assert vector["reason"] == caught.value.reason


# Tokens that were changed


@every_algorithm
def test_every_flipped_bit_of_the_text_is_refused(algorithm: Algorithm) -> None:
    """No bit of a token can change. Case A1, CVE-2026-40372."""
    token = seal(KEYS[algorithm])

    opened = []
    for bit in range(8 * len(token)):
        flipped = bytearray(token)
        flipped[bit // 8] ^= 1 << bit % 8
        if reason_for(bytes(flipped)) is None:
            opened.append(bit)

    assert opened == []


@every_algorithm
def test_every_flipped_bit_of_the_envelope_is_refused(algorithm: Algorithm) -> None:
    """Nor any bit of the bytes under canonical text: header, nonce, ciphertext and tag. Case A1."""
    data = envelope_of(seal(KEYS[algorithm]))

    reasons = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        reasons.append(reason_for(text_of(bytes(flipped), padded=algorithm == "fernet")))

    header = 8 if algorithm == "fernet" else 40
    assert set(reasons[:8]) <= {"malformed", "unknown_key"}
    assert set(reasons[8:header]) <= {"unknown_key"}
    assert {"forged"} == set(reasons[header:])


@every_algorithm
def test_every_replaced_character_is_refused(algorithm: Algorithm) -> None:
    """Each character by each other of the alphabet, which covers all spellings of the last. Cases A1, A10."""
    token = seal(KEYS[algorithm], b"short")

    opened = [
        (place, other)
        for place in range(len(token))
        for other in CHARACTERS
        if other != token[place] and reason_for(token[:place] + bytes([other]) + token[place + 1 :]) is None
    ]

    assert opened == []


@every_algorithm
def test_every_cut_is_refused(algorithm: Algorithm) -> None:
    """At each length from either end, as text and as bytes. Case A2."""
    token = seal(KEYS[algorithm])
    data = envelope_of(token)
    padded = algorithm == "fernet"
    wrong = [token[:length] for length in range(len(token))]
    wrong += [token[start:] for start in range(1, len(token))]
    wrong += [text_of(data[:length], padded=padded) for length in range(len(data))]

    assert None not in set(map(reason_for, wrong))


@pytest.mark.parametrize("place", [0, 1, 50, -1], ids=["front", "second", "middle", "end"])
@every_algorithm
def test_every_added_byte_is_refused(algorithm: Algorithm, place: int) -> None:
    """Any byte anywhere, and any character. Case A2."""
    token = seal(KEYS[algorithm])
    at = len(token) if place < 0 else place

    reasons = {reason_for(token[:at] + bytes([byte]) + token[at:]) for byte in range(256)}

    assert None not in reasons


@given(st.binary(max_size=200))
def test_any_text_is_refused_by_invalid_token_alone(text: bytes) -> None:
    """No other exception leaves `open()`, whatever a client sends. Case A2."""
    with pytest.raises(InvalidToken):
        open_(text)


@given(
    version=st.sampled_from([1, 0x80]),
    key_id=st.sampled_from([*(key.fingerprint for key in RING.keys), b"", b"\0\0\0\0"]),
    rest=st.binary(max_size=120),
)
def test_any_bytes_behind_a_good_header_are_refused_by_invalid_token_alone(
    version: int, key_id: bytes, rest: bytes
) -> None:
    """The same for well-formed text that names a real key. Case A2."""
    with pytest.raises(InvalidToken):
        open_(text_of(bytes([version]) + key_id + rest, padded=version == 0x80))


DATA = {"user": "root", "admin": True}
JSON = json.dumps(DATA).encode()


@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(JSON, id="json"),
        pytest.param(msgspec.msgpack.encode(DATA), id="msgpack"),
        pytest.param(pickle.dumps(DATA), id="pickle"),
        pytest.param(b"user=root", id="text"),
        pytest.param(bytes(64), id="zeros"),
    ],
)
def test_unsealed_data_is_refused(plain: bytes) -> None:
    """Bare, as base64 of any kind, and with a header that names a real key. Case A3, CVE-2026-39324."""
    header = b"\x01" + RING.primary.fingerprint
    wrong = [plain, b64encode(plain), urlsafe_b64encode(plain), text_of(plain), plain.hex().encode()]
    wrong += [
        text_of(header + plain),
        text_of(header + bytes(24) + plain),
        text_of(header + bytes(24) + plain + bytes(16)),
    ]
    wrong += [text_of(b"\x80" + plain, padded=True), text_of(b"\x80" + bytes(24) + plain + bytes(32), padded=True)]
    wrong += [b64encode(plain) + b".bm9w.c2lnbmF0dXJl"]  # as Starlette's own sessions look

    assert None not in set(map(reason_for, wrong))


@pytest.mark.parametrize("version", [0x00, 0x02, 0x7F, 0x81, 0xFF], ids=hex)
@every_algorithm
def test_other_version_is_refused(algorithm: Algorithm, version: int) -> None:
    """A version that was never written, or is not written yet, and never the plain decoder. Case A18."""
    data = envelope_of(seal(KEYS[algorithm]))

    for padded in (False, True):
        assert reason_for(text_of(bytes([version]) + data[1:], padded=padded)) == "malformed"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda token: token.rstrip(b"="), id="without-padding"),
        pytest.param(lambda token: token + b"=", id="one-equals-sign-more"),
        pytest.param(lambda token: token + b"====", id="four-equals-signs-more"),
        pytest.param(lambda token: b"=" + token, id="equals-sign-in-front"),
        pytest.param(lambda token: token + b"\n", id="newline-at-the-end"),
        pytest.param(lambda token: token[:40] + b"\n" + token[40:], id="newline-inside"),
        pytest.param(lambda token: token[:40] + b"!" + token[40:], id="exclamation-mark"),
        pytest.param(lambda token: token[:40] + b"!!!!" + token[40:], id="exclamation-marks"),
        pytest.param(lambda token: b" " + token, id="space"),
        pytest.param(lambda token: b'"' + token + b'"', id="quotes"),
        pytest.param(lambda token: token.replace(b"-", b"+").replace(b"_", b"/"), id="other-alphabet"),
    ],
)
def test_variant_of_fernet_text_is_refused(wrong: Callable[[bytes], bytes]) -> None:
    """One session has one text, where the stock library takes most of these for the same token. Case A10."""
    token = next(token for token in iter(lambda: seal(KEYS["fernet"]), None) if b"-" in token and b"_" in token)

    assert reason_for(wrong(token)) == "malformed"
    assert reason_for(token) is None


@pytest.mark.parametrize(("length", "padding"), [(0, b""), (16, b"=="), (32, b"=")], ids=["none", "two", "one"])
def test_fernet_token_with_its_padding_opens(length: int, padding: bytes) -> None:
    """Stock tokens end in no, one or two equals signs. Case A10."""
    token = seal(KEYS["fernet"], bytes(length))

    assert token.rstrip(b"=") + padding == token
    assert bytes(length) == open_(token)


def test_fernet_has_one_spelling_of_the_last_character() -> None:
    """Of the 16 that the stock library takes for the same bytes, ours takes the one that was written. Case A10."""
    token = seal(KEYS["fernet"], bytes(16))
    stock = cryptography.fernet.Fernet(urlsafe_b64encode(bytes(range(130, 162))))
    place = len(token.rstrip(b"=")) - 1
    spellings = [token[:place] + bytes([last]) + token[place + 1 :] for last in CHARACTERS]

    taken = [text for text in spellings if urlsafe_b64decode(text) == urlsafe_b64decode(token)]

    assert [stock.decrypt(text)[32:] for text in taken] == [bytes(16)] * 16
    assert [token] == [text for text in taken if reason_for(text) is None]


@pytest.mark.parametrize("name", ["verify", "invalid"])
def test_fernet_vectors_of_the_specification_are_refused(name: str) -> None:
    """The valid one is bound to nothing, the others are not valid. Case A14."""
    with cryptography_vectors.open_vector_file(f"fernet/{name}.json", "r") as file:
        vectors = json.load(file)

    for vector in vectors:
        ring = KeyRing(Key("fernet", urlsafe_b64decode(vector["secret"])))
        now = int(datetime.fromisoformat(vector["now"]).timestamp())
        with pytest.raises(InvalidToken):
            envelope.open(vector["token"].encode(), ring, BINDING, now=now)


@pytest.mark.parametrize("shift", [-NOW, 10**6], ids=["epoch", "future"])
def test_fernet_sealed_at_another_time_is_refused_or_left_to_the_payload(shift: int) -> None:
    """One from the future is none; the age of a real one from 1970 is for the payload to judge. Case A11."""
    token = envelope.seal(PLAINTEXT, KEYS["fernet"], BINDING, now=NOW + shift)

    assert (None if shift < 0 else "future") == reason_for(token)


# Which key may open


@both_gcm
def test_key_id_of_another_key_is_refused(algorithm: Algorithm) -> None:
    """The id is authenticated, and the key that it names is the only one tried. Case A5."""
    data = envelope_of(seal(KEYS[algorithm]))
    fingerprints = [key.fingerprint for key in RING.keys if key not in (KEYS[algorithm], *RING.fernet)]

    reasons = [reason_for(text_of(data[:1] + other + data[5:])) for other in fingerprints]

    assert ["forged"] * 3 == reasons


@pytest.mark.parametrize(
    "key_id",
    [
        pytest.param(b"\0\0\0\0", id="unknown"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 300, id="300-bytes"),
        pytest.param(KEYS["fernet"].fingerprint, id="fernet"),
    ],
)
@both_gcm
def test_key_id_that_is_not_in_the_ring_is_refused(algorithm: Algorithm, key_id: bytes) -> None:
    """Unknown, missing, far too long, or that of a key which cannot be named. Case A5."""
    data = envelope_of(seal(KEYS[algorithm]))

    assert reason_for(text_of(data[:1] + key_id + data[5:])) == "unknown_key"


@both_gcm
def test_one_key_of_many_is_tried(monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm) -> None:
    """However large the ring: one for a key in it, none for an id that is not. Cases A5, B25."""
    ring = KeyRing(*(Key.generate(algorithm) for _ in range(50)))
    counters = [Counting(key.aead) for key in ring.keys]
    for key, counter in zip(ring.keys, counters, strict=True):
        monkeypatch.setattr(key, "aead", counter)
    token = seal(ring.keys[-1])
    data = envelope_of(token)

    assert PLAINTEXT == open_(token, ring)
    assert [0] * 49 + [1] == [counter.opened for counter in counters]
    assert reason_for(text_of(b"\x01\0\0\0\0" + data[5:]), ring) == "unknown_key"
    assert reason_for(text_of(data[:-1] + bytes([data[-1] ^ 1])), ring) == "forged"
    assert [0] * 49 + [2] == [counter.opened for counter in counters]


def test_fernet_keys_are_tried_in_the_order_of_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Fernet token names no key: each Fernet key, the primary first, and no other."""
    ring = KeyRing(Key.generate("fernet"), Key.generate(), Key.generate("fernet"), Key.generate("fernet"))
    counters = [Counting(key.aead) for key in ring.keys]
    for key, counter in zip(ring.keys, counters, strict=True):
        monkeypatch.setattr(key, "aead", counter)

    assert PLAINTEXT == open_(seal(ring.keys[2]), ring)
    assert [1, 0, 1, 0] == [counter.opened for counter in counters]


def test_fernet_token_of_the_future_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that authenticates has found its key: its reason is not hidden behind those of other keys."""
    ring = KeyRing(Key.generate("fernet"), Key.generate("fernet"))
    counters = [Counting(key.aead) for key in ring.keys]
    for key, counter in zip(ring.keys, counters, strict=True):
        monkeypatch.setattr(key, "aead", counter)
    token = envelope.seal(PLAINTEXT, ring.primary, BINDING, now=NOW + 61)

    assert reason_for(token, ring) == "future"
    assert [1, 0] == [counter.opened for counter in counters]


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_ciphertext_of_two_keys_opens_under_neither_name(pair: int) -> None:
    """AES-GCM commits to no key: these open under two. No envelope of them does, whichever it names. Case A4."""
    vectors = [vector for vector in read("aes_gcm_two_key_collisions.json")["tests"] if vector["alg"] == "AES-256-GCM"]
    vector = {name: bytes.fromhex(value) for name, value in vectors[pair].items() if name not in ("alg", "comment")}
    keys = [Key("aes-256-gcm", vector["key1"]), Key("aes-256-gcm", vector["key2"])]
    sealed = vector["nonce"] + vector["ct_and_tag"]

    plaintexts = [key.aead.open(sealed, vector["aad"], now=NOW) for key in keys]
    reasons = [
        reason_for(text_of(b"\x01" + key.fingerprint + sealed), ring, binding)
        for key in keys
        for ring in (KeyRing(*keys), KeyRing(*reversed(keys)))
        for binding in (BINDING, vector["aad"], b"")
    ]

    assert [vector["plaintext_under_key1"], vector["plaintext_under_key2"]] == plaintexts
    assert ["forged"] * 12 == reasons


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_token_of_either_colliding_key_opens_under_the_key_it_names(pair: int) -> None:
    """With both keys in the ring, each token opens under its own, and under the other's name not at all. Case A4."""
    vectors = [vector for vector in read("aes_gcm_two_key_collisions.json")["tests"] if vector["alg"] == "AES-256-GCM"]
    first, second = (Key("aes-256-gcm", bytes.fromhex(vectors[pair][name])) for name in ("key1", "key2"))
    ring = KeyRing(first, second)

    for key, other in ((first, second), (second, first)):
        token = seal(key)

        assert (PLAINTEXT, key) == envelope.open(token, ring, BINDING, now=NOW)
        assert reason_for(text_of(b"\x01" + other.fingerprint + envelope_of(token)[5:]), ring) == "forged"


def test_colliding_keys_of_128_bits_are_no_keys() -> None:
    """There is no AES-128 here for the fourth pair to be used with. Cases A4, A16."""
    vectors = [vector for vector in read("aes_gcm_two_key_collisions.json")["tests"] if vector["alg"] == "AES-128-GCM"]

    assert len(vectors) == 1
    with pytest.raises(ConfigurationError):
        Key("aes-256-gcm", bytes.fromhex(vectors[0]["key1"]))


@pytest.mark.parametrize(
    ("sealed_under", "opened_under"), list(permutations(ALGORITHMS, 2)), ids="{0[0]}-as-{0[1]}".format
)
def test_token_of_one_algorithm_never_opens_under_another(sealed_under: Algorithm, opened_under: Algorithm) -> None:
    """The algorithm belongs to the key: the same secret under another is another key. Case A9."""
    secret = bytes(range(100, 132))
    token = seal(Key(sealed_under, secret))

    assert reason_for(token, KeyRing(Key(opened_under, secret))) == "unknown_key"


@both_gcm
def test_envelope_dressed_as_the_other_algorithm_is_refused(algorithm: Algorithm) -> None:
    """The version byte or the key id of another algorithm does not make it that algorithm's. Case A9."""
    secret = bytes(range(100, 132))
    ring = KeyRing(*(Key(name, secret) for name in ALGORITHMS))
    key = next(key for key in ring.keys if key.algorithm == algorithm)
    data = envelope_of(seal(key))
    others = [other.fingerprint for other in ring.keys if other is not key and other.algorithm != "fernet"]

    as_fernet = reason_for(text_of(b"\x80" + data[1:], padded=True), ring)
    as_other = [reason_for(text_of(data[:1] + other + data[5:]), ring) for other in others]

    assert as_fernet == "forged"
    assert as_other == ["forged"]


def test_fernet_token_dressed_as_an_envelope_is_refused() -> None:
    """With the version byte of ours, and with a whole header of ours in front. Case A9."""
    secret = bytes(range(100, 132))
    ring = KeyRing(*(Key(name, secret) for name in ALGORITHMS))
    data = envelope_of(seal(ring.fernet[0]))
    headers = [b"\x01" + key.fingerprint for key in ring.keys]

    reasons = [reason_for(text_of(header + data[start:]), ring) for header in headers for start in (0, 1, 5)]

    assert set(reasons) == {"forged", "unknown_key"}


def test_stock_fernet_token_of_the_same_secret_is_refused() -> None:
    """Another application that shares the secret cannot make sessions: its plaintext is bound to nothing. Case A7."""
    stock = cryptography.fernet.Fernet(urlsafe_b64encode(bytes(range(130, 162))))
    plaintexts = [b"", PLAINTEXT, bytes(32) + PLAINTEXT, stock.decrypt(seal(KEYS["fernet"]))[:31]]

    reasons = [reason_for(stock.encrypt_at_time(plaintext, NOW)) for plaintext in plaintexts]

    assert ["forged"] * 4 == reasons


# What it was sealed for


@pytest.mark.parametrize(
    ("purpose", "context"),
    [
        pytest.param("cookie", b"session", id="other-cookie"),
        pytest.param("cookie", b"__Host-session2", id="longer-name"),
        pytest.param("cookie", b"__Host-sessio", id="shorter-name"),
        pytest.param("cookie", b"__host-session", id="other-case"),
        pytest.param("cookie", b"", id="no-name"),
        pytest.param("csrf", b"__Host-session", id="csrf"),
        pytest.param("oauth-state", b"__Host-session", id="oauth-state"),
        pytest.param("id", b"__Host-session", id="id"),
        pytest.param("record", b"__Host-session", id="record"),
        pytest.param("", b"__Host-session", id="no-purpose"),
        pytest.param("cookie_", b"_Host-session", id="one-byte-moved"),
        pytest.param("", b"cookie__Host-session", id="all-in-the-context"),
        pytest.param("cookie__Host-session", b"", id="all-in-the-purpose"),
    ],
)
@every_algorithm
def test_token_moved_elsewhere_is_refused(algorithm: Algorithm, purpose: str, context: bytes) -> None:
    """To another cookie, purpose or both. Cases A6, A7, A8, CVE-2023-48309."""
    token = seal(KEYS[algorithm])

    assert reason_for(token, binding=envelope.bind(purpose, context)) == "forged"


@every_algorithm
def test_binding_is_not_a_concatenation(algorithm: Algorithm) -> None:
    """("a", "bc") and ("ab", "c") do not open each other. Case A8, CVE-2026-6873."""
    one, other = envelope.bind("a", b"bc"), envelope.bind("ab", b"c")

    assert reason_for(seal(KEYS[algorithm], binding=one), binding=other) == "forged"
    assert reason_for(seal(KEYS[algorithm], binding=other), binding=one) == "forged"
    assert reason_for(seal(KEYS[algorithm], binding=one), binding=one) is None


@given(st.text(st.characters(max_codepoint=127), min_size=1, max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_binding_is_injective(text: str, one: int, other: int) -> None:
    """However a text is divided into purpose and context, another division has another binding. Case A8."""
    uses = [(text[:place], text[place:].encode()) for place in (one, other)]

    bindings = [envelope.bind(purpose, context) for purpose, context in uses]

    assert (uses[0] == uses[1]) == (bindings[0] == bindings[1])


# Rotation


@pytest.mark.parametrize("position", range(6))
def test_every_position_of_a_ring_opens_with_associated_data(position: int) -> None:
    """A rotated key opens what it sealed, for the same cookie and no other. Case B19, camlworks/dream#432."""
    keys = list(RING.keys)
    token = seal(keys[position])

    plaintext, key = envelope.open(token, RING, BINDING, now=NOW)

    assert PLAINTEXT == plaintext
    assert keys[position] is key
    assert reason_for(token, binding=envelope.bind("cookie", b"other")) == "forged"


@pytest.mark.parametrize("order", list(permutations(ALGORITHMS)), ids="-".join)
def test_every_order_of_a_ring_seals_with_its_declared_primary(order: tuple[Algorithm, ...]) -> None:
    """The first key seals, whatever the order; the token says so itself. Case B20, CVE-2025-47278."""
    ring = KeyRing(*(KEYS[algorithm] for algorithm in order))

    token = seal(ring.primary)

    start = b"\x80" if order[0] == "fernet" else b"\x01" + KEYS[order[0]].fingerprint
    assert envelope_of(token).startswith(start)
    assert KEYS[order[0]] is envelope.open(token, ring, BINDING, now=NOW)[1]


@every_algorithm
def test_fifty_rotations_leave_the_size_as_it_was(algorithm: Algorithm) -> None:
    """A reseal wraps the plaintext, never the token. Case B23, rails#39964."""
    key = Key.generate(algorithm)
    token = seal(key)
    sizes = {len(token)}

    for _ in range(50):
        ring = KeyRing(Key.generate(algorithm), key)
        token = seal(ring.primary, open_(token, ring))
        sizes.add(len(token))
        key = ring.primary

    assert len(sizes) == 1
    assert PLAINTEXT == open_(token, KeyRing(key))


@every_algorithm
def test_removed_key_opens_nothing(algorithm: Algorithm) -> None:
    """A key that left the ring is unknown, or forged where tokens name none. Case B21."""
    token = seal(KEYS[algorithm])

    expected = "forged" if algorithm == "fernet" else "unknown_key"
    assert expected == reason_for(token, KeyRing(*OTHERS.values()))


# Silence


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda token: token[:-9] + b"AAAA" + token[-5:], id="changed"),
        pytest.param(lambda token: token[:-1], id="cut"),
        pytest.param(lambda token: token + b"!", id="malformed"),
        pytest.param(lambda token: token, id="another-cookie"),
    ],
)
@every_algorithm
def test_refusal_says_nothing_of_key_plaintext_or_token(
    algorithm: Algorithm, spoil: Callable[[bytes], bytes], everything_said: Callable[[BaseException], str]
) -> None:
    """Neither the exception nor anything it is chained to. Case A17, CVE-2023-42811."""
    token = seal(KEYS[algorithm])

    with pytest.raises(InvalidToken) as caught:
        open_(spoil(token), binding=envelope.bind("cookie", b"other"))

    said = everything_said(caught.value)
    assert str(caught.value) in {"forged", "malformed"}
    for hidden in (KEYS[algorithm].export()[-20:], token.decode()[:30], token.decode()[30:60], "hunter2"):
        assert hidden not in said
