"""Cookies in headers: no attribute that browsers refuse, no byte that ends a header, and a scanner that reads bytes."""

from __future__ import annotations

import copy
import dataclasses
import time
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cookiesession import ConfigurationError, Cookie
from cookiesession.cookies import LINE_LIMIT, MAX_AGE_LIMIT, MAX_CHUNKS, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = b"__Host-session"
BLANK = b" \t"


# Attributes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, b"__Host-session=v; Path=/; Secure; HttpOnly; SameSite=Lax", id="default"),
        pytest.param({"name": "sid"}, b"__Host-sid=v; Path=/; Secure; HttpOnly; SameSite=Lax", id="name"),
        pytest.param({"path": "/app"}, b"__Secure-session=v; Path=/app; Secure; HttpOnly; SameSite=Lax", id="path"),
        pytest.param(
            {"domain": "example.org"},
            b"__Secure-session=v; Path=/; Domain=example.org; Secure; HttpOnly; SameSite=Lax",
            id="domain",
        ),
        pytest.param({"secure": False}, b"session=v; Path=/; HttpOnly; SameSite=Lax", id="not-secure"),
        pytest.param(
            {"secure": False, "path": "/app", "domain": "example.org"},
            b"session=v; Path=/app; Domain=example.org; HttpOnly; SameSite=Lax",
            id="not-secure-path-domain",
        ),
        pytest.param(
            {"samesite": "strict"}, b"__Host-session=v; Path=/; Secure; HttpOnly; SameSite=Strict", id="strict"
        ),
        pytest.param({"samesite": "none"}, b"__Host-session=v; Path=/; Secure; HttpOnly; SameSite=None", id="none"),
        pytest.param(
            {"samesite": "none", "partitioned": True},
            b"__Host-session=v; Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
            id="partitioned",
        ),
        pytest.param({"prefix": ""}, b"session=v; Path=/; Secure; HttpOnly; SameSite=Lax", id="no-prefix"),
        pytest.param(
            {"prefix": "__Secure-"}, b"__Secure-session=v; Path=/; Secure; HttpOnly; SameSite=Lax", id="secure-prefix"
        ),
        pytest.param(
            {"prefix": "__Host-"}, b"__Host-session=v; Path=/; Secure; HttpOnly; SameSite=Lax", id="host-prefix"
        ),
    ],
)
def test_line_is_exactly_what_the_attributes_say(options: dict[str, Any], expected: bytes) -> None:
    """Name with prefix, value, and each attribute once. The prefix is the strictest that the attributes allow."""
    cookie = Cookie(**options)

    assert expected == cookie.line(cookie.full_name, b"v", None)
    assert expected.partition(b"=")[0] == cookie.full_name


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [
        pytest.param(None, b"", id="with-the-browser"),
        pytest.param(-1, b"; Max-Age=0", id="a-second-ago"),
        pytest.param(0, b"; Max-Age=0", id="at-once"),
        pytest.param(1, b"; Max-Age=1", id="a-second"),
        pytest.param(34_560_000, b"; Max-Age=34560000", id="400-days"),
        pytest.param(34_560_001, b"; Max-Age=34560000", id="a-second-more"),
        pytest.param(2**63, b"; Max-Age=34560000", id="2**63"),
    ],
)
def test_max_age_is_capped_at_400_days(max_age: int | None, expected: bytes) -> None:
    """Browsers cap it, and some parsers break on more digits. Case C45, RUSTSEC-2017-0005."""
    line = Cookie().line(b"n", b"v", max_age)

    assert b"n=v; Path=/; Secure; HttpOnly; SameSite=Lax" + expected == line
    assert timedelta(days=400) == timedelta(seconds=MAX_AGE_LIMIT)


