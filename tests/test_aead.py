"""The three algorithms: true to their specifications, never with a nonce twice, and deaf to what they did not seal."""

from __future__ import annotations

import hashlib
import hmac
import io
import itertools
import json
import logging
import os
import subprocess
import sys
import textwrap
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import cryptography.fernet
import cryptography_vectors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import aead
from cookiesession.aead import AEAD, AES256GCM, XAES256GCM, Algorithm, Fernet
from cookiesession.errors import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET = bytes(range(32))
NOW = 1_800_000_000
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
NONCE_LENGTHS = {"xaes-256-gcm": 24, "aes-256-gcm": 12, "fernet": 25}  # Fernet: version, time and IV
GCM: tuple[Algorithm, ...] = ("xaes-256-gcm", "aes-256-gcm")
MARKER = b"hunter2 is the plaintext"

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
both_gcm = pytest.mark.parametrize("algorithm", GCM)
algorithms = st.sampled_from(ALGORITHMS)


def create(algorithm: Algorithm, secret: bytes = SECRET) -> AEAD:
    """The algorithm under `secret`."""
    return aead.create(algorithm, secret, "0badcafe")


def scripted(data: bytes) -> Callable[[int], bytes]:
    """Randomness that hands out `data`, piece by piece."""
    return io.BytesIO(data).read


def fernet_vectors(name: str) -> list[dict[str, Any]]:
    """The vectors of the Fernet specification, as `cryptography-vectors` carries them."""
    with cryptography_vectors.open_vector_file(f"fernet/{name}.json", "r") as file:
        vectors: list[dict[str, Any]] = json.load(file)
        return vectors


def seconds(vector: dict[str, Any]) -> int:
    """The time of a Fernet vector."""
    return int(datetime.fromisoformat(vector["now"]).timestamp())


# XAES-256-GCM


