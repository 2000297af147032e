"""Data to bytes and back: what MessagePack holds comes back equal, and hostile bytes end in one of a few errors."""

from __future__ import annotations

import dataclasses
import enum
import math
import tracemalloc
import uuid
import zlib
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import (
    CookieSessionError,
    InvalidToken,
    Key,
    KeyRing,
    SessionManager,
    SessionTooLarge,
    UnencodableData,
    codec,
)
from cookiesession.codec import DECODING_ERRORS, ENCODING_ERRORS, MAX_ENCODED, DictCodec

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.codec import Codec

PLAIN: Codec[dict[str, Any]] = DictCodec()
MARKER = "hunter2"
EMPTY = PLAIN.encode({})

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=20,
)
sessions = st.dictionaries(st.text(max_size=12), values, max_size=5)


def encoded(value: Any) -> bytes:
    """A session with one entry, around bytes that somebody else may have encoded."""
    return b"\x81\xa1v" + (value if isinstance(value, bytes) else msgspec.msgpack.encode(value))


def failure(value: Any) -> UnencodableData:
    """The error for a session with one value that cannot be encoded, as the manager makes it."""
    data = {"good": 1, "bad": value}
    with pytest.raises(ENCODING_ERRORS) as caught:
        PLAIN.encode(data)
    assert isinstance(caught.value, Exception)
    return codec.unencodable(PLAIN, data, caught.value)


class Colour(enum.Enum):
    """An enumeration whose values MessagePack holds."""

    RED = "red"


class Opaque:
    """An object that MessagePack does not hold, and that shows too much of itself."""

    def __repr__(self) -> str:
        return MARKER


@dataclasses.dataclass(frozen=True)
class Point:
    """A value object."""

    x: int


# Round trips


@given(sessions)
def test_what_messagepack_holds_comes_back_equal(data: dict[str, Any]) -> None:
    """Values, types and order: `repr` tells 1 from True and 0.0 from -0.0. Case D53."""
    assert repr(data) == repr(PLAIN.decode(PLAIN.encode(data)))


@given(sessions)
def test_what_was_read_encodes_to_the_same_bytes(data: dict[str, Any]) -> None:
    """A session that was only read is not written again: change is found by comparing bytes."""
    before = PLAIN.encode(data)

    assert before == PLAIN.encode(PLAIN.decode(before))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param((1, 2), [1, 2], id="tuple"),
        pytest.param({7}, [7], id="set"),
        pytest.param(frozenset({7}), [7], id="frozenset"),
        pytest.param(bytearray(b"\0x"), b"\0x", id="bytearray"),
        pytest.param(memoryview(b"\0x"), b"\0x", id="memoryview"),
        pytest.param(uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005", id="uuid"),
        pytest.param(Decimal("1.50"), "1.50", id="decimal"),
        pytest.param(date(2026, 11, 20), "2026-11-20", id="date"),
        pytest.param(time(1, 2, 3), "01:02:03", id="time"),
        pytest.param(datetime(2026, 11, 20, 1, 2, 3), "2026-11-20T01:02:03", id="naive-datetime"),  # noqa: DTZ001
        pytest.param(timedelta(days=1), "P1D", id="timedelta"),
        pytest.param(
            datetime(2026, 11, 20, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 11, 19, 23, 0, 0, 5, tzinfo=UTC),
            id="datetime-of-another-zone",
        ),
        pytest.param(Colour.RED, "red", id="enum"),
        pytest.param(Point(1), {"x": 1}, id="dataclass"),
        pytest.param(OrderedDict(b=1, a=2), {"b": 1, "a": 2}, id="ordered-dict"),
        pytest.param(defaultdict(list, a=[1]), {"a": [1]}, id="default-dict"),
        pytest.param(
            {1: "a", None: "b", 1.5: "c", b"d": "e"}, {1: "a", None: "b", 1.5: "c", b"d": "e"}, id="other-keys"
        ),
        pytest.param({(1, "a"): 2}, {(1, "a"): 2}, id="tuple-as-key"),
        pytest.param({Colour.RED: 1}, {"red": 1}, id="enum-as-key"),
        pytest.param(math.inf, math.inf, id="infinity"),
        pytest.param(2**64 - 1, 2**64 - 1, id="largest-int"),
        pytest.param(-(2**63), -(2**63), id="smallest-int"),
        pytest.param(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), id="latest"),
        pytest.param(datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), id="earliest"),
    ],
)
def test_value_comes_back_as_documented(value: Any, expected: Any) -> None:
    """What MessagePack lacks comes back as its nearest, and then stays so. Case D53."""
    before = PLAIN.encode({"v": value})

    after = PLAIN.decode(before)

    assert {"v": expected} == after
    assert repr({"v": expected}) == repr(after)
    assert before == PLAIN.encode(after)


