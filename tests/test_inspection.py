"""Inspection: what a token holds, every reason why one does not open, and no exception for any bytes."""

from __future__ import annotations

import asyncio
import struct
from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest
from harness import START
from hypothesis import example, given
from hypothesis import strategies as st
from refusals import (
    AES,
    DATA,
    DAY,
    FERNET,
    ID,
    KEY,
    KEYS,
    NAME,
    PIECES,
    REFUSALS,
    RING,
    SECRETS,
    STRANGER,
    Visitor,
    payload,
    scheduled,
    sealed,
    token,
)

from cookiesession import ConfigurationError, Cookie, Key, KeyRing, SessionManager, base64url
from cookiesession.codec import Extension, extend
from cookiesession.errors import Reason
from cookiesession.events import Reporter
from cookiesession.inspection import inspect
from cookiesession.inspection.diagnosis import explain
from cookiesession.inspection.report import Header, Report, span, when
from cookiesession.payload import LAST_SECOND, PERSISTENT, pack
from cookiesession.schedule import Schedule
from cookiesession.stores.memory import MemoryStore
from cookiesession.testing import cookies_for

every_algorithm = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


def report_on(text: bytes, keys: KeyRing | Schedule = RING, **options: Any) -> Report:
    """The one report on a text."""
    [report] = inspect(text, keys, **{"now": START, **options}).reports
    return report


# What opens


@every_algorithm
def test_live_token_gives_all_that_is_in_it(key: Key) -> None:
    """Header, key, times, flags, subject and data; but neither the session's id nor a secret."""
    text = token(key, subject="ada", idle_timeout=1800, renewed_at=START - 60, created_at=START - DAY)

    report = report_on(text)

    assert (None, NAME, text) == (report.reason, report.name, report.token)
    assert "it opens, and lives for another 29m if it is not used" == explain(report)
    assert report.header is not None
    assert (key.id, key.algorithm) == (report.header.key_id, report.header.algorithm)
    assert (0x80 if key is FERNET else 1) == report.header.version
    assert (START if key is FERNET else None) == report.header.sealed_at
    assert report.header.key is not None
    assert ("primary" if key is KEY else "active") == report.header.key.state
    assert report.contents is not None
    opened = report.contents.payload
    assert (START - DAY, START - 60, START + DAY) == (opened.created_at, opened.renewed_at, opened.expires_at)
    assert (1800, "ada", b"") == (opened.idle_timeout, opened.subject, opened.id)
    assert DATA == report.contents.data
    assert not report.contents.is_compressed


@every_algorithm
def test_sizes_add_up(key: Key) -> None:
    """A plaintext is header, encoded part and padding; an envelope is header, nonce, ciphertext and tag."""
    plaintext = pack(payload(subject="ada"))

    report = report_on(sealed(plaintext, key))

    assert report.header is not None
    assert report.contents is not None
    encoded = len(extend(msgspec.msgpack.encode(DATA), Extension("ada")))
    assert len(plaintext) == report.contents.length == 33 + encoded + report.contents.padding
    assert encoded == report.contents.encoded
    assert len(base64url.decode(report.token.rstrip(b"="))) == report.header.length
    nonce = report.header.nonce or 0
    if key is FERNET:  # version, time, vector, digest and plaintext in whole blocks of 16, MAC
        assert 1 + 8 + nonce + (32 + len(plaintext)) // 16 * 16 + 16 + 32 == report.header.length
    else:
        assert 1 + 4 + nonce + len(plaintext) + 16 == report.header.length


def test_compressed_session_is_shown_as_such() -> None:
    """With the data's size before and after."""
    data = {"text": "tea " * 300}

    report = report_on(sealed(pack(payload(data), compress=True)))

    assert report.contents is not None
    assert report.contents.is_compressed
    assert report.contents.encoded < 100 < len(report.contents.payload.data)
    assert data == report.contents.data


def test_model_accepts_what_the_server_accepts() -> None:
    """The data is shown as it is, without the model's defaults."""
    report = report_on(token(data={"user_id": "42"}), model=Visitor)

    assert report.reason is None
    assert report.contents is not None
    assert {"user_id": "42"} == report.contents.data