@pytest.mark.parametrize(
    "options",
    [{}, {"path": "/app"}, {"domain": "example.org"}, {"secure": False}, {"partitioned": True}],
    ids=["host", "path", "domain", "not-secure", "partitioned"],
)
def test_deletion_carries_every_attribute(options: dict[str, Any]) -> None:
    """Browsers ignore the deletion of a `__Host-` cookie without `Secure` and `Path=/`."""
    cookie = Cookie(**options)

    written = cookie.line(cookie.full_name, b"v", 60).split(b"; ")
    deleted = cookie.line(cookie.full_name, b"", 0).split(b"; ")

    assert cookie.full_name + b"=" == deleted[0]
    assert written[1:-1] == deleted[1:-1]
    assert deleted[-1] == b"Max-Age=0"


BAD_BYTES = {
    "cr": "\r",
    "lf": "\n",
    "crlf-header": "\r\nX-Injected: 1",
    "semicolon": ";",
    "attribute": "; Domain=evil.example",
    "nul": "\0",
    "tab": "\t",
    "escape": "\x1b",
    "delete": "\x7f",
    "latin-1": "é",
    "nbsp": "\xa0",
    "next-line": "\x85",
    "line-separator": "\u2028",
    "surrogate": "\ud800",
}


@pytest.mark.parametrize("where", ["{}x", "x{}y", "x{}"], ids=["start", "middle", "end"])
@pytest.mark.parametrize("bad", BAD_BYTES.values(), ids=BAD_BYTES)
@pytest.mark.parametrize("attribute", ["name", "path", "domain"])
def test_byte_that_could_end_an_attribute_is_refused(attribute: str, bad: str, where: str) -> None:
    """Wherever it stands, at construction. Case C44, CVE-2024-47764, CVE-2026-0672."""
    options: dict[str, Any] = {attribute: "/" * (attribute == "path") + where.format(bad)}

    with pytest.raises(ConfigurationError):
        Cookie(**options)


@pytest.mark.parametrize("path", ["/a b", "/a ", "/ ", " /a"], ids=repr)
def test_space_in_a_path_is_refused(path: str) -> None:
    """Browsers trim it at the end, so that the cookie has another path than it says. Case C44."""
    with pytest.raises(ConfigurationError):
        Cookie(path=path)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a,b", 'a"b', "a(b", "a/b", "a\\b", "a{b", "a@b", "a:b", "a?b"])
def test_name_that_is_no_token_is_refused(name: str) -> None:
    """RFC 9110 says what a token is; others are quoted by some and cut by others. Case C44."""
    with pytest.raises(ConfigurationError, match="name is a token"):
        Cookie(name=name)


@pytest.mark.parametrize("name", ["!#$%&'*+-.^_`|~", "SESSION", "s", "0", "a.b", "session.x1", "1.x", "a." + "b" * 100])
def test_name_that_is_a_token_is_taken(name: str) -> None:
    """And stands in the line as it is."""
    assert name.encode() == Cookie(name=name, prefix="").full_name


@pytest.mark.parametrize("name", ["session.1", "a.0", "a.b.10", ".1"])
def test_name_that_looks_like_a_chunk_is_refused(name: str) -> None:
    """Two cookies of one application would be chunks of each other."""
    with pytest.raises(ConfigurationError, match="dot and digits"):
        Cookie(name=name)


@pytest.mark.parametrize("name", ["__Host-session", "__Secure-session", "__host-session", "__SECURE-x", "__Host-"])
@pytest.mark.parametrize("prefix", [None, ""], ids=["chosen", "none"])
def test_name_with_a_prefix_is_refused(name: str, prefix: Any) -> None:
    """In any case, which browsers do not tell apart: the prefix follows from the attributes. Case C46."""
    with pytest.raises(ConfigurationError, match="without its prefix"):
        Cookie(name=name, prefix=prefix)


@pytest.mark.parametrize("path", ["", "app", "./", "*", "\\", "http://example.org/", "/" + "a" * 1024], ids=repr)
def test_path_that_browsers_ignore_is_refused(path: str) -> None:
    """One that does not start with a slash, or is over 1,024 bytes long. Case C44."""
    with pytest.raises(ConfigurationError, match="path starts with /"):
        Cookie(path=path)