def test_nan_comes_back() -> None:
    """And does not make a session that was only read look changed. Case D53."""
    before = PLAIN.encode({"v": math.nan})

    assert math.isnan(PLAIN.decode(before)["v"])
    assert before == PLAIN.encode(PLAIN.decode(before))


UNREADABLE = {
    "dataclass-as-key": {Point(1): MARKER},
    "dataclass-in-a-key": {(Point(1),): MARKER},
    "ext": msgspec.msgpack.Ext(5, MARKER.encode()),
    "timestamp-ext": msgspec.msgpack.Ext(-1, b"x"),
    "raw": msgspec.Raw(b"\xc1"),
    "nested": [[{"deep": msgspec.msgpack.Ext(5, MARKER.encode())}]],
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_value_that_would_not_come_back_is_refused_at_write(value: Any) -> None:
    """What encodes without a word must also decode: else it would cost the visitor the whole session. Case D53."""
    data = {"good": 1, "bad": value}
    before = PLAIN.encode(data)

    with pytest.raises(DECODING_ERRORS):
        PLAIN.decode(before)
    with pytest.raises(UnencodableData, match=r"^session\['bad'\] could not be read back") as caught:
        PLAIN.verify(data, before, EMPTY)

    assert MARKER not in str(caught.value)


def test_key_that_would_not_come_back_is_refused_without_being_shown() -> None:
    """A key that is an object may hold values: its type is told. Case D53."""
    data: Any = {"good": 1, Point(1): 2}

    with pytest.raises(UnencodableData, match=r"^session\[a Point\] could not be read back"):
        PLAIN.verify(data, PLAIN.encode(data), EMPTY)


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_value_that_would_not_come_back_is_refused_beside_large_entries(value: Any) -> None:
    """Which are compared with what was kept, and not read once more. Case D53."""
    large: dict[Any, Any] = {"cart": ["tea"] * 1000, "note": "." * 1000}
    data = {**large, "bad": [value]}

    with pytest.raises(UnencodableData, match=r"^session\['bad'\] could not be read back"):
        PLAIN.verify(data, PLAIN.encode(data), PLAIN.encode({**large, "bad": [1]}))


def test_value_that_would_not_come_back_is_refused_where_two_keys_become_one() -> None:
    """Of which the later hides it from who looks at large entries alone. Case D53."""
    key = uuid.UUID(int=1)
    data: Any = {key: {Point(1): MARKER}, str(key): "." * 1000}

    with pytest.raises(UnencodableData, match=r"^session\[a UUID\] could not be read back"):
        PLAIN.verify(data, PLAIN.encode(data), EMPTY)


@pytest.mark.parametrize(
    "before", [{}, {"cart": []}, {"cart": ["tea"] * 999, "gone": 1}], ids=["new", "grown", "other"]
)
def test_large_entries_that_come_back_are_not_refused(before: dict[str, Any]) -> None:
    """Whatever was kept. Case D53."""
    data = {"cart": ["tea"] * 1000}
    encoded = PLAIN.encode(data)

    PLAIN.verify(data, encoded, PLAIN.encode(before))  # or raises

    assert data == PLAIN.decode(encoded)


def test_data_that_only_together_would_not_come_back_is_blamed_as_a_whole() -> None:
    """Where each entry by itself is read. Case D53."""
    with pytest.raises(UnencodableData, match=r"^the session could not be read back"):
        PLAIN.verify({"a": 1}, b"\xc1", EMPTY)


@given(sessions)
def test_value_that_comes_back_is_not_refused(data: dict[str, Any]) -> None:
    """And no session is. Case D53."""
    encoded = PLAIN.encode(data)

    PLAIN.verify(data, encoded, EMPTY)  # or raises

    assert PLAIN.encode(PLAIN.decode(encoded)) == encoded


@pytest.mark.parametrize("data", [{}, OrderedDict(a=1), MappingProxyType({"a": 1})], ids=["dict", "ordered", "proxy"])
def test_any_mapping_is_data(data: Any) -> None:
    """It is copied into the session's own dict."""
    session = SessionManager(KeyRing(Key.generate())).session([])

    session.data = data

    assert dict(session.data) == data


@pytest.mark.parametrize("data", [None, [], "text", 1, {1}, Point(1)], ids=lambda data: type(data).__name__)
def test_data_that_is_no_mapping_is_refused(data: object) -> None:
    """At the assignment, where the mistake is made."""
    with pytest.raises(TypeError, match=f"a dict, not {type(data).__name__}$"):
        PLAIN.require(data)


def test_encodings_that_differ_are_different_data() -> None:
    """A dict comes back in the order in which it was written."""
    assert not PLAIN.same(PLAIN.encode({"a": 1, "b": 2}), PLAIN.encode({"b": 2, "a": 1}))


def test_new_session_is_an_empty_dict_of_its_own() -> None:
    """One visitor's default is not another's."""
    first, second = PLAIN.default(), PLAIN.default()

    assert first == second == {}
    assert first is not second


# Hostile bytes


# Values that are none, for MessagePack or for a session.
HOSTILE = {
    "array-of-4-billion": b"\xdd\xff\xff\xff\xff",
    "arrays-of-4-billion": b"\xdd\xff\xff\xff\xff" * 1000,
    "inner-map-of-4-billion": b"\xdf\xff\xff\xff\xff",
    "str-of-4-gb": b"\xdb\xff\xff\xff\xff",
    "bytes-of-4-gb": b"\xc6\xff\xff\xff\xff",
    "ext-of-4-gb": b"\xc9\xff\xff\xff\xff\x05",
    "100000-arrays": b"\x91" * 100_000 + b"\xc0",
    "100000-maps": b"\x81\xa1v" * 100_000 + b"\xc0",
    "bad-utf-8": b"\xa1\xff",
    "utf-8-surrogate": b"\xa3\xed\xa0\x80",
    "ext": b"\xd4\x05x",
    "empty-ext": b"\xc7\x00\x05",
    "timestamp-of-1-byte": b"\xd4\xffx",
    "timestamp-nanoseconds": b"\xc7\x0c\xff" + b"\xff" * 12,
    "timestamp-beyond-year-9999": b"\xc7\x0c\xff\0\0\0\0\x7f" + b"\xff" * 7,
    "timestamp-before-year-1": b"\xc7\x0c\xff\0\0\0\0\x80" + b"\0" * 7,
    "cut-int": b"\xcf" + b"\xff" * 7,
}
# The same for a whole session.
HOSTILE_SESSIONS = {name: encoded(value) for name, value in HOSTILE.items()} | {
    "nothing": b"",
    "never-used-byte": b"\xc1",
    "two-values": b"\x80\x80",
    "array": b"\x90",
    "none": b"\xc0",
    "int": b"\x2a",
    "json": b"{}",
    "pickle": b"\x80\x04}\x94.",
    "map-of-4-billion": b"\xdf\xff\xff\xff\xff",
    "100000-maps-as-keys": b"\x81" * 100_000,
    "bad-utf-8-key": b"\x81\xa1\xff\xc0",
    "map-as-key": b"\x81\x80\xc0",
}


@pytest.mark.parametrize("hostile", HOSTILE_SESSIONS.values(), ids=HOSTILE_SESSIONS)
def test_hostile_bytes_end_in_a_decoding_error_and_little_memory(hostile: bytes) -> None:
    """Length bombs, depth, bad text, extensions: nothing escapes, nothing is allocated. Case D49, CVE-2026-25899."""
    tracemalloc.start()
    with pytest.raises(DECODING_ERRORS):
        PLAIN.decode(hostile)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2_000_000


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, -(2**63)], ids=str)
def test_huge_int_is_an_int(value: int) -> None:
    """The widest that MessagePack has. Case D49."""
    assert {"v": value} == PLAIN.decode(encoded(value))


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", {"a": 2}, id="duplicate-keys"),
        pytest.param(b"\x81\xa9__class__\xa2os", {"__class__": "os"}, id="class"),
        pytest.param(b"\x81\xaa__reduce__\x91\xa2os", {"__reduce__": ["os"]}, id="reduce"),
        pytest.param(b"\x81\xa4type\xa5Point", {"type": "Point"}, id="type"),
        pytest.param(b"\x81\xa6py/obj\xa2os", {"py/obj": "os"}, id="jsonpickle"),
        pytest.param(b"\x81\xa8__dict__\x81\xa1a\x01", {"__dict__": {"a": 1}}, id="dict"),
        pytest.param(b"\x81\xa5items\x01", {"items": 1}, id="name-of-a-method"),
    ],
)
def test_suspicious_keys_are_plain_data(hostile: bytes, expected: dict[str, Any]) -> None:
    """Nothing in the data names a type or runs; of two equal keys the last one counts. Case D56."""
    data = PLAIN.decode(hostile)

    assert expected == data
    assert type(data) is dict