def test_data_of_a_model_may_be_no_dict() -> None:
    """Without a model, any plain data is accepted."""
    assert report_on(token(data=["a", 1])).reason is None


# What a store has


def stored(**options: Any) -> tuple[SessionManager[Any], bytes]:
    """A manager whose sessions are in a store, and a cookie of it."""
    manager: SessionManager[Any] = SessionManager(RING, store=MemoryStore(), clock=lambda: START, **options)
    session = manager.session([])
    session.data["text"] = "x" * 20_000
    [(_, line)] = asyncio.run(manager.save(session))
    return manager, line.partition(b";")[0]


@pytest.mark.parametrize("overflow", [False, True], ids=["always", "overflow"])
@pytest.mark.parametrize("model", [None, Visitor], ids=["dict", "model"])
def test_id_of_a_session_in_a_store_is_told_from_a_session(model: Any, *, overflow: bool) -> None:
    """It is live as far as anybody can tell who does not ask the store."""
    _, cookie = stored(overflow=overflow)

    report = report_on(cookie, model=model)

    assert report.reason is None
    assert explain(report).startswith("it opens, and names a session in a store, which lives for another 14d at most")
    assert report.contents is not None
    assert (True, True, None) == (report.contents.is_ticket, report.contents.is_readable, report.contents.data)
    assert b"" == report.contents.payload.id


@pytest.mark.parametrize(
    ("seconds", "reason", "words"),
    [
        (-120, "future", "it was made at"),
        (14 * DAY - 1, None, "which lives for another 1s at most"),
        (14 * DAY, "expired", "its lifetime ended at"),
    ],
)
def test_id_in_a_cookie_is_as_old_as_the_server_finds_it(seconds: int, reason: Reason | None, words: str) -> None:
    """The verdict is that of the manager, which asks no store about what is over."""
    manager, cookie = stored()
    events: list[Any] = []
    reporter = Reporter(events.append, lambda: START)
    later_manager = manager.with_configuration(clock=lambda: START + seconds, reporter=reporter)
    later = later_manager.session([(b"cookie", cookie)])
    asyncio.run(later_manager.load(later))

    report = report_on(cookie, now=START + seconds)

    assert reason == report.reason
    assert words in explain(report)
    assert [reason] == [getattr(event, "reason", None) for event in events[:1]]


def test_id_for_another_cookie_names_that() -> None:
    """Whatever a token holds, it is for one name."""
    _, cookie = stored(cookie=Cookie(name="session", secure=False))

    report = report_on(NAME + b"=" + cookie.partition(b"=")[2])

    assert ("forged", b"session") == (report.reason, report.other_name)


# Where it is found


def test_header_is_read_as_the_server_reads_it() -> None:
    """With or without its name, in lines, as curl shows them, or as a response sets them."""
    text = token()
    pair = NAME + b"=" + text

    for header in (
        pair,
        b"a=b; " + pair + b" ; c=d",
        b"Cookie: a=b; " + pair,
        b"cookie:" + pair + b"\r\n",
        b"a=b\n" + pair + b"\n",
        b"GET / HTTP/1.1\r\nHost: x=y; z\r\nCookie: a=b\r\nCookie: " + pair + b"\r\n\r\n",
        b"> GET / HTTP/2\n> cookie: " + pair,
        b"< set-cookie: " + pair + b"; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=86400",
        b"Set-Cookie: other=1; Path=/\nSet-Cookie: " + pair + b"; Path=/",
        b"  " + text + b"\r\n",
    ):
        assert text == report_on(header).token


def test_attributes_of_a_set_cookie_line_are_no_cookies() -> None:
    """They follow the first semicolon."""
    found = inspect(b"Set-Cookie: a=b; session=" + token(name=b"session"), RING, now=START)

    assert ((), (b"a",)) == (found.reports, found.present)


@pytest.mark.parametrize(("name", "expected"), [("session", b"session"), ("__Secure-session", b"__Secure-session")])
def test_relatives_of_the_name_are_looked_for(name: str, expected: bytes) -> None:
    """An application without TLS, or with a domain, has another prefix."""
    found = inspect(f"{name}=".encode() + token(name=expected), RING, now=START)

    assert found.is_live
    assert expected == found.name