@pytest.mark.parametrize(
    ("byte", "associated_data", "expected"),
    [
        pytest.param(1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271", id="msb-0"),
        pytest.param(
            3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d", id="msb-1"
        ),
    ],
)
def test_xaes_agrees_with_the_vectors_of_c2sp(byte: int, associated_data: bytes, expected: str) -> None:
    """The two vectors of the specification seal to its bytes and open again. Case A14."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    sealer = XAES256GCM(bytes([byte]) * 32, random=scripted(nonce))

    sealed = sealer.seal(b"XAES-256-GCM", associated_data)

    assert nonce + bytes.fromhex(expected) == sealed
    assert sealer.open(sealed, associated_data) == b"XAES-256-GCM"
    assert XAES256GCM(bytes([byte]) * 32).open(sealed, associated_data) == b"XAES-256-GCM"


def test_xaes_agrees_with_the_accumulated_check_of_c2sp() -> None:
    """The hash of 10,000 random ciphertexts is the specification's. Case A14."""
    stream = io.BytesIO(hashlib.shake_128().digest(10_000 * (32 + 24 + 2 * 256)))
    ciphertexts = hashlib.shake_128()

    for _ in range(10_000):
        key, nonce = stream.read(32), stream.read(24)
        plaintext = stream.read(stream.read(1)[0])
        associated_data = stream.read(stream.read(1)[0])
        sealed = XAES256GCM(key, random=scripted(nonce)).seal(plaintext, associated_data)
        ciphertexts.update(sealed[24:])

    assert ciphertexts.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@given(half=st.binary(min_size=12, max_size=12), rests=st.lists(st.binary(min_size=12, max_size=12), max_size=4))
def test_cached_cipher_seals_the_same_bytes_as_a_derived_one(half: bytes, rests: list[bytes]) -> None:
    """Whatever was sealed before it, a nonce gives the bytes that the specification gives it."""
    sealer = XAES256GCM(SECRET, random=scripted(half + b"".join(rests)))

    sealed = [sealer.seal(b"plaintext", b"data") for _ in rests]

    plain = [XAES256GCM(SECRET, random=scripted(half + rest)).seal(b"plaintext", b"data") for rest in rests]
    assert plain == sealed
    assert [half + rest + aead.derive(SECRET, half).encrypt(rest, b"plaintext", b"data") for rest in rests] == sealed


def test_first_half_is_kept_for_2_to_the_16_seals_and_then_replaced() -> None:
    """One derivation serves up to 65,536 seals in a row, and no more."""
    sealer = XAES256GCM(SECRET)

    halves = [sealer.seal(b"", b"")[:12] for _ in range(2 * 2**16 + 1)]

    runs = [len(list(run)) for _, run in itertools.groupby(halves)]
    assert len(runs) == len(set(halves)) == 3
    assert max(runs) == 2**16


def test_half_replaced_during_a_seal_leaves_it_whole() -> None:
    """A seal takes its half and its cipher together, whatever another thread does meanwhile."""
    sealers: list[XAES256GCM] = []

    def random(length: int) -> bytes:
        if sealers and len(drawn) % 2:  # the second half of a nonce: now the other thread begins a new first half
            drawn.append(b"")
            sealers[0]._begin()
        drawn.append(os.urandom(length))
        return drawn[-1]

    drawn: list[bytes] = []
    sealer = XAES256GCM(SECRET, random=random)
    sealers.append(sealer)

    sealed = sealer.seal(b"plaintext", b"data")

    assert sealed[:12] == drawn[0]
    assert sealer._own[0] != drawn[0]
    assert XAES256GCM(SECRET).open(sealed, b"data") == b"plaintext"


def test_reader_remembers_at_most_1024_ciphers_and_opens_what_it_forgot() -> None:
    """The cache stays bounded while the halves of many processes pass by."""
    tokens = [XAES256GCM(SECRET).seal(b"plaintext", b"data") for _ in range(1500)]
    reader = XAES256GCM(SECRET)
    most = 0

    for token in tokens:
        reader.open(token, b"data")
        most = max(most, len(reader._ciphers))

    assert most == 1024
    assert reader.open(tokens[0], b"data") == b"plaintext"


def test_known_half_evicts_nothing() -> None:
    """A full cache stays full while what it holds is used."""
    reader = XAES256GCM(SECRET)
    tokens = [XAES256GCM(SECRET).seal(b"plaintext", b"data") for _ in range(1023)]  # and the reader's own half

    for token in [*tokens, *tokens]:
        reader.open(token, b"data")

    assert {token[:12] for token in tokens} < set(reader._ciphers)


def test_forged_halves_are_never_remembered() -> None:
    """A flood of forgeries evicts nothing: only what has opened is kept."""
    reader = XAES256GCM(SECRET)
    genuine = XAES256GCM(SECRET).seal(b"plaintext", b"data")
    reader.open(genuine, b"data")
    remembered = set(reader._ciphers)

    for number in range(1500):
        with pytest.raises(InvalidToken):
            reader.open(number.to_bytes(12, "big") + genuine[12:], b"data")

    assert remembered == set(reader._ciphers)
    assert genuine[:12] in remembered


def test_remembered_half_is_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a second token of one process, or one's own, derives nothing."""
    derived: list[bytes] = []
    derive = aead.derive

    def counting(secret: bytes, half: bytes) -> AESGCM:
        derived.append(half)
        return derive(secret, half)

    other, reader = XAES256GCM(SECRET), XAES256GCM(SECRET)
    tokens = [other.seal(b"", b""), other.seal(b"", b""), reader.seal(b"", b"")]
    monkeypatch.setattr(aead, "derive", counting)

    for token in tokens:
        reader.open(token, b"")

    assert [tokens[0][:12]] == derived


def test_child_begins_a_half_of_its_own() -> None:
    """What runs in a forked child makes every sealer there leave its parent's half."""
    sealers = [XAES256GCM(SECRET), XAES256GCM(SECRET)]
    before = [sealer.seal(b"", b"")[:12] for sealer in sealers]

    XAES256GCM._begin_all()

    after = [sealer.seal(b"", b"")[:12] for sealer in sealers]
    assert len({*before, *after}) == 4


FORKS = """
    import os
    from cookiesession import aead

    sealers = [aead.create(algorithm, bytes(range(32)), "name") for algorithm in ("xaes-256-gcm", "aes-256-gcm")]
    for sealer in sealers:
        sealer.seal(b"", b"", now=0)
    pipes = []
    for child in range(8):
        source, target = os.pipe()
        if os.fork() == 0:
            break
        pipes.append(source)
        os.close(target)
    else:
        target = 1
    lines = "".join(f"{sealer.seal(b'', b'', now=0)[:-16].hex()}\\n" for sealer in sealers for _ in range(100))
    os.write(target, lines.encode())
    if target != 1:
        os._exit(0)
    for source in pipes:
        with open(source) as file:
            os.write(1, file.read().encode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_shares_no_nonce_with_its_parent() -> None:
    """A parent and eight children, forked after a first seal, use nine first halves and no nonce twice. Case A12."""
    process = subprocess.run(  # noqa: S603  our own script
        (sys.executable, "-W", "error", "-c", textwrap.dedent(FORKS)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    nonces = process.stdout.split()

    xaes = [nonce for nonce in nonces if len(nonce) == 48]
    assert len(nonces) == 9 * 2 * 100
    assert len(set(nonces)) == len(nonces)
    assert len({nonce[:24] for nonce in xaes}) == 9


# All algorithms


def test_algorithm_is_the_one_that_is_named() -> None:
    """A key seals by its own algorithm and no other."""
    kinds = [type(create(algorithm)) for algorithm in ALGORITHMS]

    assert kinds == [XAES256GCM, AES256GCM, Fernet]
    assert ALGORITHMS == ("xaes-256-gcm", "aes-256-gcm", "fernet")


@pytest.mark.parametrize(
    ("algorithm", "seals"), [("xaes-256-gcm", 200_000), ("aes-256-gcm", 200_000), ("fernet", 20_000)], ids=ALGORITHMS
)
def test_many_seals_at_one_time_never_repeat_a_nonce(algorithm: Algorithm, seals: int) -> None:
    """The clock stands still and every nonce is another. Case A12."""
    sealer = create(algorithm)
    length = NONCE_LENGTHS[algorithm]

    nonces = {sealer.seal(b"", b"", now=NOW)[:length] for _ in range(seals)}

    assert seals == len(nonces)


@every_algorithm
def test_equal_plaintexts_give_unrelated_bytes(algorithm: Algorithm) -> None:
    """Neither two seals nor two blocks of one show that their plaintexts are equal. Case A13."""
    sealer = create(algorithm)

    first, second = (sealer.seal(bytes(4096), b"data", now=NOW)[NONCE_LENGTHS[algorithm] :] for _ in range(2))

    blocks = [text[start : start + 16] for text in (first, second) for start in range(0, 4096, 16)]
    assert len(blocks) == len(set(blocks))


@given(algorithm=algorithms, plaintext=st.binary(max_size=300), associated_data=st.binary(max_size=60))
def test_what_is_sealed_opens(algorithm: Algorithm, plaintext: bytes, associated_data: bytes) -> None:
    """Another instance under the same secret opens it, with the same associated data."""
    sealed = create(algorithm).seal(plaintext, associated_data, now=NOW)

    assert plaintext == create(algorithm).open(sealed, associated_data, now=NOW)


@given(algorithm=algorithms, sealed=st.binary(max_size=120))
def test_bytes_of_others_never_open(algorithm: Algorithm, sealed: bytes) -> None:
    """Any bytes are refused by `InvalidToken`, and by nothing else. Case A2."""
    with pytest.raises(InvalidToken):
        create(algorithm).open(sealed, b"data", now=NOW)


@every_algorithm
def test_every_flipped_bit_is_refused(algorithm: Algorithm) -> None:
    """No bit of what is sealed can change. Case A1."""
    opener = create(algorithm)
    sealed = opener.seal(MARKER, b"data", now=NOW)

    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidToken, match="forged"):
            opener.open(bytes(flipped), b"data", now=NOW)


@every_algorithm
def test_every_cut_is_refused(algorithm: Algorithm) -> None:
    """Cut at any length, or longer by a byte at either end, nothing opens and no other error escapes. Case A2."""
    opener = create(algorithm)
    sealed = opener.seal(MARKER, b"data", now=NOW)
    wrong = [sealed[:length] for length in range(len(sealed))]
    wrong += [sealed[start:] for start in range(1, len(sealed))]
    wrong += [sealed + b"\0", b"\0" + sealed]

    for text in wrong:
        with pytest.raises(InvalidToken):
            opener.open(text, b"data", now=NOW)


@pytest.mark.parametrize("length", range(16))
@pytest.mark.parametrize("plaintext", [b"", MARKER], ids=["empty", "text"])
@both_gcm
def test_short_tag_is_refused(algorithm: Algorithm, plaintext: bytes, length: int) -> None:
    """A tag of 0 to 15 bytes is none, though it begins as the right one does. Case A2, CVE-2018-10903."""
    opener = create(algorithm)
    sealed = opener.seal(plaintext, b"data", now=NOW)

    with pytest.raises(InvalidToken):
        opener.open(sealed[: len(sealed) - 16 + length], b"data", now=NOW)


@pytest.mark.parametrize("length", range(12), ids="nonce-{}".format)
def test_short_nonce_is_refused(length: int) -> None:
    """The library raises `ValueError` for a nonce below 8 bytes, which must not escape. Case A2."""
    opener = create("aes-256-gcm")
    sealed = opener.seal(b"", b"data", now=NOW)

    with pytest.raises(InvalidToken, match="malformed"):
        opener.open(sealed[12 - length :], b"data", now=NOW)


@pytest.mark.parametrize(
    "other",
    [b"", b"dat", b"datb", b"data\0", b"\0data", b"DATA"],
    ids=["none", "cut", "other", "longer", "led", "case"],
)
@every_algorithm
def test_other_associated_data_is_refused(algorithm: Algorithm, other: bytes) -> None:
    """What was sealed for one thing does not open for another. Case A6."""
    sealer = create(algorithm)
    sealed = sealer.seal(MARKER, b"data", now=NOW)

    with pytest.raises(InvalidToken, match="forged"):
        sealer.open(sealed, other, now=NOW)


@every_algorithm
def test_other_secret_is_refused(algorithm: Algorithm) -> None:
    """One bit of the secret makes it another."""
    sealed = create(algorithm).seal(MARKER, b"data", now=NOW)

    with pytest.raises(InvalidToken, match="forged"):
        create(algorithm, SECRET[:-1] + b"\x1e").open(sealed, b"data", now=NOW)


@every_algorithm
def test_refusal_says_nothing_of_secret_plaintext_or_token(
    algorithm: Algorithm, everything_said: Callable[[BaseException], str]
) -> None:
    """The exception and its chain hold only the reason. Case A17."""
    opener = create(algorithm)
    sealed = opener.seal(MARKER, b"data", now=NOW)

    with pytest.raises(InvalidToken) as caught:
        opener.open(sealed, b"other", now=NOW)

    said = everything_said(caught.value)
    assert caught.value.args == ("forged",)
    assert "hunter2" not in said
    for hidden in (SECRET, sealed):
        assert repr(hidden)[2:20] not in said
        assert hidden.hex()[:16] not in said
        assert urlsafe_b64encode(hidden).decode()[:16] not in said


@every_algorithm
def test_repr_says_nothing_of_the_secret(algorithm: Algorithm) -> None:
    """An instance has no printable attributes. Case A17."""
    instance = create(algorithm)

    assert repr(SECRET)[2:20] not in repr(instance)
    assert not hasattr(instance, "__dict__")


# Randomness that fails


def test_xaes_without_randomness_cannot_begin() -> None:
    """The error of the randomness reaches the caller who makes the key. Case A15."""
    with pytest.raises(OSError, match="no entropy"):
        XAES256GCM(SECRET, random=broken)


@pytest.mark.parametrize("seals", [0, 1, 2], ids="after-{}".format)
def test_xaes_without_randomness_seals_nothing(monkeypatch: pytest.MonkeyPatch, seals: int) -> None:
    """Within a half and between two, the error reaches the caller each time, and no nonce is made up. Case A15."""
    monkeypatch.setattr(aead, "_SEALS_PER_HALF", 2)
    sealer = XAES256GCM(SECRET)
    for _ in range(seals):
        sealer.seal(b"", b"")
    monkeypatch.setattr(sealer, "_random", broken)

    for _ in range(5):
        with pytest.raises(OSError, match="no entropy"):
            sealer.seal(b"", b"")


def test_xaes_seals_again_when_randomness_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure between two halves costs the seals that it met, and the next ones are under a fresh half. Case A15."""
    monkeypatch.setattr(aead, "_SEALS_PER_HALF", 1)
    sealer = XAES256GCM(SECRET)
    before = sealer.seal(b"", b"")
    monkeypatch.setattr(sealer, "_random", broken)
    with pytest.raises(OSError, match="no entropy"):
        sealer.seal(b"", b"")
    monkeypatch.setattr(sealer, "_random", os.urandom)

    after = sealer.seal(b"plaintext", b"data")

    assert before[:12] != after[:12]
    assert sealer.open(after, b"data") == b"plaintext"


def test_aes_gcm_without_randomness_seals_nothing() -> None:
    """The error reaches the caller, and no nonce is made up. Case A15."""
    sealer = AES256GCM(SECRET, "0badcafe", random=broken)

    with pytest.raises(OSError, match="no entropy"):
        sealer.seal(b"", b"")


def test_fernet_without_randomness_seals_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own draw of an IV fails as loudly. Case A15."""
    sealer = Fernet(SECRET)
    monkeypatch.setattr(os, "urandom", broken)

    with pytest.raises(OSError, match="no entropy"):
        sealer.seal(b"", b"", now=NOW)


def broken(length: int) -> bytes:
    """Randomness that fails."""
    raise OSError(f"no entropy for {length} bytes")


# AES-256-GCM


def test_wycheproof_agrees_with_our_aes_gcm(foreign_vectors: Callable[[str], Any]) -> None:
    """Each case for our sizes seals to its bytes and opens if valid, and is refused if not. Case A14."""
    groups = foreign_vectors("wycheproof_aes_gcm.json")["testGroups"]
    ours = [group for group in groups if (group["keySize"], group["ivSize"], group["tagSize"]) == (256, 96, 128)]
    outcomes = {"valid": 0, "invalid": 0}

    for case in (case for group in ours for case in group["tests"]):
        secret, nonce, associated_data, message, ciphertext, tag = (
            bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        sealed = nonce + ciphertext + tag
        cipher = AES256GCM(secret, "wycheproof", random=scripted(nonce))
        outcomes[case["result"]] += 1
        if case["result"] == "valid":
            assert sealed == cipher.seal(message, associated_data), case["tcId"]
            assert message == cipher.open(sealed, associated_data), case["tcId"]
        else:
            with pytest.raises(InvalidToken):
                cipher.open(sealed, associated_data)

    assert outcomes == {"valid": 39, "invalid": 27}


def test_wycheproof_nonces_of_other_lengths_never_open(foreign_vectors: Callable[[str], Any]) -> None:
    """A valid ciphertext under a nonce that is not 12 bytes long is none of ours. Case A14."""
    groups = foreign_vectors("wycheproof_aes_gcm.json")["testGroups"]
    others = [group for group in groups if group["keySize"] == 256 and group["ivSize"] != 96]
    cases = [case for group in others for case in group["tests"]]

    for case in cases:
        cipher = AES256GCM(bytes.fromhex(case["key"]), "wycheproof")
        with pytest.raises(InvalidToken):
            cipher.open(bytes.fromhex(case["iv"] + case["ct"] + case["tag"]), bytes.fromhex(case["aad"]))

    assert len(cases) > 30


def test_aes_gcm_warns_once_at_half_of_its_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the key by its id and says what to do; no seal is refused."""
    monkeypatch.setattr(aead, "SEAL_LIMIT", 8)
    sealer = AES256GCM(SECRET, "0badcafe")

    records = []
    for _ in range(20):
        sealer.seal(b"", b"")
        records.append(len(caplog.records))

    assert [0, 0, 0, *[1] * 17] == records
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].name == "cookiesession"
    assert caplog.messages[0].startswith("key 0badcafe has sealed 2^31 times")
    assert "rotate it" in caplog.messages[0]