@given(st.binary(max_size=200) | st.binary(max_size=60).map(encoded))
def test_any_bytes_are_a_dict_or_a_decoding_error(hostile: bytes) -> None:
    """Nothing else comes of it. Case D49."""
    try:
        data = PLAIN.decode(hostile)
    except DECODING_ERRORS:
        return

    assert type(data) is dict


@given(sessions.filter(bool), st.data())
def test_spoiled_bytes_are_a_dict_or_a_decoding_error(session: dict[str, Any], data: st.DataObject) -> None:
    """One byte of real data changed: the same. Case D49."""
    hostile = bytearray(PLAIN.encode(session))
    hostile[data.draw(st.integers(0, len(hostile) - 1))] = data.draw(st.integers(0, 255))

    try:
        read = PLAIN.decode(bytes(hostile))
    except DECODING_ERRORS:
        return

    assert type(read) is dict


def test_msgpack_test_suite_is_read_or_refused(foreign_vectors: Callable[[str], Any]) -> None:
    """Every encoding of a value that a session holds gives that value, and an extension none. Cases D49, D53."""
    groups = foreign_vectors("msgpack_test_suite.json")
    counts = {"read": 0, "refused": 0}

    for case in (case for group in groups.values() for case in group):
        for text in case["msgpack"]:
            try:
                value = PLAIN.decode(encoded(bytes.fromhex(text.replace("-", ""))))["v"]
            except DECODING_ERRORS:
                counts["refused"] += 1
                assert "ext" in case or "timestamp" in case, case
            else:
                counts["read"] += 1
                assert suite_value(case) == value, case

    assert counts["read"] > 180
    assert counts["refused"] >= 11


