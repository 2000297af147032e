"""A token over several cookies: cut and joined at every length, and no work done because a client says so."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import Cookie, InvalidToken, Key, KeyRing, envelope
from cookiesession.chunks import TRIES, capacity, gather, join, names, split
from cookiesession.cookies import LINE_LIMIT, MAX_CHUNKS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOM = 10

# Cookies as the scanner finds them: the rest of a name, and the value.
Found = list[tuple[bytes, bytes]]


def cookies_of(values: Sequence[bytes]) -> Found:
    """The cookies by which a browser sends the chunks back."""
    return [(name.removeprefix(b"s"), value) for name, value in zip(names(b"s"), values, strict=False)]


def candidates(cookies: Found, max_chunks: int = MAX_CHUNKS) -> list[list[bytes]]:
    """What might be a session, in the order of trying."""
    return [list(parts) for parts in gather(cookies, max_chunks)[1]]


def indexes(cookies: Found, max_chunks: int = MAX_CHUNKS) -> set[int]:
    """The chunks that are there, and will have to be deleted."""
    return set(gather(cookies, max_chunks)[0])


def tokens(cookies: Found, max_chunks: int = MAX_CHUNKS) -> list[bytes]:
    """The tokens that there are to be opened, in the order of trying."""
    joined = []
    for parts in gather(cookies, max_chunks)[1]:
        try:
            joined.append(join(parts))
        except InvalidToken:
            continue
    return joined


def reason_for(parts: Sequence[bytes]) -> str | None:
    """Why these chunks give no token, or None if they do."""
    try:
        join(parts)
    except InvalidToken as error:
        return error.reason
    return None


def text(length: int) -> bytes:
    """A token of that length in which every place can be told from its neighbours."""
    return (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklm" * (length // 39 + 1))[:length]


# Cutting and joining


def test_names_are_the_cookies_own_and_then_numbered() -> None:
    """From 1, one digit each. Case C34."""
    assert names(b"__Host-session") == (
        b"__Host-session",
        *(b"__Host-session.%d" % number for number in range(1, 9)),
    )


def test_short_token_is_one_cookie_without_a_count() -> None:
    """As on nearly every response."""
    assert [b"short"] == split(b"short", ROOM)
    assert join([b"short"]) == b"short"


def test_long_token_starts_with_its_count() -> None:
    """And a dot, which no token holds."""
    assert [b"3.ABCDEFGH", b"IJKLMNOPQR", b"STU"] == split(text(21), ROOM)
    assert text(21) == join([b"3.ABCDEFGH", b"IJKLMNOPQR", b"STU"])


@pytest.mark.parametrize("length", range(1, ROOM * MAX_CHUNKS - 1))
def test_token_of_every_length_comes_back(length: int) -> None:
    """In as few chunks as hold it, none longer than there is room for and none empty. Cases C34, C41."""
    values = split(text(length), ROOM)

    expected = 1 if length <= ROOM else -(-(length + 2) // ROOM)
    assert expected == len(values)
    assert all(0 < len(value) <= ROOM for value in values)
    assert all(len(value) == ROOM for value in values[:-1])
    assert [text(length)] == tokens(cookies_of(values))


@pytest.mark.parametrize("room", [ROOM, 3725])
@pytest.mark.parametrize("max_chunks", range(1, MAX_CHUNKS + 1))
def test_capacity_is_the_longest_token_that_fits(max_chunks: int, room: int) -> None:
    """One byte less and the capacity itself fit, one byte more does not. Case C40."""
    limit = capacity(room, max_chunks)

    assert max_chunks == len(split(text(limit - 1), room))
    assert max_chunks == len(split(text(limit), room))
    assert max_chunks + 1 == len(split(text(limit + 1), room))
    assert [text(limit)] == tokens(cookies_of(split(text(limit), room)), max_chunks)


@pytest.mark.parametrize("max_chunks", range(1, MAX_CHUNKS + 1))
def test_full_chunks_stay_within_their_lines(max_chunks: int) -> None:
    """A full session's lines have 3,800 bytes each, and none of its cookies 4,096. Cases C41, C42."""
    cookie = Cookie(max_chunks=max_chunks)
    values = split(text(capacity(cookie.room, max_chunks)), cookie.room)

    lines = [cookie.line(name, value, 2**40) for name, value in zip(names(cookie.full_name), values, strict=False)]

    assert max_chunks == len(lines)
    assert {LINE_LIMIT, LINE_LIMIT - 2} >= set(map(len, lines))