def test_aes_gcm_limit_is_that_of_nist() -> None:
    """2^32 seals with random nonces under one key: NIST SP 800-38D, section 8.3."""
    assert aead.SEAL_LIMIT == 2**32


# Fernet


@pytest.mark.parametrize("vector", fernet_vectors("generate"), ids=lambda vector: vector["src"])
def test_fernet_generate_vector_begins_as_ours_does(monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any]) -> None:
    """The library seals the vector, and ours under its time and IV starts with the same 25 bytes. Case A14."""
    monkeypatch.setattr(os, "urandom", lambda _length: bytes(vector["iv"]))
    token = vector["token"].encode()
    now = seconds(vector)

    stock = cryptography.fernet.Fernet(vector["secret"]).encrypt_at_time(vector["src"].encode(), now)
    ours = Fernet(urlsafe_b64decode(vector["secret"])).seal(vector["src"].encode(), b"data", now=now)

    assert token == stock
    assert urlsafe_b64decode(token)[:25] == ours[:25]


@pytest.mark.parametrize("vector", fernet_vectors("verify"), ids=lambda vector: vector["src"])
def test_fernet_verify_vector_opens_in_the_library_alone(vector: dict[str, Any]) -> None:
    """The library opens it; ours refuses a plaintext that is not bound to anything. Case A14."""
    now = seconds(vector)
    stock = cryptography.fernet.Fernet(vector["secret"])

    plaintext = stock.decrypt_at_time(vector["token"], vector["ttl_sec"], now)

    assert vector["src"].encode() == plaintext
    with pytest.raises(InvalidToken, match="forged"):
        Fernet(urlsafe_b64decode(vector["secret"])).open(urlsafe_b64decode(vector["token"]), b"", now=now)