def suite_value(case: dict[str, Any]) -> Any:
    """The value of a case of the MessagePack test suite."""
    if "bignum" in case:
        return int(case["bignum"])
    if "binary" in case:
        return bytes.fromhex(case["binary"].replace("-", ""))
    if "timestamp" in case:
        whole, nanoseconds = case["timestamp"]
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=whole, microseconds=round(nanoseconds / 1000))
    [value] = [case[kind] for kind in ("nil", "bool", "number", "string", "array", "map") if kind in case]
    return value


# What cannot be encoded


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param(Opaque(), "objects of type Opaque is unsupported", id="object"),
        pytest.param([{"deep": Opaque()}], "objects of type Opaque is unsupported", id="nested-object"),
        pytest.param(lambda: MARKER, "objects of type function is unsupported", id="function"),
        pytest.param(Exception(MARKER), "objects of type Exception is unsupported", id="exception"),
        pytest.param(1j, "objects of type complex is unsupported", id="complex"),
        pytest.param(memoryview(MARKER.encode())[::2], "not C-contiguous", id="memoryview-with-gaps"),
        pytest.param(2**64, "ints", id="2**64"),
        pytest.param(-(2**63) - 1, "ints", id="-2**63-1"),
        pytest.param(f"{MARKER}\ud800", "a str in it is not valid Unicode", id="lone-surrogate"),
        pytest.param([{"deep": f"{MARKER}\udfff"}], "a str in it is not valid Unicode", id="nested-lone-surrogate"),
        pytest.param({f"{MARKER}\ud800": 1}, "a str in it is not valid Unicode", id="lone-surrogate-as-key"),
        pytest.param(
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "date value out of range", id="before-year-1"
        ),
    ],
)
def test_value_that_cannot_be_encoded_is_named_by_its_key(
    value: Any, why: str, everything_said: Callable[[BaseException], str]
) -> None:
    """And is not shown, nor is any other. Cases A17, D54."""
    error = failure(value)

    said = everything_said(error)
    assert str(error).startswith("session['bad'] cannot be encoded: ")
    assert why in str(error)
    assert MARKER not in said
    assert str(2**64) not in said


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_value_that_contains_itself_is_named_by_its_key(kind: str) -> None:
    """Without the stack overflow that a recursion would be. Case D54."""
    loop: Any = [] if kind == "list" else {}
    if kind == "list":
        loop.append(loop)
    else:
        loop["again"] = loop

    assert "session['bad'] cannot be encoded: it contains itself, or is nested too deeply" == str(failure(loop))


