"""What is inside the seal: the layout byte for byte, what is not read, and the rules of time."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import InvalidToken, UnencodableData
from cookiesession.codec import MAX_ENCODED
from cookiesession.payload import (
    BOUND_LENGTH,
    COMPRESSED_PADDING,
    ID_LENGTH,
    LAST_SECOND,
    PADDING,
    PERSISTENT,
    Payload,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000
ID = bytes(range(0xA0, 0xB0))
DATA = msgspec.msgpack.encode({"views": 1})
COMPRESSIBLE = msgspec.msgpack.encode({"text": "tea " * 300})
VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "payload_v1.json").read_bytes())

seconds = st.integers(0, LAST_SECOND)


def payload(
    *,
    flags: int = PERSISTENT,
    created_at: int = NOW,
    renewed_at: int = NOW,
    expires_at: int = NOW + 1000,
    idle_timeout: int = 0,
    subject: str | None = None,
    data: bytes = DATA,
) -> Payload:
    """A payload that lives for 1,000 seconds."""
    return Payload(flags, created_at, renewed_at, expires_at, idle_timeout, ID, subject, data)


def plaintext(flags: int, encoded: bytes, padding: int = PADDING) -> bytes:
    """What `pack()` writes for these flags, put together by hand."""
    body = struct.pack(">BIIII16s", flags, NOW, NOW, NOW + 1000, 0, ID) + encoded + b"\x80"
    return body + bytes(-len(body) % padding)


def reason_for(sealed: bytes, now: int = NOW) -> str | None:
    """Why `sealed` is refused, or None if it is read."""
    try:
        unpack(sealed, now)
    except InvalidToken as error:
        return error.reason
    return None


# The layout


def test_header_is_flags_four_times_and_the_id() -> None:
    """33 bytes, big-endian, then the data, the end mark and zeros."""
    packed = pack(Payload(1, 0x01020304, 0x05060708, 0x090A0B0C, 0x0D0E0F10, ID, None, b"data"))

    header = "01 01020304 05060708 090a0b0c 0d0e0f10 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
    assert bytes.fromhex(header) + b"data\x80" + bytes(26) == packed


def test_payload_never_changes() -> None:
    """What a request changes is another payload, and told from this one."""
    one = payload()

    with pytest.raises(AttributeError):
        one.subject = "42"  # type: ignore[misc]  # what is refused
    assert one == payload()


def test_sizes_are_those_of_the_format() -> None:
    """128 bits of id; multiples of 32 bytes, or 256 where compression tells more; 32 bits of seconds."""
    assert (ID_LENGTH, PADDING, COMPRESSED_PADDING, LAST_SECOND, PERSISTENT) == (16, 32, 256, 2**32 - 1, 1)


@pytest.mark.parametrize("vector", VECTORS["reads"], ids=lambda vector: vector["name"])
def test_frozen_plaintext_is_read_for_ever(vector: dict[str, Any]) -> None:
    """What version 1 wrote is read by every later version."""
    read = unpack(bytes.fromhex(vector["plaintext"]), vector["now"])

    expected = vector["payload"]
    assert (
        Payload(
            expected["flags"],
            expected["created_at"],
            expected["renewed_at"],
            expected["expires_at"],
            expected["idle_timeout"],
            bytes.fromhex(expected["id"]),
            expected["subject"],
            bytes.fromhex(expected["data"]),
        )
        == read
    )


@pytest.mark.parametrize("vector", VECTORS["fails"], ids=lambda vector: vector["name"])
def test_frozen_plaintext_fails_for_its_reason(vector: dict[str, Any]) -> None:
    """What version 1 refuses stays refused, and for the reason that the vector names."""
    with pytest.raises(InvalidToken) as caught:
        unpack(bytes.fromhex(vector["plaintext"]), vector["now"])

    assert vector["reason"] == caught.value.reason


@given(
    persistent=st.booleans(),
    created_at=st.integers(0, NOW + 60),
    renewed_at=st.integers(NOW - 500, NOW + 60),
    expires_at=st.integers(NOW + 1, LAST_SECOND),
    idle_timeout=st.just(0) | st.integers(501, LAST_SECOND),
    subject=st.none() | st.text(max_size=40),
    data=st.binary(max_size=300) | st.binary(max_size=20).map(lambda data: data + b"\x80" + bytes(len(data))),
    compress=st.booleans(),
)
def test_what_is_packed_is_unpacked(
    *,
    persistent: bool,
    created_at: int,
    renewed_at: int,
    expires_at: int,
    idle_timeout: int,
    subject: str | None,
    data: bytes,
    compress: bool,
) -> None:
    """Every field comes back, whatever the data ends in; an extended part needs data that is MessagePack."""
    data = data if subject is None else msgspec.msgpack.encode(data)
    before = Payload(int(persistent), created_at, renewed_at, expires_at, idle_timeout, ID, subject, data)

    after = unpack(pack(before, compress=compress), NOW)

    assert before.flags == after.flags & PERSISTENT
    assert before == msgspec.structs.replace(after, flags=before.flags)


@pytest.mark.parametrize("length", range(100))
def test_every_length_is_padded_to_the_next_multiple(length: int) -> None:
    """With at least the end mark, and no more than is needed. Case C41."""
    packed = pack(payload(data=b"x" * length))

    assert -(-(33 + length + 1) // 32) * 32 == len(packed)
    assert b"x" * length == unpack(packed, NOW).data


def test_only_the_persistent_flag_is_the_callers() -> None:
    """The others say how the encoded part is written, and follow from it."""
    packed = pack(payload(flags=0xFF))

    assert packed[0] == PERSISTENT
    assert pack(payload(flags=0xFE))[0] == 0


def test_subject_goes_into_the_encoded_part() -> None:
    """As a map before the data, so that more can come beside it in version 1."""
    packed = pack(payload(subject="42"))

    assert plaintext(0b101, msgspec.msgpack.encode(({"subject": "42"}, {"views": 1}))) == packed
    assert unpack(packed, NOW).subject == "42"


@pytest.mark.parametrize("subject", ["", "42", "Zoë", "a" * 1000, "\0"], ids=["empty", "number", "name", "long", "nul"])
def test_subject_comes_back(subject: str) -> None:
    """An empty one too, which is not none."""
    read = unpack(pack(payload(subject=subject)), NOW)

    assert (subject, DATA) == (read.subject, read.data)


@pytest.mark.parametrize("data", [b"", DATA], ids=["no-data", "data"])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compress"])
def test_whose_a_session_is_and_when_it_began_come_back(data: bytes, *, compress: bool) -> None:
    """Also of a cookie that holds an id alone, and no data."""
    before = msgspec.structs.replace(payload(data=data), bound=bytes(range(BOUND_LENGTH)), fraction=999_999)

    after = unpack(pack(before, compress=compress), NOW)

    assert before == msgspec.structs.replace(after, flags=before.flags)
    assert NOW + 0.999999 == after.began()


def test_subject_that_is_not_unicode_is_refused_at_write() -> None:
    """The message names the subject and does not show it. Case D54."""
    with pytest.raises(UnencodableData, match=r"^session\.subject cannot be encoded") as caught:
        pack(payload(subject="hunter2\ud800"))

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("time", ["created_at", "renewed_at", "expires_at", "idle_timeout"])
def test_time_beyond_the_format_is_never_written(time: str) -> None:
    """A number that does not fit into its four bytes fails, rather than wrap around to another time."""
    last: dict[str, Any] = {time: LAST_SECOND}
    beyond: dict[str, Any] = {time: LAST_SECOND + 1}

    assert len(pack(payload(**last))) == 64
    with pytest.raises(struct.error):
        pack(payload(**beyond))


def test_repr_shows_neither_id_nor_data() -> None:
    """Crash reporters collect the representations of what is in a frame. Case A17."""
    shown = f"{payload(subject='ada')!r} {payload()}"

    assert "<Payload> <Payload>" == shown


# What is not read


@pytest.mark.parametrize("flag", [0x08, 0x10, 0x20, 0x40, 0x80], ids=hex)
@pytest.mark.parametrize("known", range(8))
def test_unknown_flag_is_refused(flag: int, known: int) -> None:
    """A later version says with a new flag that it wrote what this one cannot read."""
    assert reason_for(plaintext(flag | known, DATA)) == "unsupported"


@pytest.mark.parametrize("subject", [None, "42"], ids=["plain", "extended"])
@pytest.mark.parametrize("compress", [False, True], ids=["", "compressed"])
def test_every_cut_is_refused(subject: str | None, *, compress: bool) -> None:
    """A plaintext cut at any length is not read as a shorter one. Case A2."""
    packed = pack(payload(subject=subject, data=COMPRESSIBLE), compress=compress)

    reasons = {reason_for(packed[:length]) for length in range(len(packed.rstrip(b"\0")))}

    assert {"unsupported"} == reasons


@pytest.mark.parametrize("zeros", [1, 31, 32, 33, 64, 256, 512])
def test_more_padding_than_we_write_is_refused(zeros: int) -> None:
    """One payload has one length."""
    assert reason_for(pack(payload()) + bytes(zeros)) == "unsupported"


@pytest.mark.parametrize("length", range(32))
def test_one_block_more_than_we_write_is_refused(length: int) -> None:
    """However many zeros there were before."""
    assert reason_for(pack(payload(data=b"x" * length)) + bytes(32)) == "unsupported"


@pytest.mark.parametrize("zeros", [1, 31, 33, 256, 512])
def test_more_padding_than_we_write_is_refused_when_compressed(zeros: int) -> None:
    """The same for the larger unit."""
    assert reason_for(pack(payload(data=COMPRESSIBLE), compress=True) + bytes(zeros)) == "unsupported"


@pytest.mark.parametrize("zeros", [-128, -64, -32, 32, 64, 128, 160])
def test_padding_to_another_multiple_is_refused_when_compressed(zeros: int) -> None:
    """A compressed payload is padded to 256 bytes, and no other length is one that we write."""
    packed = pack(payload(data=COMPRESSIBLE), compress=True)

    assert reason_for(packed.ljust(len(packed) + zeros, b"\0")[: len(packed) + zeros]) == "unsupported"


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"", id="no-mark"),
        pytest.param(b"\x81", id="other-mark"),
        pytest.param(b"\x80\x01", id="byte-after-the-mark"),
        pytest.param(b"\x80\x80\x01", id="two-marks-and-a-byte"),
    ],
)
def test_wrong_padding_is_refused(end: bytes) -> None:
    """The end is 0x80 and zeros."""
    body = plaintext(PERSISTENT, DATA).rstrip(b"\0")[:-1] + end

    assert reason_for(body + bytes(-len(body) % PADDING)) == "unsupported"


def test_any_byte_after_the_mark_is_wrong() -> None:
    """Only zeros follow it."""
    body = plaintext(PERSISTENT, DATA).rstrip(b"\0")

    reasons = {reason_for((body + bytes([byte])).ljust(64, b"\0")) for byte in range(1, 256) if byte != 0x80}

    assert {"unsupported"} == reasons


def test_mark_within_the_header_is_not_the_end() -> None:
    """An id that ends like padding does not make a header of fewer bytes."""
    assert reason_for(b"\x01" + bytes(30) + b"\x80") == "unsupported"
    assert (
        reason_for(struct.pack(">BIIII16s", 1, NOW, NOW, NOW + 9, 0, b"x" * 15 + b"\x80") + bytes(31)) == "unsupported"
    )


@given(st.binary(max_size=320) | st.binary(max_size=160).map(lambda end: plaintext(0, b"")[:33] + end + b"\x80"))
def test_any_bytes_are_a_payload_or_an_invalid_token(sealed: bytes) -> None:
    """No other exception leaves `unpack()`, even for what a future version or a leaked key has sealed. Case D49."""
    sealed += bytes(-len(sealed) % PADDING)

    for flags in range(16):
        try:
            read = unpack(bytes([flags]) + sealed[1:], NOW)
        except InvalidToken:
            continue
        assert flags < 8
        assert len(read.id) == ID_LENGTH


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(DATA, id="data-alone"),
        pytest.param(b"", id="nothing"),
        pytest.param(msgspec.msgpack.encode([]), id="empty-array"),
        pytest.param(msgspec.msgpack.encode([{"subject": "42"}]), id="no-data"),
        pytest.param(msgspec.msgpack.encode([{"subject": 42}, {}]), id="subject-is-a-number"),
        pytest.param(msgspec.msgpack.encode([{"subject": b"42"}, {}]), id="subject-is-bytes"),
        pytest.param(msgspec.msgpack.encode([["42"], {}]), id="extension-is-an-array"),
        pytest.param(msgspec.msgpack.encode([{"subject": "42"}, {}]) + b"\xc0", id="byte-more"),
        pytest.param(b"\x92\x81\xa7subject\xa1\xff\x80", id="subject-is-not-utf-8"),
        pytest.param(b"\x92" + b"\x91" * 100_000, id="nested"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="length-bomb"),
    ],
)
def test_extension_that_we_do_not_write_is_refused(encoded: bytes) -> None:
    """Whatever msgspec raises for it becomes one reason. Case D49."""
    assert reason_for(plaintext(0b101, encoded)) == "undecodable"


def test_extension_of_a_later_version_is_passed_over() -> None:
    """Later versions may put more beside the subject; this one reads what it knows. Case D52."""
    encoded = msgspec.msgpack.encode([{"later": [1, 2], "subject": "42"}, {"views": 1}])

    read = unpack(plaintext(0b101, encoded), NOW)

    assert ("42", DATA) == (read.subject, read.data)


# Time


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(998, None), (999, None), (1000, "expired"), (1001, "expired"), (10**9, "expired")],
    ids="{}".format,
)
def test_session_ends_with_its_lifetime(moment: int, expected: str | None) -> None:
    """Read in the last second before `expires_at`, and not in that second. Case F76, CVE-2018-1000814."""
    assert expected == reason_for(pack(payload(expires_at=NOW + 1000)), NOW + moment)


@pytest.mark.parametrize(
    ("moment", "expected"), [(0, None), (299, None), (300, "idle"), (301, "idle"), (1000, "expired")], ids="{}".format
)
def test_session_ends_unused(moment: int, expected: str | None) -> None:
    """The idle timeout counts from `renewed_at`, and the lifetime ends it all the same. Case F76."""
    packed = pack(payload(created_at=NOW - 500, renewed_at=NOW, idle_timeout=300))

    assert expected == reason_for(packed, NOW + moment)


def test_session_without_idle_timeout_lives_unused() -> None:
    """0 is never, not at once. Case F76."""
    assert reason_for(pack(payload(renewed_at=0, created_at=0, idle_timeout=0))) is None


@pytest.mark.parametrize("field", ["created_at", "renewed_at"])
@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(0, None), (59, None), (60, None), (61, "future"), (3600, "future"), (10**6, "future")],
    ids="{}".format,
)
def test_session_of_the_future_is_refused(field: str, ahead: int, expected: str | None) -> None:
    """Clocks of two servers may differ by a minute, and no more. Cases A11, F76."""
    times: dict[str, Any] = {field: NOW + ahead, "expires_at": NOW + 10**7}

    assert expected == reason_for(pack(payload(**times)))


def test_session_from_the_epoch_has_expired() -> None:
    """What was sealed at time 0, as a forged clock would have it, is long over. Case A11."""
    assert reason_for(pack(payload(created_at=0, renewed_at=0, expires_at=1_209_600))) == "expired"


@given(created_at=seconds, renewed_at=seconds, expires_at=seconds, idle_timeout=seconds, now=seconds)
def test_session_is_read_from_a_minute_before_its_birth_until_it_ends(
    created_at: int, renewed_at: int, expires_at: int, idle_timeout: int, now: int
) -> None:
    """At any time of any session, and `ends_at()` says when that is. Case F76."""
    one = payload(created_at=created_at, renewed_at=renewed_at, expires_at=expires_at, idle_timeout=idle_timeout)

    born = max(created_at, renewed_at) - 60 <= now
    assert (born and now < one.ends_at()) == (reason_for(pack(one), now) is None)


@pytest.mark.parametrize(
    ("idle_timeout", "expected"), [(0, 1000), (300, 800), (499, 999), (500, 1000), (5000, 1000)], ids="{}".format
)
def test_end_is_the_earlier_of_lifetime_and_idle_timeout(idle_timeout: int, expected: int) -> None:
    """Of a session that was last renewed 500 seconds after it was made."""
    one = payload(renewed_at=NOW + 500, expires_at=NOW + 1000, idle_timeout=idle_timeout)

    assert NOW + expected == one.ends_at()


# Compression


def test_nothing_is_compressed_unless_asked() -> None:
    """Length leaks where a secret and somebody else's text share a session. Case D51, CVE-2014-9720."""
    assert len(pack(payload(data=COMPRESSIBLE))) > len(COMPRESSIBLE)


