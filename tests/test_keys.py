"""Keys and rings: only good keys, named by what they are, and never shown by accident."""

from __future__ import annotations

import copy
import hashlib
import pickle
import secrets
import string
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import ConfigurationError, CookieSessionError, Key, KeyRing, KeySource
from cookiesession.errors import KEYGEN
from cookiesession.keys import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.aead import Algorithm

SECRET = bytes(range(0x80, 0xA0))
TEXT = "csk1.xaes-256-gcm.gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"
BODY = TEXT.rpartition(".")[2]

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def fingerprint(algorithm: str, secret: bytes) -> bytes:
    """A key's id as the format defines it: what every instance of every version has to agree on."""
    return hashlib.sha256(b"cookiesession/v1/key-id\0" + algorithm.encode() + b"\0" + secret).digest()[:4]


def secret_of(number: int) -> bytes:
    """32 bytes that look random."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


# One key


def test_algorithms_are_those_of_the_design() -> None:
    """Their names stand in keys, and therefore stay; the first is the default."""
    assert ALGORITHMS == ("xaes-256-gcm", "aes-256-gcm", "fernet")


@every_algorithm
def test_generated_key_comes_back_from_its_text(algorithm: Algorithm) -> None:
    """`parse()` undoes `export()`: the same secret, algorithm and id."""
    key = Key.generate(algorithm)

    parsed = Key.parse(key.export())

    assert key == parsed
    assert (key.algorithm, key.id, key.fingerprint) == (parsed.algorithm, parsed.id, parsed.fingerprint)
    assert key.export() == parsed.export()


def test_command_that_makes_a_key_is_named_as_it_is_typed() -> None:
    """Every complaint about a key ends in it. Case A16."""
    assert KEYGEN == "python -m cookiesession keygen"


def test_default_algorithm_is_xaes() -> None:
    """The one whose nonces are never spent."""
    assert Key.generate().algorithm == "xaes-256-gcm"


def test_generated_keys_differ() -> None:
    """Each is 32 bytes of new randomness."""
    assert len({Key.generate().export() for _ in range(100)}) == 100


def test_randomness_that_fails_makes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches the caller. Case A15."""

    def broken(length: int) -> bytes:
        raise OSError(f"no entropy for {length} bytes")

    monkeypatch.setattr(secrets, "token_bytes", broken)

    with pytest.raises(OSError, match="no entropy for 32 bytes"):
        Key.generate()