@pytest.mark.parametrize("vector", fernet_vectors("invalid"), ids=lambda vector: vector["desc"].replace(" ", "-"))
def test_fernet_invalid_vector_is_refused(vector: dict[str, Any]) -> None:
    """By the library that is wrapped; see `test_envelope.py` for ours. Case A14."""
    stock = cryptography.fernet.Fernet(vector["secret"])

    with pytest.raises(cryptography.fernet.InvalidToken):
        stock.decrypt_at_time(vector["token"], vector["ttl_sec"], seconds(vector))


def test_stock_library_opens_our_fernet() -> None:
    """What ours seals is a standard token: its plaintext after a hash of time and associated data."""
    sealed = Fernet(SECRET).seal(MARKER, b"data", now=NOW)

    stock = cryptography.fernet.Fernet(urlsafe_b64encode(SECRET))

    digest = hashlib.sha256(b"\x80" + NOW.to_bytes(8, "big") + b"data").digest()
    assert digest + MARKER == stock.decrypt(urlsafe_b64encode(sealed))
    assert stock.extract_timestamp(urlsafe_b64encode(sealed)) == NOW


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        pytest.param(0, "forged", id="epoch"),
        pytest.param(NOW - 1, "forged", id="earlier"),
        pytest.param(NOW + 10**6, "forged", id="future"),
        pytest.param(2**64 - 1, "forged", id="last"),
    ],
)
def test_fernet_plaintext_under_another_time_is_refused(moment: int, reason: str) -> None:
    """Even the holder of the secret, with the stock library, cannot move a plaintext to another time. Case A11."""
    stock = cryptography.fernet.Fernet(urlsafe_b64encode(SECRET))
    plaintext = stock.decrypt(urlsafe_b64encode(Fernet(SECRET).seal(MARKER, b"data", now=NOW)))
    moved = urlsafe_b64decode(stock.encrypt_at_time(plaintext, moment))

    with pytest.raises(InvalidToken, match=reason):
        Fernet(SECRET).open(moved, b"data", now=NOW)