def test_compressed_payload_is_a_zlib_stream_padded_to_256() -> None:
    """And says so by its flag."""
    packed = pack(payload(data=COMPRESSIBLE), compress=True)

    assert plaintext(0b011, zlib.compress(COMPRESSIBLE, 9), 256) == packed
    assert len(packed) == 256
    assert COMPRESSIBLE == unpack(packed, NOW).data


def test_data_that_does_not_shrink_stays_as_it_is() -> None:
    """And is padded as any other."""
    incompressible = msgspec.msgpack.encode({"noise": zlib.compress(bytes(range(256)) * 3)[:90]})

    assert pack(payload(data=incompressible)) == pack(payload(data=incompressible), compress=True)


@pytest.mark.parametrize("length", [0, 1, 7])
def test_guess_of_a_secret_does_not_change_the_length(length: int) -> None:
    """Right or wrong, whole or by its first letters, though the bare streams differ. Case D51, CVE-2014-9720."""
    secret = "a3f81c9e5d7742b0"  # noqa: S105  what the test is about
    guesses = [secret[:end] + "z" * (16 - end) for end in range(17)]
    sessions = [
        msgspec.msgpack.encode({"csrf": f"token={secret}", "pad": "x" * length, "search": f"token={guess}"})
        for guess in guesses
    ]

    lengths = {len(pack(payload(data=session), compress=True)) for session in sessions}

    assert len({len(zlib.compress(session, 9)) for session in sessions}) > 1
    assert {256} == lengths