def test_text_of_a_key_has_its_tag_algorithm_and_secret() -> None:
    """`csk1.<algorithm>.<base64url>`, which a secret scanner finds."""
    assert TEXT == Key("xaes-256-gcm", SECRET).export()
    assert Key.parse(TEXT) == Key("xaes-256-gcm", SECRET)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [("xaes-256-gcm", "ff1a7b73"), ("aes-256-gcm", "0fe09cf1"), ("fernet", "bd6a906f")],
    ids=ALGORITHMS,
)
def test_id_is_a_fingerprint_of_algorithm_and_secret(algorithm: Algorithm, expected: str) -> None:
    """4 bytes of a domain-separated SHA-256, the same for ever; the id is their hexadecimal digits."""
    key = Key(algorithm, SECRET)

    assert fingerprint(algorithm, SECRET) == key.fingerprint
    assert expected == key.id
    assert key.fingerprint.hex() == key.id


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", "  \n"], ids=repr)
def test_white_space_around_a_key_is_passed_over(space: str) -> None:
    """Files and secret stores add a newline."""
    assert Key.parse(TEXT) == Key.parse(space + TEXT + space)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" \n", id="blank"),
        pytest.param("hunter2", id="password"),
        pytest.param("correct horse battery staple, thirty-two bytes", id="passphrase"),
        pytest.param(SECRET.hex(), id="bare-hexadecimal"),
        pytest.param(BODY, id="bare-base64url"),
        pytest.param("csk1", id="tag-alone"),
        pytest.param("csk1.", id="tag-and-dot"),
        pytest.param("csk1.xaes-256-gcm", id="without-secret"),
        pytest.param("csk1.xaes-256-gcm.", id="empty-secret"),
        pytest.param(f"csk1..{BODY}", id="without-algorithm"),
        pytest.param(f"csk1.{BODY}", id="without-algorithm-or-dot"),
        pytest.param(f"csk2.xaes-256-gcm.{BODY}", id="other-tag"),
        pytest.param(f"CSK1.xaes-256-gcm.{BODY}", id="tag-in-capitals"),
        pytest.param(f"csk1.XAES-256-GCM.{BODY}", id="algorithm-in-capitals"),
        pytest.param(f"csk1.none.{BODY}", id="no-algorithm"),
        pytest.param(f"csk1.xaes-256-gcm\n.{BODY}", id="newline-in-algorithm"),
        pytest.param(f"csk1 .xaes-256-gcm.{BODY}", id="space-in-tag"),
        pytest.param(TEXT[:-1], id="cut-by-1"),
        pytest.param(TEXT[:-2], id="cut-by-2"),
        pytest.param(TEXT[:-3], id="cut-by-3"),
        pytest.param(TEXT[:-4], id="cut-by-4"),
        pytest.param(TEXT + "A", id="longer-by-1"),
        pytest.param(TEXT + "AAAA", id="longer-by-4"),
        pytest.param(TEXT + "=", id="padded"),
        pytest.param(TEXT[:-1] + "9", id="another-spelling"),
        pytest.param(TEXT[:-9] + " " + TEXT[-9:], id="space-inside"),
        pytest.param(TEXT[:-9] + "\n" + TEXT[-9:], id="newline-inside"),
        pytest.param(TEXT[:-1] + "\N{FULLWIDTH DIGIT EIGHT}", id="full-width-digit"),
        pytest.param(TEXT[:-1] + "\N{ARABIC-INDIC DIGIT EIGHT}", id="arabic-digit"),
        pytest.param(TEXT[:-1] + "\udc38", id="surrogate"),
        pytest.param("\ufeff" + TEXT, id="byte-order-mark"),
        pytest.param(f'"{TEXT}"', id="quoted"),
        pytest.param(f"{TEXT}.{BODY}", id="one-part-more"),
        pytest.param(f"{TEXT} {TEXT}", id="two"),
    ],
)
def test_text_that_is_no_key_is_refused(text: str, everything_said: Callable[[BaseException], str]) -> None:
    """At start-up, with the command that makes a good one, and without showing what was given. Cases A16, A17."""
    with pytest.raises(ConfigurationError) as caught:
        Key.parse(text)

    said = everything_said(caught.value)
    assert str(caught.value).endswith(KEYGEN)
    assert BODY[:12] not in said
    assert BODY[-12:] not in said
    assert len(text) < 12 or text not in said


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(b"", id="empty"),
        pytest.param(SECRET[:1], id="1-byte"),
        pytest.param(SECRET[:16], id="16-bytes"),
        pytest.param(SECRET[:31], id="31-bytes"),
        pytest.param(SECRET + b"\xa0", id="33-bytes"),
        pytest.param(SECRET * 2, id="64-bytes"),
        pytest.param(bytes(32), id="zeros"),
        pytest.param(b"\xff" * 32, id="one-value"),
        pytest.param(SECRET[:15] * 2 + SECRET[:2], id="15-values"),
        pytest.param(b"correct horse battery staple 123", id="passphrase"),
        pytest.param((string.ascii_letters[:32]).encode(), id="letters"),
        pytest.param(SECRET.hex()[:32].encode(), id="hexadecimal-text"),
        pytest.param(bytes(range(0x20, 0x40)), id="printable-from-space"),
        pytest.param(bytes(range(0x5F, 0x7F)), id="printable-to-tilde"),
    ],
)
@every_algorithm
def test_weak_secret_is_refused(
    algorithm: Algorithm, secret: bytes, everything_said: Callable[[BaseException], str]
) -> None:
    """A secret is 32 random bytes: nothing shorter, longer, typed or repeated. Cases A16, A17."""
    with pytest.raises(ConfigurationError) as caught:
        Key(algorithm, secret)

    assert KEYGEN in str(caught.value)
    assert len(secret) < 2 or repr(secret)[2:-1] not in everything_said(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(bytes(range(16)) * 2, id="16-values"),
        pytest.param(bytes(range(0x1F, 0x3F)), id="one-byte-below-printable"),
        pytest.param(bytes(range(0x60, 0x80)), id="one-byte-above-printable"),
    ],
)
def test_secret_at_the_edge_of_chance_is_taken(secret: bytes) -> None:
    """The test for weakness refuses what a person types, and next to nothing that a computer draws."""
    assert Key("xaes-256-gcm", secret).export().startswith("csk1.")