@pytest.mark.parametrize("ahead", [0, 1, 59, 60])
def test_fernet_of_the_next_minute_opens(ahead: int) -> None:
    """Clocks of two servers may differ by 60 seconds."""
    sealed = Fernet(SECRET).seal(MARKER, b"data", now=NOW + ahead)

    assert MARKER == Fernet(SECRET).open(sealed, b"data", now=NOW)


@pytest.mark.parametrize("ahead", [61, 10**6, 2**56], ids="{}-seconds".format)
def test_fernet_of_the_future_is_refused(ahead: int) -> None:
    """A token made more than a minute from now is none. Case A11."""
    sealed = Fernet(SECRET).seal(MARKER, b"data", now=NOW + ahead)

    with pytest.raises(InvalidToken, match="future"):
        Fernet(SECRET).open(sealed, b"data", now=NOW)


def test_fernet_time_without_its_mac_is_refused() -> None:
    """The time stands in the clear, and the MAC covers it. Case A11."""
    sealed = Fernet(SECRET).seal(MARKER, b"data", now=NOW)

    with pytest.raises(InvalidToken, match="forged"):
        Fernet(SECRET).open(sealed[:1] + bytes(8) + sealed[9:], b"data", now=NOW)


@pytest.mark.parametrize(
    "mac",
    [
        pytest.param(lambda body: bytes(32), id="zeros"),
        pytest.param(lambda body: hashlib.sha256(body).digest(), id="unkeyed-hash"),
        pytest.param(lambda body: hmac.digest(b"", body, "sha256"), id="empty-key"),
        pytest.param(lambda body: hmac.digest(SECRET, body, "sha256"), id="whole-secret"),
        pytest.param(lambda body: hmac.digest(SECRET[16:], body, "sha256"), id="encryption-half"),
        pytest.param(lambda body: hmac.digest(SECRET[:16], body[1:], "sha256"), id="without-version"),
        pytest.param(lambda body: hmac.digest(SECRET[:16], body, "sha256")[:-1], id="31-bytes"),
        pytest.param(lambda body: hmac.digest(SECRET[:16], body, "sha256") + b"\0", id="33-bytes"),
        pytest.param(lambda body: b"", id="none"),
    ],
)
def test_fernet_with_a_forged_mac_is_refused(mac: Callable[[bytes], bytes]) -> None:
    """Every MAC but that of the signing half over all before it. Case A1, CVE-2026-40372."""
    sealed = Fernet(SECRET).seal(MARKER, b"data", now=NOW)
    body = sealed[:-32]

    assert hmac.digest(SECRET[:16], body, "sha256") == sealed[-32:]
    with pytest.raises(InvalidToken, match="forged"):
        Fernet(SECRET).open(body + mac(body), b"data", now=NOW)