@given(
    token=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=", min_size=1, max_size=178).map(
        str.encode
    ),
    room=st.integers(20, 60),
    data=st.data(),
)
def test_token_comes_back_from_any_order_and_company(token: bytes, room: int, data: st.DataObject) -> None:
    """Whatever stands between its chunks and in whatever order they come. Case C34."""
    values = split(token, room)
    strangers = [(b"X", b"1"), (b".99", b"2"), (b".", b"3"), (b"-1", b"4")]
    cookies = data.draw(st.permutations(cookies_of(values) + strangers[: data.draw(st.integers(0, 4))]))

    assert [token] == tokens(cookies)
    assert set(range(len(values))) == indexes(cookies)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_chunks_are_joined_by_number(order: tuple[int, ...]) -> None:
    """Not by the order in the header. Case C34."""
    cookies = cookies_of(split(text(25), ROOM))

    assert [text(25)] == tokens([cookies[place] for place in order])


@pytest.mark.parametrize("blank", [b" ", b"\t", b" \t "], ids=repr)
def test_blanks_that_the_scanner_leaves_are_trimmed(blank: bytes) -> None:
    """Around values and behind names, and nothing but space and tab."""
    cookies = [(rest + blank, blank + value + blank) for rest, value in cookies_of(split(text(25), ROOM))]

    assert [text(25)] == tokens(cookies)
    assert tokens([(b"", blank + b"token" + blank)]) == [b"token"]
    assert tokens([(blank, b"token")]) == [b"token"]
    for other in (b"\xa0", b"\n", b"\x0b"):
        assert tokens([(b"", other + b"token" + other)]) == [other + b"token" + other]
        *first, (rest, value) = cookies_of(split(text(25), ROOM))
        assert tokens([*first, (rest, value + other)]) == [text(25) + other]


def test_no_cookie_gives_nothing() -> None:
    """Neither a candidate nor anything to delete."""
    assert candidates([]) == []
    assert indexes([]) == set()


@pytest.mark.parametrize("value", [b"token", b"2.token", b"", b"9", b"."], ids=repr)
def test_one_cookie_is_handled_as_it_would_be_among_strangers(value: bytes) -> None:
    """The short way for the usual request gives what the long way gives."""
    alone, among = [(b"", value)], [(b"X", b""), (b"", value)]

    assert candidates(among) == candidates(alone)
    assert indexes(among) == indexes(alone)


# Chunks that are missing, stale or mixed


@pytest.mark.parametrize("count", range(2, MAX_CHUNKS + 1))
def test_missing_chunk_gives_no_token(count: int) -> None:
    """The first, any in the middle or the last: no token, and the rest is known so that it can be deleted. Case C33."""
    cookies = cookies_of(split(text(ROOM * count - 2), ROOM))

    for missing in range(count):
        rest = cookies[:missing] + cookies[missing + 1 :]

        assert tokens(rest) == []
        assert set(range(count)) - {missing} == indexes(rest)
        assert {"incomplete"} == {reason_for(parts) for parts in candidates(rest)}


def test_first_chunk_alone_gives_no_token() -> None:
    """It names a count, and the others are not there. Case C33."""
    assert candidates([(b"", b"2.ABC")]) == [[b"2.ABC", b""]]
    assert reason_for([b"2.ABC", b""]) == "incomplete"


def test_stale_chunk_beside_a_shorter_session_is_passed_over_and_known() -> None:
    """The new session is read, and each index is known, over the fixed range, so that it is deleted. Case C35."""
    stale = cookies_of(split(text(ROOM * MAX_CHUNKS - 2), ROOM))
    fresh = cookies_of(split(text(15)[::-1], ROOM))

    cookies = fresh + stale[len(fresh) :]

    assert [text(15)[::-1]] == tokens(cookies)
    assert set(range(MAX_CHUNKS)) == indexes(cookies)


def test_whole_token_beside_chunks_is_read_alone() -> None:
    """The first cookie says that there are no others, whichever the browser sends first. Case C36."""
    cookies = [(b"", b"whole"), (b".1", b"stale"), (b".2", b"stale")]

    for order in permutations(cookies):
        assert tokens(list(order)) == [b"whole"]
        assert indexes(list(order)) == {0, 1, 2}