@pytest.mark.parametrize(
    "secret",
    ["text", bytearray(SECRET), memoryview(SECRET), None, 32, [*SECRET]],
    ids=lambda value: type(value).__name__,
)
def test_secret_that_is_not_bytes_is_refused(secret: Any) -> None:
    """A str or a mutable buffer is a mistake. Case A16."""
    with pytest.raises(ConfigurationError, match=KEYGEN):
        Key("xaes-256-gcm", secret)


@pytest.mark.parametrize("algorithm", ["", "none", "aes-128-gcm", "XAES-256-GCM", "fernet ", None], ids=repr)
def test_unknown_algorithm_is_refused(algorithm: Any) -> None:
    """The message lists those that there are. Case A16."""
    with pytest.raises(ConfigurationError, match="one of xaes-256-gcm, aes-256-gcm, fernet") as caught:
        Key(algorithm, SECRET)

    assert KEYGEN in str(caught.value)


def test_configuration_error_is_a_value_error() -> None:
    """So that callers who know neither this library nor its root can catch it."""
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, CookieSessionError)


@pytest.mark.parametrize(
    "show",
    [
        pytest.param(repr, id="repr"),
        pytest.param(str, id="str"),
        pytest.param(lambda key: f"{key}", id="format"),
        pytest.param(lambda key: f"{key!r:>80}", id="format-spec"),
        pytest.param(lambda key: "%s %r" % (key, key), id="percent"),  # noqa: UP031  as logging does
        pytest.param(lambda key: repr([key, {"key": key}]), id="container"),
        pytest.param(lambda key: repr(KeyRing(key)), id="ring"),
        pytest.param(lambda key: str(KeyRing(key)), id="ring-str"),
        pytest.param(lambda key: repr(key.aead), id="aead"),
    ],
)
@every_algorithm
def test_secret_is_never_shown(algorithm: Algorithm, show: Callable[[Key], str]) -> None:
    """Only the id is, whatever turns a key or a ring into text. Case A17."""
    key = Key(algorithm, SECRET)

    shown = show(key)

    for hidden in (BODY[:8], BODY[-8:], SECRET.hex()[:8], repr(SECRET)[2:20]):
        assert hidden not in shown
    assert key.id in shown or "cookiesession.aead" in shown


def test_repr_names_keys_by_their_ids() -> None:
    """Which is what an operator compares."""
    one, other = Key("fernet", SECRET), Key("xaes-256-gcm", SECRET)

    assert repr(one) == "<Key bd6a906f fernet>"
    assert repr(KeyRing(one, other)) == "<KeyRing bd6a906f ff1a7b73>"


@pytest.mark.parametrize("thing", [Key("fernet", SECRET), KeyRing(Key("fernet", SECRET))], ids=["key", "ring"])
def test_vars_shows_nothing(thing: object) -> None:
    """There is no attribute dictionary for a debugger or a crash reporter to dump. Case A17."""
    with pytest.raises(TypeError, match="__dict__"):
        vars(thing)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_a_key_is_refused(protocol: int) -> None:
    """A key in a cache or a queue is a key lost; the error says what to use instead. Case A17."""
    with pytest.raises(TypeError, match=r"use export\(\)"):
        pickle.dumps(Key("fernet", SECRET), protocol)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_a_ring_is_refused(protocol: int) -> None:
    """Its keys refuse. Case A17."""
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(KeyRing(Key("fernet", SECRET)), protocol)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copy_of_a_key_is_the_key(copied: Callable[[Key], Key]) -> None:
    """It never changes, so there is nothing to copy; settings objects are deep-copied all the time."""
    key = Key.generate()

    assert copied(key) is key


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copy_of_a_ring_has_the_same_keys(copied: Callable[[KeyRing], KeyRing]) -> None:
    """And the same primary."""
    ring = KeyRing(Key.generate(), Key.generate("fernet"))

    twin = copied(ring)

    assert ring.keys == twin.keys
    assert ring.primary is twin.primary


def test_keys_are_equal_by_algorithm_and_secret() -> None:
    """Nothing else is equal to a key, and equal keys have equal hashes."""
    key = Key("fernet", SECRET)

    assert key == Key("fernet", SECRET)
    assert hash(key) == hash(Key("fernet", SECRET))
    assert key != Key("aes-256-gcm", SECRET)
    assert key != Key("fernet", SECRET[::-1])
    assert key != key.export()
    assert key.__eq__(key.export()) is NotImplemented