@pytest.mark.parametrize("path", ["/", "/app", "/app/", "/%C3%A9", "/a,b=c", "/~!", "/" + "a" * 1023], ids=repr)
def test_path_of_printable_ascii_is_taken(path: str) -> None:
    """And stands in the line as it is."""
    assert f"; Path={path}; ".encode() in Cookie(path=path).line(b"n", b"v", None)


@pytest.mark.parametrize(
    "domain",
    [
        "",
        ".example.org",
        "example.org.",
        "-example.org",
        "example.org-",
        "exa mple.org",
        "a_b.org",
        "a/b",
        "a:80",
        "*.a",
        "a." * 127 + "a",
    ],
)
def test_domain_that_is_no_host_name_is_refused(domain: str) -> None:
    """Case C44."""
    with pytest.raises(ConfigurationError, match="domain is a host name"):
        Cookie(domain=domain)


@pytest.mark.parametrize("domain", ["example.org", "a", "xn--bcher-kva.example", "127.0.0.1", "a." * 126 + "a"])
def test_domain_that_is_a_host_name_is_taken(domain: str) -> None:
    """And stands in the line as it is."""
    assert f"; Domain={domain}; ".encode() in Cookie(domain=domain).line(b"n", b"v", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"prefix": "__Host-", "domain": "example.org"}, "needs path='/' and no domain", id="host-domain"),
        pytest.param({"prefix": "__Host-", "path": "/app"}, "needs path='/' and no domain", id="host-path"),
        pytest.param({"prefix": "__Host-", "secure": False}, "needs secure=True", id="host-not-secure"),
        pytest.param({"prefix": "__Secure-", "secure": False}, "needs secure=True", id="secure-not-secure"),
        pytest.param({"samesite": "none", "secure": False}, "SameSite=None without", id="none-not-secure"),
        pytest.param({"partitioned": True, "secure": False}, "Partitioned without", id="partitioned-not-secure"),
        pytest.param({"samesite": "Lax"}, "samesite is", id="samesite-in-capitals"),
        pytest.param({"samesite": ""}, "samesite is", id="samesite-empty"),
        pytest.param({"samesite": None}, "samesite is", id="samesite-none"),
        pytest.param({"samesite": "lax; Domain=evil.example"}, "samesite is", id="samesite-injection"),
        pytest.param({"prefix": "__host-"}, "prefix is", id="prefix-in-lower-case"),
        pytest.param({"prefix": "__Http-"}, "prefix is", id="prefix-unknown"),
        pytest.param({"max_chunks": 0}, "max_chunks is 1 to 9", id="no-chunks"),
        pytest.param({"max_chunks": -1}, "max_chunks is 1 to 9", id="negative-chunks"),
        pytest.param({"max_chunks": 10}, "max_chunks is 1 to 9", id="10-chunks"),
        pytest.param({"max_chunks": 2**63}, "max_chunks is 1 to 9", id="2**63-chunks"),
        pytest.param({"max_chunks": 2.0}, "max_chunks is 1 to 9", id="float-chunks"),
        pytest.param({"max_chunks": float("nan")}, "max_chunks is 1 to 9", id="nan-chunks"),
        pytest.param({"max_chunks": "2"}, "max_chunks is 1 to 9", id="text-chunks"),
        pytest.param({"name": "n" * 2800}, "no room", id="long-name"),
        pytest.param(
            {"name": "n" * 1500, "path": "/" + "p" * 1000, "domain": "d." * 126 + "d"}, "no room", id="all-long"
        ),
    ],
)
def test_attributes_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    """By the constructor, with what is wrong: a browser would drop the cookie without a word. Cases C45, C46."""
    with pytest.raises(ConfigurationError, match=message):
        Cookie(**options)


def test_defaults_are_the_safe_ones() -> None:
    """And every attribute is given by name."""
    explicit = Cookie(
        name="session",
        path="/",
        domain=None,
        secure=True,
        samesite="lax",
        partitioned=False,
        prefix=None,
        max_chunks=2,
    )
    positional: Any = Cookie

    assert explicit == Cookie()
    with pytest.raises(TypeError):
        positional("session")