def test_chunks_of_two_seals_do_not_open() -> None:
    """Joined they are neither the one token nor the other, and the seal says so. Case C37."""
    key = Key.generate()
    binding = envelope.bind("cookie", b"s")
    one, other = (split(envelope.seal(bytes(100), key, binding, now=0), 60) for _ in range(2))

    joined = tokens(cookies_of([one[0], *other[1:]]))

    assert len(joined) == 1
    with pytest.raises(InvalidToken, match="forged"):
        envelope.open(joined[0], KeyRing(key), binding, now=0)
    assert envelope.open(join(one), KeyRing(key), binding, now=0)[0] == bytes(100)


# Numbers that we do not write

OTHER_INDEXES = {
    "zero": b".0",
    "leading-zero": b".01",
    "two-zeros": b".00",
    "plus": b".+1",
    "plus-zero": b".+0",
    "minus": b".-1",
    "nine": b".9",
    "ten": b".10",
    "huge": b".9999999999",
    "arabic-zero": ".\N{ARABIC-INDIC DIGIT ZERO}".encode(),
    "arabic-one": ".\N{ARABIC-INDIC DIGIT ONE}".encode(),
    "full-width-one": ".\N{FULLWIDTH DIGIT ONE}".encode(),
    "superscript-one": ".\N{SUPERSCRIPT ONE}".encode(),
    "latin-1-superscript": b".\xb9",
    "hexadecimal": b".0x1",
    "underscore": b".1_0",
    "float": b".1.0",
    "inner-space": b". 1",
    "leading-space": b" .1",
    "no-break-space": b".1\xa0",
    "newline": b".1\n",
    "nul": b".1\0",
    "dot": b".",
    "two-dots": b"..1",
    "dash": b"-1",
    "comma": b",1",
    "percent-dot": b"%2E1",
    "letter": b".a",
    "number-alone": b"1",
}


@pytest.mark.parametrize("index", OTHER_INDEXES.values(), ids=OTHER_INDEXES)
def test_index_that_we_do_not_write_is_ignored(index: bytes) -> None:
    """It is no chunk, whatever else would read it as a number, and it is not deleted. Case C38."""
    chunks = cookies_of(split(text(15), ROOM))

    assert candidates([(index, b"tossed")]) == []
    assert tokens([(index, b"tossed"), *chunks]) == [text(15)]
    assert indexes([(index, b"tossed"), *chunks]) == {0, 1}
    assert tokens([chunks[0], (index, chunks[1][1])]) == []


OTHER_COUNTS = {
    "zero": b"0.",
    "one": b"1.",
    "letter": b"a.",
    "minus": b"-.",
    "dot": b"..",
    "nul": b"\0.",
    "latin-1-superscript": b"\xb2.",
}


@pytest.mark.parametrize("count", OTHER_COUNTS.values(), ids=OTHER_COUNTS)
def test_count_that_we_do_not_write_is_refused(count: bytes) -> None:
    """Less than two chunks have no count, and a count is one ASCII digit. Case C39."""
    cookies = [(b"", count + b"ABC"), *((b".%d" % index, b"DEF") for index in range(1, 9))]

    found = candidates(cookies)

    assert [[count + b"ABC"]] == found
    assert reason_for(found[0]) == "chunk_count"


LONG_COUNTS = {
    "ten": b"10.",
    "leading-zero": b"02.",
    "plus": b"+2.",
    "minus": b"-1.",
    "2**31": b"2147483648.",
    "two-billion": b"2000000000.",
    "1000-digits": b"9" * 1000 + b".",
    "arabic-two": "\N{ARABIC-INDIC DIGIT TWO}.".encode(),
    "full-width-two": "\N{FULLWIDTH DIGIT TWO}.".encode(),
    "two-and-a-half": b"25.",
}


@pytest.mark.parametrize("count", LONG_COUNTS.values(), ids=LONG_COUNTS)
def test_count_of_more_than_a_digit_is_no_count(count: bytes) -> None:
    """It stays in the text, where the dot makes it no token; nothing is sized by it. Case C39."""
    cookies = [(b"", count + b"ABC"), *((b".%d" % index, b"DEF") for index in range(1, 9))]

    tracemalloc.start()
    found = tokens(cookies)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [count + b"ABC"] == found
    assert b"." in found[0]
    assert peak < 100_000


@pytest.mark.parametrize("max_chunks", range(1, MAX_CHUNKS))
def test_count_above_the_limit_of_the_reader_is_refused(max_chunks: int) -> None:
    """The limit that binds the writer binds the reader: nothing is joined beyond it. Case C39."""
    values = split(text(ROOM * (max_chunks + 1) - 2), ROOM)

    found = candidates(cookies_of(values), max_chunks)

    assert [[values[0]]] == found
    assert reason_for(found[0]) == "chunk_count"
    assert [join(values)] == tokens(cookies_of(values), max_chunks + 1)


