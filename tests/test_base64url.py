"""Bytes as text: every byte string has one spelling, and nothing else is read."""

from __future__ import annotations

import runpy
import string
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import base64url
from cookiesession.base64url import by_msgspec, by_pybase64

if TYPE_CHECKING:
    from collections.abc import Iterator

ALPHABET = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_").encode()

# RFC 4648, section 10, without the padding.
RFC_4648 = [
    (b"", b""),
    (b"f", b"Zg"),
    (b"fo", b"Zm8"),
    (b"foo", b"Zm9v"),
    (b"foob", b"Zm9vYg"),
    (b"fooba", b"Zm9vYmE"),
    (b"foobar", b"Zm9vYmFy"),
]

hostile_text = st.binary(max_size=40) | st.lists(
    st.sampled_from([bytes([character]) for character in ALPHABET + b'+/=\n \0\xff"\\']), max_size=12
).map(b"".join)


@pytest.fixture(autouse=True, scope="module", params=[by_msgspec, by_pybase64], ids=["msgspec", "pybase64"])
def _implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything below holds with the extra `speed` and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64url, "encode", request.param.encode)
        patch.setattr(base64url, "_decode", request.param.decode)
        yield


@pytest.mark.parametrize("is_there", [True, False])
def test_pybase64_is_used_where_it_is_installed(*, is_there: bool) -> None:
    """And nothing is missing where it is not."""
    code = (
        f"import sys; {'' if is_there else 'sys.modules.update(pybase64=None);'}"
        "from cookiesession import Key, base64url;"
        "key = Key.generate(); assert Key.parse(key.export()) == key;"
        "print(base64url.encode.__module__, base64url._decode.__module__)"
    )

    printed = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout

    expected = by_pybase64 if is_there else by_msgspec
    assert printed.split() == [expected.__name__] * 2


def test_msgspec_is_used_where_pybase64_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has imported it before."""
    monkeypatch.setitem(sys.modules, "pybase64", None)
    monkeypatch.delitem(sys.modules, by_pybase64.__name__)

    without = runpy.run_path(base64url.__file__)

    assert (by_msgspec.encode, by_msgspec.decode) == (without["encode"], without["_decode"])


@given(st.binary(max_size=5000))
def test_both_spell_alike(data: bytes) -> None:
    """A token that was sealed with one opens with the other."""
    assert by_msgspec.encode(data) == by_pybase64.encode(data)


@pytest.mark.parametrize(("data", "text"), RFC_4648, ids=[text.decode() or "empty" for _, text in RFC_4648])
def test_rfc_vectors_are_spelled_as_in_the_rfc(data: bytes, text: bytes) -> None:
    """The test vectors of RFC 4648 encode to their text and decode from it."""
    assert text == base64url.encode(data)
    assert data == base64url.decode(text)


def test_every_character_of_the_alphabet_has_its_value() -> None:
    """The alphabet in order is the numbers 0 to 63, six bits each."""
    numbers = sum(value << 6 * (63 - value) for value in range(64))
    data = numbers.to_bytes(48, "big")

    assert ALPHABET == base64url.encode(data)
    assert data == base64url.decode(ALPHABET)


@given(st.binary(max_size=200))
def test_bytes_come_back_from_their_text(data: bytes) -> None:
    """Decoding undoes encoding, and the text holds nothing that a cookie or a URL would have to quote."""
    text = base64url.encode(data)

    assert data == base64url.decode(text)
    assert set(text) <= set(ALPHABET)


@given(hostile_text)
def test_text_that_decodes_is_the_only_spelling_of_its_bytes(text: bytes) -> None:
    """Any text is either what `encode()` writes, or a `ValueError`. Case A10."""
    try:
        data = base64url.decode(text)
    except ValueError:
        return

    assert text == base64url.encode(data)


@pytest.mark.parametrize(
    ("start", "spellings"), [(b"A", 4), (b"AA", 16), (b"AAA", 64)], ids=["1-byte", "2-bytes", "3-bytes"]
)
def test_last_character_with_unused_bits_has_one_spelling(start: bytes, spellings: int) -> None:
    """Of the 16, 4 or 1 last characters that lax decoders take for one, only that with zero bits is read. Case A10."""
    read = []
    for last in range(256):
        try:
            read.append(base64url.decode(start + bytes([last])))
        except ValueError:
            continue

    assert spellings == len(read)
    assert spellings == len(set(read))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"A", id="one-character"),
        pytest.param(b"AAAAA", id="one-character-over"),
        pytest.param(b"Zg==", id="padding"),
        pytest.param(b"Zg=", id="half-the-padding"),
        pytest.param(b"Zm9v=", id="padding-where-none-belongs"),
        pytest.param(b"Zg==Zg", id="padding-inside"),
        pytest.param(b"=", id="padding-alone"),
        pytest.param(b"++++", id="plus"),
        pytest.param(b"////", id="slash"),
        pytest.param(b"Zm9v\n", id="newline-at-the-end"),
        pytest.param(b"Zm\n9v", id="newline-inside"),
        pytest.param(b" Zm9v", id="space"),
        pytest.param(b"Zm9!", id="exclamation-mark"),
        pytest.param(b"Zm9v!!!!", id="four-exclamation-marks"),
        pytest.param(b"\0\0\0\0", id="nul"),
        pytest.param(b"Zm9\xf6", id="latin-1"),
        pytest.param(b"Zm9\xef\xbd\x96", id="full-width-letter"),
        pytest.param(b"a.bc", id="dot"),
        pytest.param(b'Zm9v"', id="quote"),
        pytest.param(b'"Zm9v"', id="quoted"),
        pytest.param(b'Zm9v" ', id="quote-and-space"),
        pytest.param(rb"\u0041AA", id="escape-of-a-letter"),
        pytest.param(rb"\u0041" * 4, id="escapes-of-a-whole-group"),
        pytest.param(rb"\u002b" * 4, id="escapes-of-plus"),
        pytest.param(rb"\/\/\/\/", id="escaped-slashes"),
    ],
)
def test_text_of_others_is_refused(text: bytes) -> None:
    """Padding, the other alphabet, white space, JSON and whatever lax decoders pass over. Case A10."""
    with pytest.raises(ValueError, match=r"base64|Base64|padding|canonical"):
        base64url.decode(text)