def test_cookie_is_a_value() -> None:
    """Frozen, equal by its attributes, a key of dicts, and copied with its attributes."""
    cookie = Cookie(name="sid")

    with pytest.raises(dataclasses.FrozenInstanceError):
        cookie.name = "other"  # type: ignore[misc]  # what is refused
    assert Cookie(name="sid") == cookie == copy.deepcopy(cookie)
    assert {cookie: 1}[Cookie(name="sid")] == 1
    assert dataclasses.replace(cookie, path="/app").full_name == b"__Secure-sid"


fragments = st.text(st.characters(codec=None, categories=None), max_size=30) | st.sampled_from(
    ["/", "a", "/app", "example.org"]
)


@given(
    name=fragments,
    path=fragments | fragments.map("/".__add__),
    domain=st.none() | fragments,
    value=st.binary(max_size=20).map(bytes.hex).map(str.encode),
    max_age=st.none() | st.integers(0, 2**70),
)
@example(name="session", path="/\r\nX: 1", domain=None, value=b"", max_age=None)
@example(name="session", path="/app", domain="example.org", value=b"v", max_age=60)
def test_no_line_ever_holds_a_stray_byte(
    name: str, path: str, domain: str | None, value: bytes, max_age: int | None
) -> None:
    """Whatever the configuration, it is refused or its line has no control and no separator but its own. Case C44."""
    try:
        cookie = Cookie(name=name, path=path, domain=domain)
    except ConfigurationError:
        return

    line = cookie.line(cookie.full_name, value, max_age)

    assert all(0x20 <= byte < 0x7F for byte in line)
    assert 4 + (domain is not None) + (max_age is not None) == line.count(b";") == line.count(b"; ")
    assert line.startswith(cookie.full_name + b"=" + value + b";")


# Room


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, 3725, id="default"),
        pytest.param({"secure": False}, 3740, id="not-secure"),
        pytest.param({"domain": "example.org", "path": "/app", "samesite": "strict"}, 3697, id="more-attributes"),
    ],
)
def test_room_is_what_is_left_of_3800_bytes(options: dict[str, Any], expected: int) -> None:
    """For the value, beside the longest name, age and attributes of a chunk. Cases C41, C42."""
    cookie = Cookie(**options)

    lines = [
        cookie.line(cookie.full_name + suffix, b"v" * cookie.room, age)
        for suffix in (b"", b".1", b".8")
        for age in (None, 1, MAX_AGE_LIMIT)
    ]

    assert expected == cookie.room
    assert max(map(len, lines)) == LINE_LIMIT == 3800


def test_name_and_value_stay_below_the_limit_of_browsers() -> None:
    """4,096 bytes of name and value, above which browsers drop a cookie without a word. Case C41."""
    cookie = Cookie(name="n" * 500)

    assert len(cookie.full_name) + len(".8") + cookie.room < 4096


def test_most_chunks_are_named_by_one_digit() -> None:
    """The room of a cookie counts on it. Case C34."""
    assert MAX_CHUNKS == 9
    assert Cookie(max_chunks=9).room == Cookie(max_chunks=1).room


# The scanner