@pytest.mark.parametrize("extra", [0, 1], ids=["data", "subject"])
def test_compressed_bomb_is_refused_and_bounded(extra: int) -> None:
    """10 MB in 10 KB stop at the largest size that we write, in memory too. Case D50."""
    bomb = zlib.compress(bytes(10_000_000), 9)
    packed = plaintext(0b011 | extra << 2, bomb, 256)

    tracemalloc.start()
    reason = reason_for(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(bomb) < 12_000
    assert reason == "undecodable"
    assert peak < 4 * MAX_ENCODED


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda stream: stream[:-1], id="cut"),
        pytest.param(lambda stream: stream[:-5] + bytes(4) + stream[-1:], id="checksum"),
        pytest.param(lambda stream: stream + b"x", id="byte-more"),
        pytest.param(lambda stream: stream + stream, id="twice"),
        pytest.param(lambda stream: stream[2:-4], id="raw-deflate"),
        pytest.param(lambda stream: b"", id="nothing"),
        pytest.param(lambda stream: DATA, id="not-compressed"),
    ],
)
def test_stream_that_we_do_not_write_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    """What zlib says of it becomes one reason. Case D49."""
    stream = spoil(zlib.compress(COMPRESSIBLE, 9))

    assert reason_for(plaintext(0b011, stream, 256)) == "undecodable"