def test_longer_than_one_line_is_refused() -> None:
    """A chunk that we would not have written is not decoded, however many there are."""
    assert reason_for([b"A" * LINE_LIMIT]) is None
    assert reason_for([b"A" * (LINE_LIMIT + 1)]) == "too_large"
    assert reason_for([b"2." + b"A" * 10, b"A" * (LINE_LIMIT + 1)]) == "too_large"
    assert reason_for([b"A" * 1_000_000]) == "too_large"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([b""], "incomplete", id="empty"),
        pytest.param([b"2.A", b""], "incomplete", id="empty-second"),
        pytest.param([b"3.A", b"B"], "chunk_count", id="one-less-than-counted"),
        pytest.param([b"2.A", b"B", b"C"], "chunk_count", id="one-more-than-counted"),
        pytest.param([b"2."], "chunk_count", id="count-alone"),
    ],
)
def test_parts_that_split_does_not_write_are_refused(parts: list[bytes], expected: str) -> None:
    """Empty chunks and counts that do not match."""
    assert expected == reason_for(parts)


# Duplicates


def test_duplicates_are_tried_in_the_order_they_came() -> None:
    """The first that opens wins, and no more than four are tried. Case C28."""
    assert TRIES == 4
    for number in range(1, 8):
        cookies = [(b"", b"token%d" % index) for index in range(number)]
        assert [[b"token%d" % index] for index in range(min(number, 4))] == candidates(cookies)


def test_duplicate_chunks_are_combined() -> None:
    """A tossed chunk beside ours costs a try, and not the session. Case C28."""
    ours = cookies_of(split(text(15), ROOM))

    assert text(15) in tokens([(b"", b"2.TOSSED"), (b".1", b"TOSSED"), *ours])
    assert text(15) in tokens([*ours, (b"", b"2.TOSSED"), (b".1", b"TOSSED")])
    assert text(15) in tokens([(b"", b"TOSSED"), *ours])
    assert text(15) in tokens([(b".1", b"TOSSED"), *ours])
    assert [text(15)] == tokens([*ours, (b".1", b"TOSSED")])[:1]


def test_duplicates_at_every_place_are_still_four_tries() -> None:
    """Not one for each of 2^9 combinations, nor for each of 100,000 cookies. Case C39."""
    many = [(suffix, b"9.A" if not suffix else b"B") for suffix, _ in cookies_of([b""] * 9) for _ in range(2)]
    flood = [(b"", b"9.A"), (b".1", b"B")] * 50_000

    assert len(candidates(many)) == 4
    assert len(candidates(flood)) == 4
    assert indexes(flood) == {0, 1}


def test_flood_of_chunks_is_combined_without_memory() -> None:
    """Of each chunk no more copies are looked at than there are tries. Case C39."""
    flood: Found = [(suffix, b"9.A" if not suffix else b"B") for suffix, _ in cookies_of([b""] * 9)] * 10_000

    tracemalloc.start()
    found = gather(flood, MAX_CHUNKS)[1]
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    tried = sum(1 for _ in found)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()

    assert tried == 4
    assert peak < 100_000


suffixes = st.sampled_from([b"", b".1", b".2", b".8", b".9", b".0", b" ", b"x", b".1 "])
hostile_values = st.sampled_from([b"", b"A", b"2.A", b"3.A", b"9.A", b"1.A", b"0.", b".", b"2.", b" A ", b"A" * 3801])


@given(
    st.lists(st.tuples(suffixes | st.binary(max_size=4), hostile_values | st.binary(max_size=8)), max_size=24),
    st.integers(1, MAX_CHUNKS),
)
def test_any_cookies_give_at_most_four_tokens_or_reasons(cookies: Found, max_chunks: int) -> None:
    """No other exception, no chunk beyond the limit, no index that is not ours. Cases C38, C39."""
    present, found = gather(cookies, max_chunks)
    parts_found = list(found)

    assert len(parts_found) <= TRIES
    assert set(present) <= set(range(MAX_CHUNKS))
    assert len(set(present)) == len(present)
    for parts in parts_found:
        assert 1 <= len(parts) <= max_chunks
        if reason_for(parts) is None:
            assert len(join(parts)) <= max_chunks * LINE_LIMIT