def test_name_itself_goes_before_its_relatives() -> None:
    """As a server would not look at them at all."""
    found = inspect(b"session=x; __Host-session=" + token(), RING, now=START)

    assert (NAME, True, (b"session", NAME)) == (found.name, found.is_live, found.present)


def test_relatives_are_those_of_the_name_given() -> None:
    """Of whatever name."""
    found = inspect(b"sid=" + token(name=b"sid"), RING, name=b"__Host-sid", now=START)

    assert (b"sid", True) == (found.name, found.is_live)


@pytest.mark.parametrize("name", [b"", b"__Host-", b"__secure-"])
def test_name_that_is_no_more_than_a_prefix_names_no_cookie(name: bytes) -> None:
    """Nor does what is left without the prefix."""
    found = inspect(NAME + b"=" + token(), RING, name=name, now=START)

    assert ((), name) == (found.reports, found.name)


def test_cookie_that_is_not_there_is_no_report() -> None:
    """The names that are there may tell why."""
    found = inspect(b"Cookie: a=1; __Host-sessions=x; b=2; a=3", RING, now=START)

    assert ((), False) == (found.reports, found.is_live)
    assert (b"a", b"__Host-sessions", b"b") == found.present
    assert (b"a", b"b") == inspect(b"Cookie: a=1\nCookie: b=2", RING, now=START).present


def test_nothing_is_nothing() -> None:
    """An empty input."""
    assert ((), ()) == (inspect(b" \n", RING, now=START).reports, inspect(b"", RING, now=START).present)


def test_every_candidate_is_reported_in_its_order() -> None:
    """The first that opens is the session; at most 4 are tried."""
    header = b"; ".join(NAME + b"=" + text for text in (b"%", token(STRANGER), token(), b"a", b"b"))

    found = inspect(header, RING, now=START)

    assert ["malformed", "unknown_key", None, "malformed"] == [report.reason for report in found.reports]
    assert found.is_live


def test_chunks_are_put_together() -> None:
    """By what the manager itself writes."""
    manager = SessionManager(RING, clock=lambda: START)
    jar = cookies_for(manager, {"text": "x" * 4000})
    header = "; ".join(f"{name}={value}" for name, value in reversed(jar.items()))

    report = report_on(header.encode())

    assert report.reason is None
    assert ("2.", 2) == (report.parts[0][:2].decode(), len(report.parts))
    assert report.contents is not None
    assert {"text": "x" * 4000} == report.contents.data


# Why it does not open