@given(st.binary(min_size=32, max_size=32), st.sampled_from(ALGORITHMS))
def test_any_secret_comes_back_or_is_refused(secret: bytes, algorithm: Algorithm) -> None:
    """Whatever the 32 bytes, a key that exists survives its text."""
    try:
        key = Key(algorithm, secret)
    except ConfigurationError:
        return

    assert key == Key.parse(key.export())
    assert secret == Key.parse(key.export())._secret


@given(st.text(max_size=80) | st.text(max_size=60).map("csk1.xaes-256-gcm.".__add__))
def test_any_text_is_a_key_or_a_configuration_error(text: str) -> None:
    """No other error leaves `parse()`, whatever stands in the environment. Case A16."""
    try:
        key = Key.parse(text)
    except ConfigurationError:
        return

    assert text.strip() == key.export()


# The ring


def test_first_key_of_a_ring_is_the_primary() -> None:
    """The others follow in their order; a text may separate them by any white space."""
    keys = [Key.generate(algorithm) for algorithm in (*ALGORITHMS, *ALGORITHMS)]
    text = "\n".join(key.export() for key in keys[:3]) + "\n\t " + "  ".join(key.export() for key in keys[3:]) + "\n"

    ring = KeyRing.parse(text)

    assert keys[0] == ring.primary
    assert tuple(keys) == ring.keys
    assert KeyRing(*keys).keys == ring.keys


def test_ring_finds_each_key_by_its_id() -> None:
    """Fernet keys apart: their tokens name none, and they are tried in order."""
    keys = [Key.generate(algorithm) for algorithm in (*ALGORITHMS, *ALGORITHMS)]

    ring = KeyRing(*keys)

    assert ring.fernet == (keys[2], keys[5])
    assert {key.header: key for key in keys if key.algorithm != "fernet"} == ring.by_header


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_primary_is_the_first_in_every_order(order: tuple[int, ...]) -> None:
    """The declared primary, neither the newest nor the oldest. Case B20, CVE-2025-47278."""
    keys = [Key("xaes-256-gcm", secret_of(number)) for number in order]

    assert keys[0] is KeyRing(*keys).primary


@pytest.mark.parametrize("text", ["", " ", "\n\t\n"], ids=repr)
def test_empty_ring_is_refused(text: str) -> None:
    """With the command that makes a key. Case A16."""
    with pytest.raises(ConfigurationError, match=KEYGEN):
        KeyRing.parse(text)


@pytest.mark.parametrize("text", [None, b"csk1.xaes-256-gcm.hunter2", 5, [TEXT]], ids=["none", "bytes", "int", "list"])
def test_what_is_no_text_is_refused(text: Any) -> None:
    """As what is no key is, and without being shown. Cases A16, A17."""
    for parse in (Key.parse, KeyRing.parse):
        with pytest.raises(ConfigurationError, match=KEYGEN) as caught:
            parse(text)

        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "keys", [(TEXT,), (Key.parse(TEXT), TEXT), (None,), ("hunter2",)], ids=["text", "other", "none", "word"]
)
def test_ring_of_what_are_no_keys_is_refused(keys: tuple[Any, ...]) -> None:
    """With the way from text to a ring. Cases A16, A17."""
    with pytest.raises(ConfigurationError, match=rf"KeyRing\.parse\(text\).*{KEYGEN}") as caught:
        KeyRing(*keys)

    assert TEXT not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_ring_with_one_bad_key_is_refused() -> None:
    """A good primary does not excuse the rest. Case A16."""
    with pytest.raises(ConfigurationError, match=KEYGEN):
        KeyRing.parse(f"{TEXT} hunter2")


@pytest.mark.parametrize("places", [(0, 1), (0, 2), (1, 2)], ids=["first-two", "ends", "last-two"])
@every_algorithm
def test_key_given_twice_is_refused(algorithm: Algorithm, places: tuple[int, int]) -> None:
    """By itself or as an equal one; the message names the id and not the secret. Case A16."""
    keys = [Key.generate(), Key.generate(), Key.generate()]
    twice = Key.generate(algorithm)
    keys[places[0]], keys[places[1]] = twice, Key.parse(twice.export())

    with pytest.raises(ConfigurationError, match=f"two keys of the ring have the id {twice.id}") as caught:
        KeyRing(*keys)

    assert KEYGEN in str(caught.value)
    assert twice.export().rpartition(".")[2] not in str(caught.value)