def test_value_that_is_nested_too_deeply_is_named_by_its_key() -> None:
    """100,000 lists in lists. Case D54."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert "session['bad'] cannot be encoded: it contains itself, or is nested too deeply" == str(failure(deep))


def test_key_that_is_not_unicode_is_named_with_its_escape() -> None:
    """So that the message itself can be written to any log. Case D54."""
    data = {"good": 1, "\ud800": 2}

    error = codec.unencodable(PLAIN, data, ValueError())

    assert str(error) == r"session['\ud800'] cannot be encoded: a str in it is not valid Unicode"


def test_key_that_is_no_text_is_not_shown() -> None:
    """It may hold values; a number is named. Cases A17, D54."""
    hidden: Any = {(MARKER,): Opaque()}
    numbered: Any = {7: Opaque()}

    errors = [str(codec.unencodable(PLAIN, data, TypeError())) for data in (hidden, numbered)]

    why = "cannot be encoded: Encoding objects of type Opaque is unsupported"
    assert [f"session[a tuple] {why}", f"session[7] {why}"] == errors


def test_data_whose_entries_are_fine_is_blamed_as_a_whole() -> None:
    """Nobody is accused for what only happens together. Case D54."""
    error = codec.unencodable(PLAIN, {"a": 1, "b": 2}, RecursionError("maximum recursion depth exceeded"))

    assert str(error) == "the session cannot be encoded: it contains itself, or is nested too deeply"


def test_unencodable_data_is_a_type_error() -> None:
    """As `json.dumps` raises under Starlette's own sessions."""
    assert issubclass(UnencodableData, TypeError)
    assert issubclass(UnencodableData, CookieSessionError)


@given(st.dictionaries(st.text(max_size=8), values | st.just(Opaque()), max_size=4))
def test_any_data_is_encoded_or_blamed(data: dict[str, Any]) -> None:
    """What fails is an `ENCODING_ERRORS`, and the one to blame is found. Case D54."""
    try:
        PLAIN.encode(data)
    except ENCODING_ERRORS as error:
        blamed = codec.unencodable(PLAIN, data, error)
    else:
        return

    name = next(name for name, value in data.items() if isinstance(value, Opaque))
    assert str(blamed).startswith(f"session[{name!r}] cannot be encoded: ")


# The extended part


def test_subject_that_is_not_unicode_is_in_no_chained_exception(
    everything_said: Callable[[BaseException], str],
) -> None:
    """Neither the message nor the traceback nor a `__context__` holds it. Cases A17, D54."""
    with pytest.raises(UnencodableData, match=r"^session\.subject cannot be encoded: .*not valid Unicode$") as caught:
        codec.extend(b"\x80", codec.Extension(f"{MARKER}\ud800"))

    assert MARKER not in everything_said(caught.value)


@pytest.mark.parametrize("subject", [None, "42"])
def test_label_that_is_not_unicode_is_blamed(
    subject: str | None, everything_said: Callable[[BaseException], str]
) -> None:
    """And not the subject beside it."""
    with pytest.raises(UnencodableData, match=r"^session\.label cannot be encoded: .*not valid Unicode$") as caught:
        codec.extend(b"\x80", codec.Extension(subject, f"{MARKER}\ud800"))

    assert MARKER not in everything_said(caught.value)


@given(sessions, st.none() | st.text(max_size=40), st.none() | st.text(max_size=40))
def test_subject_label_and_data_come_apart_again(data: dict[str, Any], subject: str | None, label: str | None) -> None:
    """The data's bytes exactly as they were."""
    before = PLAIN.encode(data)

    assert (before, codec.Extension(subject, label)) == codec.reduce(
        codec.extend(before, codec.Extension(subject, label))
    )


# Plain data without a model


@given(values)
def test_plain_data_comes_back_without_a_model(value: Any) -> None:
    """Of any shape, for the models to validate."""
    assert repr(value) == repr(codec.decode_plain(msgspec.msgpack.encode(value)))


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_plain_data_is_an_invalid_token(hostile: bytes) -> None:
    """Whatever msgspec raises for it. Case D49."""
    with pytest.raises(InvalidToken, match="undecodable"):
        codec.decode_plain(encoded(hostile))


