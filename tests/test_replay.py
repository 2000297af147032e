"""The replay of changes: every field of both, and none that somebody removed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession.replay import replay

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode

fields = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2) | st.lists(st.integers(0, 1), max_size=2))


def replayed(base: Any, mine: Any, theirs: Any) -> Any:
    """The same on what is encoded."""
    return decode(replay(encode(base), encode(mine), encode(theirs)))


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "expected"),
    [
        pytest.param({}, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}, id="both add"),
        pytest.param({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}, id="both change"),
        pytest.param({"a": 1, "b": 1}, {"b": 1}, {"a": 1}, {}, id="both remove"),
        pytest.param({"a": 1}, {}, {"a": 2}, {}, id="I remove what they change"),
        pytest.param({"a": 1}, {"a": 2}, {}, {"a": 2}, id="I change what they remove"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, id="both change one"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 2]}, id="a list is one field"),
        pytest.param({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"y": 1}}, {"a": {"x": 2}}, id="a map is one field"),
        pytest.param({1: "a"}, {1: "b"}, {1: "a", 2: "c"}, {1: "b", 2: "c"}, id="keys that are no text"),
        pytest.param({"a": 1}, {"a": 1.0}, {"a": 1}, {"a": 1.0}, id="another type is another value"),
        pytest.param([1, 2], [1, 3], [0, 2], [1, 3], id="an array is one field"),
        pytest.param([1, 2], [1, 2], [0, 2], [0, 2], id="an array that I leave"),
    ],
)
def test_changes_of_both_are_kept(base: Any, mine: Any, theirs: Any, expected: Any) -> None:
    """By field; what both changed is mine, the later one's."""
    merged = replayed(base, mine, theirs)

    assert expected == merged
    assert repr(expected) == repr(merged)


@given(fields, fields, fields)
def test_each_field_is_mine_where_i_changed_it(base: Any, mine: Any, theirs: Any) -> None:
    """And theirs where I did not, absent ones too."""
    merged = replayed(base, mine, theirs)

    for name in "abcdef":
        chosen = theirs if base.get(name) == mine.get(name) else mine
        assert chosen.get(name) == merged.get(name)


@given(fields, fields)
def test_who_changes_nothing_takes_over_everything(base: Any, other: Any) -> None:
    """On either side, byte for byte."""
    assert encode(other) == replay(encode(base), encode(base), encode(other))
    assert other == replayed(base, other, base)


@given(st.binary(), st.binary(), st.binary())
def test_bytes_that_are_no_map_are_one_field(base: bytes, mine: bytes, theirs: bytes) -> None:
    """Never an exception: the codec reads the result, and says what it thinks of it."""
    assert isinstance(replay(base, mine, theirs), bytes)