def test_keys_whose_ids_collide_are_refused() -> None:
    """Two secrets of one id, found among 2^16 by the birthday paradox, cannot share a ring. Case A16."""
    seen: dict[bytes, int] = {}
    number = 0
    while (earlier := seen.setdefault(fingerprint("xaes-256-gcm", secret_of(number)), number)) == number:
        number += 1
    one, other = Key("xaes-256-gcm", secret_of(earlier)), Key("xaes-256-gcm", secret_of(number))

    with pytest.raises(ConfigurationError, match=f"two keys of the ring have the id {one.id}"):
        KeyRing(one, other)

    assert one != other
    assert one.id == other.id


def test_one_secret_under_two_algorithms_is_two_keys() -> None:
    """Their ids differ, so a ring may hold both."""
    ring = KeyRing(*(Key(algorithm, SECRET) for algorithm in ALGORITHMS))

    assert len({key.id for key in ring.keys}) == 3


def test_ring_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable holds what `parse()` reads."""
    old, new = Key.generate(), Key.generate("fernet")
    monkeypatch.setenv("SESSION_KEYS", f"{new.export()} {old.export()}\n")

    ring = KeyRing.from_env("SESSION_KEYS")

    assert (new, old) == ring.keys


@pytest.mark.parametrize("value", [None, "", "  \n"], ids=["missing", "empty", "blank"])
def test_environment_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """The message names the variable and the command that makes a key. Case A16."""
    if value is None:
        monkeypatch.delenv("SESSION_KEYS", raising=False)
    else:
        monkeypatch.setenv("SESSION_KEYS", value)

    with pytest.raises(ConfigurationError, match=f"SESSION_KEYS holds no key; set it to the output of: {KEYGEN}"):
        KeyRing.from_env("SESSION_KEYS")


@pytest.mark.parametrize("name", [None, b"SESSION_KEYS", KeyRing(Key.generate())], ids=["none", "bytes", "ring"])
def test_what_is_no_name_of_a_variable_is_refused(name: Any) -> None:
    """Such as os.environ.get() gives where it is missing."""
    with pytest.raises(ConfigurationError, match="takes the name of an environment variable"):
        KeyRing.from_env(name)


def test_environment_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the password is not repeated. Cases A16, A17."""
    monkeypatch.setenv("SESSION_KEYS", "correct-horse-battery-staple")

    with pytest.raises(ConfigurationError, match=KEYGEN) as caught:
        KeyRing.from_env("SESSION_KEYS")

    assert "horse" not in str(caught.value)


# The source of rings


def test_ring_is_a_source_of_itself() -> None:
    """At any time."""
    ring = KeyRing(Key.generate())
    source: KeySource = ring

    assert ring is source.current(0)
    assert ring is source.current(4e9)
    assert isinstance(ring, KeySource)


def test_object_of_the_users_is_a_source() -> None:
    """Whatever has `current(now)` satisfies the protocol, for type checkers and at run time."""

    class Scheduled:
        def __init__(self, old: KeyRing, new: KeyRing, moment: float) -> None:
            self.old, self.new, self.moment = old, new, moment

        def current(self, now: float) -> KeyRing:
            return self.new if now >= self.moment else self.old

    old, new = KeyRing(Key.generate()), KeyRing(Key.generate())
    source: KeySource = Scheduled(old, new, 100)

    assert isinstance(source, KeySource)
    assert [old, new] == [source.current(99), source.current(100)]


@pytest.mark.parametrize(
    "thing", [TEXT, [Key("fernet", SECRET)], Key("fernet", SECRET), None], ids=["text", "list", "key", "none"]
)
def test_what_gives_no_ring_is_no_source(thing: object) -> None:
    """A text or a bare key is told apart at run time."""
    assert not isinstance(thing, KeySource)


@pytest.mark.parametrize("before", ["", "old "])
def test_keys_that_are_given_for_their_variable_are_not_shown(
    before: str, everything_said: Callable[[BaseException], str]
) -> None:
    """An easy slip, whose error would go to a log. Case A17."""
    text = before + Key.generate().export()

    with pytest.raises(ConfigurationError, match="a key stands where the name of an environment variable") as refusal:
        KeyRing.from_env(text)

    assert text[-43:][:10] not in everything_said(refusal.value)