def test_encoder_asks_its_hook_for_what_messagepack_lacks() -> None:
    """And what the hook gives is encoded instead."""
    encode = codec.encoder(lambda value: ["opaque", type(value).__name__])

    assert {"v": ["opaque", "Opaque"]} == codec.decode_plain(encode({"v": Opaque()}))


# Compression


@pytest.mark.parametrize("length", [0, 1, 1000, MAX_ENCODED - 1, MAX_ENCODED])
def test_stream_of_what_we_write_is_read(length: int) -> None:
    """Up to and including the largest size."""
    encoded_data = bytes(length)

    assert encoded_data == codec.decompress(codec.compress(encoded_data))


def test_largest_size_is_a_quarter_of_a_megabyte() -> None:
    """Far above what cookies hold, far below what hurts. Case D50."""
    assert MAX_ENCODED == 256 * 1024


@pytest.mark.parametrize("length", [MAX_ENCODED + 1, MAX_ENCODED + 2, 2 * MAX_ENCODED, 10_000_000])
def test_stream_of_more_is_refused(length: int) -> None:
    """One byte above the largest size is a bomb. Case D50."""
    with pytest.raises(InvalidToken, match="undecodable"):
        codec.decompress(codec.compress(bytes(length)))


@given(st.binary(max_size=100) | st.binary(max_size=100).map(zlib.compress).map(lambda stream: stream[:-1]))
def test_any_bytes_are_a_stream_or_an_invalid_token(compressed: bytes) -> None:
    """No `zlib.error` escapes, and a stream that is cut short is none. Case D49."""
    try:
        plain = codec.decompress(compressed)
    except InvalidToken:
        return

    assert plain == zlib.decompress(compressed)


class _Text(str):
    """A text with words of its own for its value, as a mark of what is safe HTML has."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other words"


class _Number(int):
    """A number with a name."""


class _Share(float):
    """A number that is no whole one."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [(_Text("tea"), "tea"), (_Number(7), 7), (_Share(0.5), 0.5)],
    ids=["str", "int", "float"],
)
def test_a_subclass_comes_back_as_what_it_is_a_subclass_of(value: Any, plain: Any) -> None:
    """By its value, also as a key. Case D53."""
    back = PLAIN.decode(PLAIN.encode({"a": [value], value: 1}))

    assert {"a": [plain], plain: 1} == back
    assert type(plain) is type(back["a"][0])


def test_an_extension_shows_nothing_of_itself() -> None:
    """Neither whose session it is nor its label. Case A17."""
    assert "<Extension>" == repr(codec.Extension(MARKER, MARKER))


# What is too large


def test_largest_entries_are_named_with_their_sizes() -> None:
    """The three largest, largest first, as they count when encoded; never a value. Case C40."""
    data: dict[Any, Any] = {"small": 1, "cart": ["tea"] * 100, "note": MARKER * 50, 7: b"x" * 300, "other": "x" * 100}
    data[MARKER, 1] = "x" * 1000

    largest = codec.largest_entries(PLAIN, data)

    assert [("a tuple", 1003), ("cart", 403), ("note", 353)] == largest
    assert MARKER not in repr(largest)


def test_session_too_large_says_by_how_much_and_why() -> None:
    """Size, limit, the largest entries and what to do. Case C40."""
    error = SessionTooLarge(9000, 7398, [("cart", 409), ("note", 359)])

    assert (9000, 7398, (("cart", 409), ("note", 359))) == (error.size, error.limit, error.largest)
    for part in ("9000 bytes", "7398", "cart (409 bytes), note (359 bytes)", "Cookie(max_chunks=...)"):
        assert part in str(error)
    assert isinstance(error, CookieSessionError)


def test_session_too_large_without_entries_speaks_of_none() -> None:
    """A model's fields are not known here. Case C40."""
    error = SessionTooLarge(9000, 7398)

    assert error.largest == ()
    assert "entries" not in str(error)
    assert "Cookie(max_chunks=...)" in str(error)


def test_invalid_token_is_its_reason_and_nothing_else() -> None:
    """Opaque: the reason is for the event. Case A17."""
    error = InvalidToken("forged")

    assert error.reason == "forged"
    assert error.args == ("forged",)
    assert isinstance(error, CookieSessionError)