@pytest.mark.parametrize(("text", "reason", "words"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_says_exactly_why(text: bytes, reason: Reason, words: str) -> None:
    """The reason is the one that the manager reports; the words are for whoever has the keys."""
    report = report_on(text, model=Visitor if reason == "invalid" else None)

    assert reason == report.reason
    assert words in explain(report)


def test_every_reason_is_provoked() -> None:
    """Whoever adds a reason adds its words. What stores and guards say is in no token."""
    assert set(get_args(Reason)) - {"ended", "bound"} == {reason for _, reason, _ in REFUSALS.values()}


@pytest.mark.parametrize("text", [text for text, *_ in REFUSALS.values()], ids=REFUSALS)
def test_verdict_is_the_managers(text: bytes) -> None:
    """The manager takes the same cookie, and rejects it for the same reason."""
    header = text if text.startswith(NAME) else NAME + b"=" + text
    events: list[Any] = []
    manager = SessionManager(RING, clock=lambda: START, on_event=events.append)

    manager.session([(b"cookie", header)]).data.get("")

    expected = report_on(header).reason
    assert [expected] == [getattr(event, "reason", None) for event in events]


@pytest.mark.parametrize("case", ["expired", "idle", "future", "fernet-future", "renewed-in-future", "invalid"])
def test_contents_are_shown_whatever_the_time(case: str) -> None:
    """An operator wants to see what it was that expired."""
    report = report_on(REFUSALS[case][0])

    assert report.contents is not None
    assert report.contents.is_readable
    assert DATA == report.contents.data


@pytest.mark.parametrize("case", ["no-messagepack", "bad-compression", "bad-extension"])
def test_times_are_shown_of_what_cannot_be_read(case: str) -> None:
    """They stand before the data."""
    report = report_on(REFUSALS[case][0])

    assert report.contents is not None
    assert (False, None) == (report.contents.is_readable, report.contents.data)
    assert START + DAY == report.contents.payload.expires_at


def test_chunks_beyond_the_limit_open_where_the_limit_is_higher() -> None:
    """It is the server's `max_chunks` that decides."""
    header = b"; ".join(NAME + suffix + b"=" + piece for suffix, piece in zip((b"", b".1", b".2"), PIECES, strict=True))

    assert "chunk_count" == report_on(header).reason
    assert report_on(header, max_chunks=3).reason is None


def test_model_that_refuses_the_whole_is_told_without_a_path() -> None:
    """Where the data is no map, say."""
    report = report_on(token(data=[1]), model=Visitor)

    assert "invalid" == report.reason
    assert "the model refuses its data, unless" in explain(report)


def test_data_that_no_model_can_decode_is_undecodable() -> None:
    """As the manager has it, whatever the codec raises."""

    class Struct(msgspec.Struct):
        """A model of msgspec's own."""

        user_id: int = 0

    assert "undecodable" == report_on(token(data=b"\xc1"), model=Struct).reason


def test_codec_that_raises_what_msgspec_raises_is_undecodable() -> None:
    """Nesting that is too deep is a `RecursionError`, outside msgspec's own exceptions."""
    deep = sealed(pack(payload(b"\x91" * 100_000 + b"\xc0"), compress=True))

    assert "undecodable" == report_on(deep).reason
    assert "undecodable" == report_on(deep, model=Visitor).reason


# Keys with times

SCHEDULE = Schedule((scheduled(AES, -30, -1), scheduled(STRANGER, -20, 5), scheduled(KEY, -10), scheduled(FERNET, 1)))


def test_key_of_a_schedule_has_its_state_and_its_end() -> None:
    """As `keys list` shows them."""
    states = [str(known) for known in report_on(token(STRANGER), SCHEDULE).known]

    assert [
        f"{AES.id} (aes-256-gcm, retired 2027-01-14T08:00:00Z)",
        f"{STRANGER.id} (xaes-256-gcm, active, retires 2027-01-20T08:00:00Z)",
        f"{KEY.id} (xaes-256-gcm, primary)",
        f"{FERNET.id} (fernet, pending)",
    ] == states
    assert report_on(token(FERNET), SCHEDULE).reason is None


def test_retired_key_is_told_from_an_unknown_one() -> None:
    """And still shows what it sealed."""
    report = report_on(token(AES), SCHEDULE)

    assert "unknown_key" == report.reason
    assert explain(report).startswith(f"its key is out of use: {AES.id} (aes-256-gcm, retired 2027-01-14T")
    assert report.contents is not None
    assert DATA == report.contents.data


@pytest.mark.parametrize("others", [(), (Key("fernet", bytes(range(190, 222))),)], ids=["alone", "with-another"])
def test_retired_fernet_key_is_found_by_trying(others: tuple[Key, ...]) -> None:
    """A Fernet token names no key: with another Fernet key in use it counts as forged."""
    keys = Schedule((scheduled(FERNET, -30, -1), scheduled(KEY, -10), *(scheduled(key, -5) for key in others)))

    report = report_on(token(FERNET), keys)

    assert ("forged" if others else "unknown_key") == report.reason
    assert f"its key is out of use: {FERNET.id} (fernet, retired" in explain(report)


def test_fernet_token_without_fernet_keys_says_so() -> None:
    """Nobody can tell which key it is of."""
    report = report_on(token(FERNET), KeyRing(KEY))

    assert "unknown_key" == report.reason
    assert "it is a Fernet token, and no Fernet key is in use; the keys are " in explain(report)


def test_keys_that_have_all_retired_are_a_configuration_error() -> None:
    """There is no ring then."""
    with pytest.raises(ConfigurationError, match="every key in it has retired"):
        inspect(token(), Schedule((scheduled(KEY, -2, -1),)), now=START)


# No surprise


@given(st.binary(max_size=300), st.sampled_from([b"", b"Cookie: ", NAME + b"=", NAME + b".1=x;" + NAME + b"=", b"2."]))
@example(b"\xff=\xff;=;;==", b"")
@example(b"\x85\x1c\x0b\x0c", b"Cookie:")
def test_any_bytes_give_an_inspection(text: bytes, prefix: bytes) -> None:
    """With words for every report, and never an exception."""
    found = inspect(prefix + text, RING, now=START)

    assert not found.is_live
    assert all(explain(report).isprintable() for report in found.reports)


@given(st.sampled_from([*KEYS.values()]), st.binary(max_size=120))
def test_any_plaintext_gives_an_inspection(key: Key, plaintext: bytes) -> None:
    """Of another version of this library, say."""
    report = report_on(sealed(plaintext, key))

    assert explain(report)


seconds = st.sampled_from([0, 1, START - 1, START, START + 100, LAST_SECOND]) | st.integers(0, LAST_SECOND)


@given(st.tuples(seconds, seconds, seconds, seconds), st.integers(0, 7), st.binary(max_size=40))
def test_any_payload_gives_an_inspection(times: tuple[int, ...], flags: int, encoded: bytes) -> None:
    """Times in any order, and an encoded part of any bytes."""
    body = struct.pack(">BIIII16s", flags, *times, ID) + encoded + b"\x80"

    report = report_on(sealed(body + bytes(-len(body) % (256 if flags & 2 else 32))))

    assert explain(report)
    assert report.contents is not None


@given(st.binary(min_size=1, max_size=100))
def test_any_envelope_gives_an_inspection(text: bytes) -> None:
    """Canonical text of any bytes."""
    assert report_on(base64url.encode(b"\x01" + KEY.fingerprint + text)).reason in {"malformed", "forged"}
    assert report_on(base64url.encode(text)).reason is not None


def test_times_beyond_the_calendar_are_numbers() -> None:
    """A Fernet token has 64 bits of them, and anybody can write one."""
    report = report_on(base64url.encode(b"\x80" + b"\xff" * 47))

    assert report.header is not None
    assert f"second {2**64 - 1}" == when(report.header.sealed_at or 0)
    assert f"{2**64}s" == span(2**64)


@pytest.mark.parametrize("text", [token(), *(text for text, *_ in REFUSALS.values())], ids=["live", *REFUSALS])
def test_report_shows_neither_secret_nor_token_nor_session(text: bytes) -> None:
    """In its representation and in its words; tokens and data are shown by those who ask for them."""
    report = report_on(text)

    shown = f"{report!r} {explain(report)}"

    assert not any(secret in shown or secret[:20] in shown for secret in SECRETS)
    assert "Ada" not in shown
    assert len(report.token) < 10 or report.token.decode("latin-1") not in shown
    assert repr(ID)[2:-1] not in repr(vars(report))


def test_words_need_no_header() -> None:
    """A report that somebody else has put together has words too."""
    report = Report(
        name=NAME,
        reason="forged",
        parts=(b"x",),
        token=b"x",
        known=(),
        max_chunks=2,
        now=START,
        header=None,
        contents=None,
    )

    assert "it does not authenticate under any Fernet key" in explain(report)


def test_header_is_what_anybody_can_read() -> None:
    """Of a token under a key that nobody has here."""
    report = report_on(token(STRANGER))

    expected = Header(
        version=1,
        length=len(base64url.decode(report.token)),
        algorithm=None,
        key_id=STRANGER.id,
        key=None,
        nonce=None,
        sealed_at=None,
    )
    assert expected == report.header
    assert report.contents is None


def test_session_of_a_manager_is_seen_an_hour_later() -> None:
    """End to end, with times and flags."""
    manager = SessionManager(RING, clock=lambda: START, lifetime=timedelta(hours=2), persistent=False)
    jar = cookies_for(manager, {"a": 1}, subject="ada")
    [(name, value)] = jar.items()

    report = report_on(f"Cookie: {name}={value}".encode(), now=START + 3600)

    assert "it opens, and lives for another 1h if it is not used" == explain(report)
    assert report.contents is not None
    assert 0 == report.contents.payload.flags & PERSISTENT