def trimmed(found: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What the caller of `read()` makes of it."""
    return [(rest.rstrip(BLANK), value.strip(BLANK)) for rest, value in found]


def scan(*values: bytes, name: bytes = NAME) -> list[tuple[bytes, bytes]]:
    """What the scanner finds in the `cookie` headers of a request."""
    return trimmed(read([(b"cookie", value) for value in values], name))


def obvious(*values: bytes, name: bytes = NAME) -> list[tuple[bytes, bytes]]:
    """The same, slowly: split on ";" and at the first "=", trim space and tab, compare bytes."""
    found = []
    for value in values:
        for pair in value.split(b";"):
            left, equals, right = pair.partition(b"=")
            left = left.strip(BLANK)
            if equals and left.startswith(name):
                found.append((left[len(name) :], right.strip(BLANK)))
    return found


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(b"__Host-session=v", [(b"", b"v")], id="alone"),
        pytest.param(b"a=1; __Host-session=v; b=2", [(b"", b"v")], id="between-others"),
        pytest.param(b"a=1;__Host-session=v;b=2", [(b"", b"v")], id="without-spaces"),
        pytest.param(b" \t__Host-session \t=\t v \t; b=2", [(b"", b"v")], id="spaces-and-tabs"),
        pytest.param(b"__Host-session=2.a; __Host-session.1=b", [(b"", b"2.a"), (b".1", b"b")], id="chunks"),
        pytest.param(b"__Host-session.1=b; __Host-session=2.a", [(b".1", b"b"), (b"", b"2.a")], id="in-their-order"),
        pytest.param(b"__Host-session=a; __Host-session=b", [(b"", b"a"), (b"", b"b")], id="duplicates"),
        pytest.param(b"__Host-session=a=b==", [(b"", b"a=b==")], id="equals-signs"),
        pytest.param(b'__Host-session="v"', [(b"", b'"v"')], id="quotes-are-kept"),
        pytest.param(rb'__Host-session="\166\"', [(b"", rb'"\166\"')], id="escapes-are-kept"),
        pytest.param(b"__Host-session=%41+b", [(b"", b"%41+b")], id="percent-is-kept"),
        pytest.param(b'__Host-session="a;b"', [(b"", b'"a')], id="quotes-do-not-hold"),
        pytest.param(b"__Host-session=a,b", [(b"", b"a,b")], id="comma"),
        pytest.param(b"__Host-session=", [(b"", b"")], id="empty"),
        pytest.param(b"__Host-session= ;", [(b"", b"")], id="blank"),
        pytest.param(b"__Host-session", [], id="no-equals-sign"),
        pytest.param(b"__Host-session; =v", [], id="equals-sign-elsewhere"),
        pytest.param(b"a=__Host-session=v", [], id="in-a-value"),
        pytest.param(b'a="; __Host-session=v"', [(b"", b'v"')], id="in-a-quoted-value"),
        pytest.param(b"x__Host-session=v", [], id="longer-in-front"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b";;; ; =;==;", [], id="separators"),
    ],
)
def test_header_is_split_and_trimmed_and_nothing_more(header: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    """On ";" and at the first "=", space and tab; no unquoting and no decoding."""
    assert expected == scan(header)
    assert expected == obvious(header)


IMPOSTORS = {
    "nbsp": b"\xa0__Host-session",
    "next-line": b"\x85__Host-session",
    "file-separator": b"\x1c__Host-session",
    "unit-separator": b"\x1f__Host-session",
    "utf-8-nbsp": b"\xc2\xa0__Host-session",
    "en-quad": b"\xe2\x80\x80__Host-session",
    "vertical-tab": b"\x0b__Host-session",
    "form-feed": b"\x0c__Host-session",
    "newline": b"\n__Host-session",
    "return": b"\r__Host-session",
    "nul": b"\0__Host-session",
    "trailing-nbsp": b"__Host-session\xa0",
    "trailing-next-line": b"__Host-session\x85",
    "trailing-newline": b"__Host-session\n",
    "trailing-nul": b"__Host-session\0",
    "percent-encoded": b"%5F%5FHost-session",
    "half-percent-encoded": b"__Host%2Dsession",
    "lower-case": b"__host-session",
    "upper-case": b"__HOST-SESSION",
    "other-case": b"__Host-Session",
    "quoted": b'"__Host-session"',
    "brackets": b"__Host-session[]",
    "comma": b",__Host-session",
    "other-prefix": b"__Secure-session",
    "no-prefix": b"session",
    "full-width": "\N{FULLWIDTH LOW LINE}_Host-session".encode(),
    "long-s": "__Ho\N{LATIN SMALL LETTER LONG S}t-session".encode(),
    "inner-space": b"__Host- session",
    "utf-16": "__Host-session".encode("utf-16-le"),
}


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
@pytest.mark.parametrize(
    "header", [b"%s=tossed; __Host-session=good", b"__Host-session=good; %s=tossed"], ids=["before", "after"]
)
def test_name_that_is_not_ours_byte_for_byte_is_not_ours(header: bytes, impostor: bytes) -> None:
    """Browsers let others set it, so nothing may turn it into ours. Case C27, CVE-2026-39410, CVE-2020-8184."""
    found = scan(header % impostor)

    assert [b"good"] == [value for rest, value in found if rest == b""]
    assert all(rest in (b"", impostor[len(NAME) :]) for rest, _ in found)


@pytest.mark.parametrize(
    "header", [b"=__Host-session=x", b" = __Host-session=x", b"==__Host-session=x", b"a=1; =__Host-session=x; b=2"]
)
def test_nameless_cookie_is_ignored(header: bytes) -> None:
    """Its value is not a name. Case C29, CVE-2023-23934."""
    assert scan(header) == []


def test_all_cookie_headers_are_read_in_order() -> None:
    """HTTP/2 sends the cookie in crumbs. Case C47."""
    assert scan(b"__Host-session=2.a", b"b=1", b"__Host-session.1=c; __Host-session=d") == [
        (b"", b"2.a"),
        (b".1", b"c"),
        (b"", b"d"),
    ]


def test_crumbs_are_not_glued_together() -> None:
    """A header ends a cookie as a semicolon does. Case C47."""
    assert scan(b"__Host-", b"session=v") == []
    assert scan(b"a=", b"__Host-session=v") == [(b"", b"v")]


def test_other_headers_are_not_read() -> None:
    """Only `cookie`, in the lower case that ASGI gives."""
    header = b"__Host-session=v"

    assert read([(name, header) for name in (b"set-cookie", b"cookie2", b"x-cookie", b"Cookie", b"")], NAME) == []


@pytest.mark.parametrize("byte", range(0x80, 0x100), ids=hex)
def test_byte_above_ascii_is_passed_through(byte: int) -> None:
    """In a value it stays; before or after a name it makes another name. Case C48."""
    raw = bytes([byte])

    assert scan(b"__Host-session=" + raw + b"v" + raw) == [(b"", raw + b"v" + raw)]
    assert scan(raw + b"__Host-session=v") == []
    assert scan(b"__Host-session" + raw + b"=v") == [(raw, b"v")]


@pytest.mark.parametrize("name", [b"s", b"a.b", b"$x", b"a*", b"x|y", b"^a", b"session"], ids=bytes.decode)
def test_name_is_no_pattern(name: bytes) -> None:
    """Characters that mean something to a regular expression stand for themselves."""
    assert scan(b"aXb=1; xyz=2; axb=3; aaa=4; y=5; " + name + b"=v", name=name)[-1] == (b"", b"v")
    assert len(scan(b"zzz=1; " + name + b"=v", name=name)) == 1


pieces = st.sampled_from(
    [
        b";",
        b"=",
        b" ",
        b"\t",
        b"; ",
        b"a",
        b".1",
        b"\n",
        b"\xa0",
        b"\0",
        b'"',
        b"\\",
        b"%",
        NAME,
        NAME + b"=",
        b"__Host-",
    ]
)
raw_headers = st.lists(st.lists(pieces, max_size=25).map(b"".join) | st.binary(max_size=60), max_size=3)


@given(raw_headers, st.sampled_from([NAME, b"a", b"session"]))
def test_scanner_agrees_with_the_obvious_one(values: list[bytes], name: bytes) -> None:
    """On any bytes in any number of headers. Cases C27, C47, C48."""
    assert obvious(*values, name=name) == scan(*values, name=name)


def test_scanner_agrees_on_the_cases_of_http_state(foreign_vectors: Callable[[str], Any]) -> None:
    """The strange cookies that browsers were tested with, for each name that is in them. Case C48."""
    cases = foreign_vectors("http_state_parser.json")
    names = {b"foo", NAME, *(cookie["name"].encode() for case in cases for cookie in case["sent"])} - {b""}
    headers = [[line.encode() for line in case["received"]] for case in cases]
    headers += [[f"{cookie['name']}={cookie['value']}".encode() for cookie in case["sent"]] for case in cases]
    headers += [[b"; ".join(lines)] for lines in headers]
    found = 0

    for lines in headers:
        for name in names:
            expected = obvious(*lines, name=name)
            found += len(expected)
            assert expected == scan(*lines, name=name), (lines, name)

    assert len(cases) == 222
    assert found > 400


def test_as_many_cookies_are_read_as_a_browser_sends() -> None:
    """Chromium keeps 180 of a site. What comes after 200 that might be ours is somebody's attempt to make us busy."""
    others = b"".join(b"%d__Host-session=x; " % number for number in range(199))
    header = others + b"__Host-session=read; __Host-session=not-read"

    assert scan(header) == [(b"", b"read")]
    assert len(scan(b"__Host-session=v; " * 300)) == 200
    assert len(scan(*[b"__Host-session=v"] * 300)) == 300


# The cost of the scanner

SHAPES: dict[str, tuple[bytes, bytes, bytes]] = {
    "escaped-quotes": (b'__Host-session="', rb"\"", b'"'),
    "unfinished-escapes": (b'__Host-session="', b"\\", b""),
    "empty-cookies": (b"", b"a=;", b""),
    "empty-cookies-of-ours": (b"", b"__Host-session=;", b""),
    "semicolons": (b"", b";", b""),
    "semicolons-and-spaces": (b"", b"; ", b""),
    "spaces": (b"", b" ", b"__Host-session"),
    "spaces-before-no-value": (b"__Host-session", b" ", b""),
    "spaces-in-a-value": (b"__Host-session= ", b" ", b";"),
    "tabs-after-every-semicolon": (b"", b";\t\t\t\t\t\t\t", b""),
    "equals-signs": (b"", b"=", b""),
    "our-name-without-end": (b"", b"__Host-session", b""),
    "our-name-cut": (b"", b";__Host-sessio", b""),
    "our-name-without-value": (b"", b";__Host-session", b""),
}


def cost(header: bytes) -> float:
    """Seconds of this thread for one scan: the best of several, which is what the machine does when left alone."""
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        read([(b"cookie", header)], NAME)
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scan_is_linear_in_the_header(shape: tuple[bytes, bytes, bytes]) -> None:
    """16 times the bytes cost about 16 times as much, and not 256 times. Cases C30, C31, CVE-2024-7592."""
    start, unit, end = shape
    small, large = (start + unit * (size // len(unit)) + end for size in (2**16, 2**20))

    ratio = cost(large) / max(cost(small), 1e-5)

    assert ratio < 100


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scan_takes_memory_for_what_is_ours_alone(shape: tuple[bytes, bytes, bytes]) -> None:
    """A copy or two of the header, and what was found; a million cookies of others leave nothing. Case C31."""
    start, unit, end = shape
    header = start + unit * (3_000_000 // len(unit)) + end

    tracemalloc.start()
    found = read([(b"cookie", header)], NAME)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2.5 * len(header) + 250 * len(found)
    assert found == [] or NAME + b"=" in header


@pytest.mark.parametrize(
    "options",
    [
        {"name": None},
        {"name": b"x"},
        {"path": None},
        {"domain": 5},
        {"domain": "a..b"},
        {"domain": "a.-b"},
        {"domain": "a" * 64 + ".org"},
        {"max_chunks": True},
        {"secure": "no"},
        {"secure": None},
        {"partitioned": 1},
    ],
    ids=str,
)
def test_attributes_of_another_type_or_form_are_configuration_errors(options: dict[str, Any]) -> None:
    """Each with what it should be. Case C44."""
    with pytest.raises(ConfigurationError):
        Cookie(**options)
