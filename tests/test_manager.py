"""Tests of `manager.py`: what is written, when, and what any bytes from a client become."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness import START, Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from cookiesession import (
    ConfigurationError,
    Cookie,
    Key,
    KeyFile,
    KeyRing,
    Revocation,
    Session,
    SessionManager,
    SessionTooLarge,
    UnencodableData,
    base64url,
    chunks,
    envelope,
)
from cookiesession.events import Cleared, Event, LateWrite, Opened, Rejected, Resealed, Sealed, TooLarge
from cookiesession.payload import PERSISTENT, Payload, pack
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Key.generate()
OLD = Key.generate()
RING = KeyRing(KEY)
NAME = b"__Host-session"


class Site:
    """A manager whose events are kept, and whose cookies come back as a browser would send them."""

    def __init__(self, keys: Any = RING, **options: Any) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        all_options: dict[str, Any] = {"clock": self.clock, "on_event": self.events.append, **options}
        self.manager: SessionManager[Any] = SessionManager(keys, **all_options)
        self.jar: dict[bytes, bytes] = {}

    def open(self, cookie: bytes | None = None) -> Session[Any]:
        header = b"; ".join(b"%s=%s" % pair for pair in self.jar.items()) if cookie is None else cookie
        return self.manager.session([(b"cookie", header)] if header else [])

    def save(self, session: Session[Any]) -> list[bytes]:
        lines = [line for _, line in asyncio.run(self.manager.save(session))]
        for line in lines:
            name, _, rest = line.partition(b"=")
            self.jar[name] = rest.partition(b";")[0]
            if b"Max-Age=0" in line:
                del self.jar[name]
        return lines

    def store(self, **data: Any) -> list[bytes]:
        session = self.open()
        session.data.update(data)
        return self.save(session)

    def read(self) -> dict[str, Any]:
        return dict(self.open().data)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def _sealed(plaintext: bytes, *, key: Key = KEY, purpose: str = "cookie", context: bytes = NAME) -> bytes:
    return envelope.seal(plaintext, key, envelope.bind(purpose, context), now=START)


def _payload(data: bytes, **changes: Any) -> Payload:
    fields: dict[str, Any] = {
        "flags": PERSISTENT,
        "created_at": START,
        "renewed_at": START,
        "expires_at": START + 3600,
        "idle_timeout": 0,
        "id": bytes(range(16)),
        "subject": None,
        "data": data,
    }
    return Payload(**{**fields, **changes})


def _token_length(size: int) -> int:
    return len(_sealed(pack(_payload(msgspec.msgpack.encode({"text": "x" * size})))))


# Writing


def test_an_untouched_session_writes_nothing() -> None:
    """And reads nothing: not even a bad cookie is noticed."""
    site = Site()

    lines = site.save(site.open(NAME + b"=garbage"))

    assert [] == lines
    assert [] == site.events


def test_a_session_without_data_is_not_written() -> None:
    """A visitor who stores nothing gets no cookie, even when the session was looked at or renewed."""
    site = Site()
    session = site.open()

    session.renew()

    assert {} == session.data
    assert [] == site.save(session)


def test_a_new_session_is_one_line_with_all_attributes() -> None:
    """The exact Set-Cookie line."""
    site = Site(lifetime=timedelta(hours=1))

    [line] = site.store(a=1)

    value, attributes = line.split(b";", 1)
    assert re.fullmatch(NAME + rb"=A[Q-Za-f][A-Za-z0-9_-]{100,}", value)
    assert b" Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=3600" == attributes
    assert {"a": 1} == site.read()


def test_an_unchanged_session_writes_nothing() -> None:
    """Neither when it was only read, nor when it was written over with equal values."""
    site = Site()
    site.store(cart=["tea"], views=1)

    session = site.open()
    session.data["views"] = 1
    session.data["cart"] = list(session.data["cart"])

    assert [] == site.save(session)


def test_a_nested_change_is_written() -> None:
    """Case D55: what a flag set by __setitem__ never sees."""
    site = Site()
    site.store(cart=[{"sku": "tea", "tags": []}])

    session = site.open()
    session.data["cart"][0]["tags"].append("hot")
    site.save(session)

    assert {"cart": [{"sku": "tea", "tags": ["hot"]}]} == site.read()


def test_saving_twice_writes_once() -> None:
    """Until something changes again."""
    site = Site()
    session = site.open()
    session.data["a"] = 1

    assert 1 == len(site.save(session))
    assert [] == site.save(session)
    session.data["a"] = 2
    assert 1 == len(site.save(session))


def test_a_new_session_can_be_saved_again_after_a_change_beside_its_data() -> None:
    """It is what the client has by then, and no longer a default that nobody stored."""
    site = Site()
    session = site.open()
    session.data["a"] = 1
    site.save(session)

    session.persistent = False
    site.save(session)

    assert {"a": 1} == site.read()
    assert not site.open().persistent


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: setattr(s, "subject", "42"), id="subject"),
        pytest.param(lambda s: setattr(s, "persistent", False), id="persistent"),
        pytest.param(lambda s: s.expire_after(timedelta(minutes=1)), id="expire_after"),
        pytest.param(lambda s: s.renew(), id="renew"),
    ],
)
def test_a_change_beside_the_data_is_written(change: Callable[[Session[Any]], None]) -> None:
    """It is sealed too, and there when the session comes back."""
    site = Site()
    site.store(a=1)
    session = site.open()

    change(session)
    lines = site.save(session)
    later = site.open()

    assert 1 == len(lines)
    assert session.id == later.id
    assert session.subject == later.subject
    assert session.persistent == later.persistent
    assert session.expires_at == later.expires_at
    assert {"a": 1} == later.data


def test_assigning_what_is_there_already_writes_nothing() -> None:
    """Subject and persistence alike."""
    site = Site()
    site.store(a=1)
    session = site.open()

    session.subject = None
    session.persistent = True

    assert [] == site.save(session)


def test_a_subject_alone_is_worth_a_session() -> None:
    """A session that is somebody's is kept, data or not."""
    site = Site()
    session = site.open()

    session.subject = "42"
    site.save(session)

    assert "42" == site.open().subject


def test_a_session_that_ends_with_the_browser_has_no_age() -> None:
    """The seal says so, so that a rewrite keeps it."""
    site = Site(persistent=False)

    [first] = site.store(a=1)
    [second] = site.store(a=2)

    assert b"Max-Age" not in first + second
    assert not site.open().persistent


def test_an_age_is_what_is_left() -> None:
    """A later write does not lengthen an absolute lifetime."""
    site = Site(lifetime=timedelta(hours=1))
    site.store(a=1)
    site.clock.now += 600

    [line] = site.store(a=2)

    assert line.endswith(b"; Max-Age=3000")


def test_an_age_is_capped_at_400_days() -> None:
    """As browsers do; the seal keeps the whole lifetime."""
    site = Site(lifetime=timedelta(days=1000))

    [line] = site.store(a=1)

    assert line.endswith(b"; Max-Age=34560000")
    assert timedelta(days=1000) == site.open().expires_at - site.open().created_at


@pytest.mark.parametrize("end", [lambda s: s.clear(), lambda s: s.data.clear(), lambda s: s.data.pop("a")])
def test_a_session_that_has_no_data_any_more_is_deleted(end: Callable[[Session[Any]], Any]) -> None:
    """With the same attributes, which a `__Host-` deletion needs."""
    site = Site()
    site.store(a=1)
    session = site.open()

    end(session)
    lines = site.save(session)

    assert [NAME + b"=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"] == lines
    assert [Cleared()] == site.of(Cleared)
    assert {} == site.jar


def test_what_is_stored_after_clear_belongs_to_a_new_session() -> None:
    """Even when it equals what was there before."""
    site = Site()
    site.store(a=1)
    session = site.open()
    before = session.id

    session.clear()
    session.data["a"] = 1
    site.save(session)

    assert before != site.open().id
    assert {"a": 1} == site.read()


# Chunks


def test_a_large_session_takes_two_cookies_and_gives_the_second_back() -> None:
    """Case C35: what a smaller session does not need is deleted."""
    site = Site()

    grown = site.store(text="x" * 4000)
    names = set(site.jar)
    session = site.open()
    session.data["text"] = "x"
    shrunk = site.save(session)

    assert [True, True] == [len(line) <= 3800 for line in grown]
    assert {NAME, NAME + b".1"} == names
    assert {NAME} == set(site.jar)
    assert shrunk[1] == NAME + b".1=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
    assert {"text": "x"} == site.read()


def test_every_size_up_to_the_limit_comes_back() -> None:
    """Cases C40 and C41: cap-1 and cap fit, cap+1 is refused before anything is sent."""
    site = Site(cookie=Cookie(max_chunks=3))

    limit = chunks.capacity(site.manager.cookie.room, 3)
    largest = max(size for size in range(9000) if _token_length(size) <= limit)

    for size in (*range(0, largest, 97), largest - 1, largest):
        site.jar = {}
        lines = site.store(text="x" * size)
        assert all(len(line) <= 3800 for line in lines)
        assert {"text": "x" * size} == site.read()
    with pytest.raises(SessionTooLarge) as caught:
        site.store(text="x" * (largest + 1))

    assert (_token_length(largest + 1), limit) == (caught.value.size, caught.value.limit)


@pytest.mark.parametrize(
    ("name", "max_chunks", "beyond"),
    [("s" * 2, 1, 0), ("s" * 3, 1, 1), ("s" * 10, 2, 0), ("s" * 32, 2, 1)],
    ids=["one-full-cookie", "one-byte-more", "two-full-cookies", "one-byte-more-than-two"],
)
def test_the_last_byte_of_the_limit_is_used_and_none_beyond(name: str, max_chunks: int, beyond: int) -> None:
    """Cases C40 and C42: a token grows by 43 bytes, and with these names meets the limit, or is a byte longer."""
    site = Site(cookie=Cookie(name=name, max_chunks=max_chunks))
    limit = chunks.capacity(site.manager.cookie.room, max_chunks)
    size = next(size for size in range(9000) if _token_length(size) >= limit)

    if not beyond:
        lines = site.store(text="x" * size)
        assert [True] * max_chunks == [len(line) <= 3800 for line in lines]
    else:
        with pytest.raises(SessionTooLarge):
            site.store(text="x" * size)

    assert limit + beyond == _token_length(size)


def test_a_session_that_is_too_large_names_sizes_and_entries_never_values() -> None:
    """And the browser keeps the session it had."""
    site = Site()
    site.store(a=1)
    jar = dict(site.jar)
    session = site.open()
    session.data.update(text="hunter2 " * 1000, other="hunter2", list=list(range(100)), small=1)

    with pytest.raises(SessionTooLarge) as caught:
        site.save(session)

    assert jar == site.jar
    assert ["text", "list", "other"] == [name for name, _ in caught.value.largest]
    assert caught.value.limit < caught.value.size
    assert "hunter2" not in str(caught.value)
    assert [TooLarge(size=caught.value.size, limit=caught.value.limit)] == site.of(TooLarge)


def test_the_first_session_of_two_cookies_warns_of_proxies_once(caplog: pytest.LogCaptureFixture) -> None:
    """It names the buffer to raise."""
    site = Site()

    for letter in "abc":
        site.store(text=letter * 4000)

    assert 1 == sum("proxy_buffer_size" in record.message for record in caplog.records)


def test_a_smaller_limit_still_deletes_what_a_larger_one_wrote() -> None:
    """After `max_chunks` was lowered, cookies of the higher numbers are deleted by their exact names."""
    site = Site(cookie=Cookie(max_chunks=5))
    site.store(text="x" * 12_000)
    jar = dict(site.jar)
    site = Site()
    site.jar = jar

    site.store(a=1)

    assert {NAME} == set(site.jar)
    assert {"a": 1} == site.read()


# Bad cookies


TOKEN = _sealed(pack(_payload(msgspec.msgpack.encode({"a": 1}))))

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "incomplete"),
    "garbage": (b"garbage!", "malformed"),
    "json": (b'{"user_id":1}', "malformed"),
    "non-ASCII": (bytes(range(0x80, 0x100)), "malformed"),
    "truncated": (base64url.encode(base64url.decode(TOKEN)[:-1]), "forged"),
    "one byte": (TOKEN[:1], "malformed"),
    "header alone": (TOKEN[:8], "malformed"),
    "too short for a tag": (TOKEN[:40], "malformed"),
    "flipped": (TOKEN[:50] + (b"A" if TOKEN[50:51] != b"A" else b"B") + TOKEN[51:], "forged"),
    "reversed": (b"_" + TOKEN[:0:-1], "malformed"),  # and never, by chance, a version that there is
    "padded": (TOKEN + b"=", "malformed"),
    "foreign key": (_sealed(pack(_payload(b"\x80")), key=OLD), "unknown_key"),
    "foreign cookie": (_sealed(pack(_payload(b"\x80")), context=b"__Host-other"), "forged"),
    "foreign purpose": (_sealed(pack(_payload(b"\x80")), purpose="record"), "forged"),
    "expired": (_sealed(pack(_payload(b"\x80", expires_at=START))), "expired"),
    "idle": (_sealed(pack(_payload(b"\x80", renewed_at=START - 60, idle_timeout=60))), "idle"),
    "future": (_sealed(pack(_payload(b"\x80", created_at=START + 61))), "future"),
    "renewed in the future": (_sealed(pack(_payload(b"\x80", renewed_at=START + 61))), "future"),
    "future version": (_sealed(b"\x80" + pack(_payload(b"\x80"))[1:]), "unsupported"),
    "no payload": (_sealed(b""), "unsupported"),
    "a list": (_sealed(pack(_payload(msgspec.msgpack.encode([1])))), "undecodable"),
    "a string": (_sealed(pack(_payload(msgspec.msgpack.encode("x")))), "undecodable"),
    "deep nesting": (
        _sealed(pack(_payload(b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0"), compress=True)),
        "undecodable",
    ),
    "bad UTF-8": (_sealed(pack(_payload(b"\x81\xa1a\xa1\xff"))), "undecodable"),
    "a length bomb": (_sealed(pack(_payload(b"\xdf\xff\xff\xff\xff"))), "undecodable"),
    "count 0": (b"0." + TOKEN, "chunk_count"),
    "count 1": (b"1." + TOKEN, "chunk_count"),
    "count -1": (b"-1." + TOKEN, "malformed"),
    "count 01": (b"01." + TOKEN, "malformed"),
    "count 2000000000": (b"2000000000." + TOKEN, "malformed"),
    "count in Arabic digits": ("٢.".encode() + TOKEN, "malformed"),
    "count above the limit": (b"3." + TOKEN, "chunk_count"),
    "count without the rest": (b"2." + TOKEN, "incomplete"),
    "over 3,800 bytes": (b"A" * 3801, "too_large"),
    "one megabyte": (b"A" * 1_000_000, "too_large"),
}


@pytest.mark.parametrize(("value", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_cookie_gives_a_fresh_session_an_event_and_a_deletion(value: bytes, reason: str) -> None:
    """Cases A1 to A7, A18, C33 and C39, as the client sees them: an empty session and nothing else."""
    site = Site()

    session = site.open(NAME + b"=" + value)

    assert {} == session.data
    assert session.is_new
    assert [NAME + b"=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"] == site.save(session)
    assert [Rejected(reason=reason)] == site.events  # type: ignore[arg-type]  # a literal


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_session(value: bytes) -> None:
    """As a whole header, as the value of our cookie, and inside an authentic envelope."""
    site = Site()

    for header in (value, NAME + b"=" + value, NAME + b"=2." + value + b"; " + NAME + b".1=" + value):
        session = site.open(header)
        assert {} == session.data
        site.save(session)
    for plaintext in (value, pack(_payload(value)), pack(_payload(b"\x80"))[:-2] + value):
        session = site.open(NAME + b"=" + _sealed(plaintext))
        assert isinstance(session.data, dict)


def test_the_first_of_several_cookies_that_opens_wins() -> None:
    """Case C28: whoever is tossed in before ours is passed over, and at most 4 are tried."""
    site = Site()
    good = NAME + b"=" + TOKEN
    bad = NAME + b"=tossed"

    opened = [dict(site.open(b"; ".join([*[bad] * count, good])).data) for count in range(5)]

    assert [{"a": 1}] * 4 + [{}] == opened


def test_another_cookie_like_ours_is_not_ours() -> None:
    """Case C27 at this level: no variant of the name is read, and none is deleted."""
    site = Site()
    header = b"; ".join(name + b"=" + TOKEN for name in (b"session", b"__host-session", NAME + b"2", b"x" + NAME))

    session = site.open(header)

    assert {} == session.data
    assert [] == site.events
    assert [] == site.save(session)


def test_chunks_of_two_sealings_do_not_mix() -> None:
    """Case C37."""
    site = Site()
    site.store(text="x" * 4000)
    first = dict(site.jar)
    site.store(text="y" * 4000)

    site.jar[NAME + b".1"] = first[NAME + b".1"]

    assert {} == site.read()
    assert [Rejected(reason="forged")] == site.of(Rejected)


def test_a_bad_cookie_makes_way_for_a_new_session() -> None:
    """Without a trace of the bad one's chunks."""
    site = Site()
    site.jar = {NAME: b"2.AAAA", NAME + b".1": b"AAAA"}

    lines = site.store(a=1)

    assert 2 == len(lines)
    assert {NAME} == set(site.jar)
    assert {"a": 1} == site.read()


# Time


@pytest.mark.parametrize(("later", "expected"), [(3599, {"a": 1}), (3600, {}), (3601, {}), (-60, {"a": 1}), (-61, {})])
def test_a_lifetime_ends_at_the_exact_second(later: int, expected: dict[str, Any]) -> None:
    """Case F76: the server's clock decides, with a minute of grace for another server's."""
    site = Site(lifetime=timedelta(hours=1))
    site.store(a=1)

    site.clock.now += later

    assert expected == site.read()


@pytest.mark.parametrize(("later", "age"), [(3599, b"1"), (3600, b"0"), (7200, b"0")])
def test_a_session_that_ends_before_its_response_leaves_no_cookie(later: int, age: bytes) -> None:
    """However long the handler has taken: an age of zero is a deletion."""
    site = Site(lifetime=timedelta(hours=1))
    site.store(a=1)
    session = site.open()
    session.data["a"] = 2

    site.clock.now += later
    lines = site.save(session)

    assert [age] == [line.rpartition(b"; Max-Age=")[2] for line in lines]


@pytest.mark.parametrize(("idle", "expected"), [(599, {"a": 1}), (600, {}), (601, {})])
def test_an_idle_timeout_ends_at_the_exact_second(idle: int, expected: dict[str, Any]) -> None:
    """Since the last write."""
    site = Site(idle_timeout=timedelta(minutes=10))
    site.store(a=1)

    site.clock.now += idle

    assert expected == site.read()


@pytest.mark.parametrize(("idle", "written"), [(0, 0), (300, 0), (301, 1), (599, 1)])
def test_a_used_session_is_written_again_after_half_of_its_idle_timeout(idle: int, written: int) -> None:
    """And not on every request."""
    site = Site(idle_timeout=timedelta(minutes=10))
    site.store(a=1)
    site.clock.now += idle

    session = site.open()
    session.mark_accessed()
    lines = site.save(session)

    assert written == len(lines)
    assert all(line.endswith(b"; Max-Age=600") for line in lines)


def test_use_keeps_a_session_alive_until_its_lifetime_ends() -> None:
    """An idle timeout never outlives the absolute one."""
    site = Site(lifetime=timedelta(hours=1), idle_timeout=timedelta(minutes=10))
    site.store(a=1)

    for _ in range(12):
        site.clock.now += 299
        assert {"a": 1} == site.read()
        session = site.open()
        session.mark_accessed()
        site.save(session)
    site.clock.now = START + 3600

    assert {} == site.read()


def test_a_server_whose_clock_is_behind_writes_no_time_before_the_creation() -> None:
    """Within the minute that clocks may differ."""
    site = Site(idle_timeout=timedelta(minutes=10))
    site.store(a=1)
    site.clock.now -= 30

    site.store(a=2)
    site.clock.now = START + 599

    assert {"a": 2} == site.read()


# Rotation


def test_a_session_under_an_old_key_is_sealed_again_with_its_times() -> None:
    """Case B19: rotation extends nothing."""
    site = Site(KeyRing(OLD), lifetime=timedelta(hours=1), idle_timeout=timedelta(minutes=50))
    site.store(a=1)
    jar = site.jar
    site = Site(KeyRing(KEY, OLD), lifetime=timedelta(hours=9), idle_timeout=timedelta(hours=9))
    site.jar = jar
    site.clock.now += 600

    session = site.open()
    session.mark_accessed()
    [line] = site.save(session)
    site.events.clear()
    later = site.open()

    assert {"a": 1} == later.data
    assert datetime.fromtimestamp(START, UTC) == later.created_at
    assert datetime.fromtimestamp(START + 3600, UTC) == later.expires_at
    assert line.endswith(b"; Max-Age=2400")
    assert [KEY.id] == [event.key_id for event in site.of(Opened)]


def test_events_tell_which_key_opened_and_sealed() -> None:
    """So that an operator knows when an old key is no longer used."""
    site = Site(KeyRing(OLD))
    site.store(a=1)
    jar = site.jar
    rotated = Site(KeyRing(KEY, OLD))
    rotated.jar = jar

    session = rotated.open()
    session.mark_accessed()
    rotated.save(session)
    changed = rotated.open()
    changed.data["a"] = 2
    rotated.save(changed)

    size = len(jar[NAME])
    assert [Sealed(key_id=OLD.id, size=size, chunks=1)] == site.of(Sealed)
    assert [
        Opened(key_id=OLD.id, primary=False, size=size, chunks=1),
        Resealed(key_id=KEY.id, old_key_id=OLD.id, size=size, chunks=1),
        Opened(key_id=KEY.id, primary=True, size=size, chunks=1),
        Sealed(key_id=KEY.id, size=size, chunks=1),
    ] == rotated.events


def test_a_key_that_was_removed_ends_its_sessions() -> None:
    """Case B21: an empty session and a deleted cookie, not an error."""
    site = Site(KeyRing(OLD))
    site.store(a=1)
    jar = site.jar
    site = Site(RING)
    site.jar = jar

    session = site.open()

    assert {} == session.data
    assert 1 == len(site.save(session))
    assert {} == site.jar


class Elsewhere:
    """A source that looks for newer keys when it is asked to."""

    def __init__(self, ring: KeyRing, newer: KeyRing) -> None:
        self.ring = ring
        self.newer = newer
        self.looks = 0

    def current(self, now: float) -> KeyRing:
        return self.ring

    def refresh(self, now: float) -> KeyRing:
        self.looks += 1
        self.ring = self.newer
        return self.ring


def test_a_token_of_an_unknown_key_has_the_source_look_again() -> None:
    """Another instance may have read a key that this one has not."""
    ahead = Site(KeyRing(KEY, OLD))
    ahead.store(a=1)
    source = Elsewhere(KeyRing(OLD), KeyRing(KEY, OLD))
    behind = Site(source)
    behind.jar = ahead.jar

    session = behind.open()

    assert {"a": 1} == session.data
    assert [] == behind.save(session)
    assert 1 == source.looks
    assert [Opened(key_id=KEY.id, primary=True, size=len(ahead.jar[NAME]), chunks=1)] == behind.events


def test_a_key_that_nobody_knows_costs_a_look_for_each_token() -> None:
    """How often a source really looks is its own affair. Four tokens are tried, and four looks are taken."""
    stranger = Site(KeyRing(Key.generate()))
    stranger.store(a=1)
    source = Elsewhere(KeyRing(OLD), KeyRing(KEY, OLD))
    site = Site(source)

    session = site.open(b"; ".join([NAME + b"=" + stranger.jar[NAME]] * 100))

    assert {} == session.data
    assert 4 == source.looks
    assert [Rejected(reason="unknown_key")] * 4 == site.events


def test_other_bad_tokens_have_nobody_look() -> None:
    """Nor do good ones."""
    source = Elsewhere(KeyRing(KEY), KeyRing(OLD))
    site = Site(source)
    site.store(a=1)
    good = site.jar[NAME]

    for token in (good, good[:-1] + b"!", b"x" * 5000, b"2." + good, good[:40] + b"AAAA" + good[44:]):
        site.open(NAME + b"=" + token).mark_accessed()

    assert 0 == source.looks


@pytest.mark.parametrize("algorithm", ["xaes-256-gcm", "aes-256-gcm", "fernet"])
def test_every_algorithm_carries_a_session(algorithm: Any) -> None:
    """A change of algorithm is a rotation, there and back."""
    other = Key.generate(algorithm)
    site = Site(KeyRing(other, KEY))

    site.store(a=1)
    there = site.read()
    jar = site.jar
    site = Site(KeyRing(KEY, other))
    site.jar = jar
    back = site.read()

    assert {"a": 1} == there == back


def test_fifty_rotations_do_not_grow_a_session() -> None:
    """Case B23."""
    keys = [Key.generate() for _ in range(50)]
    jar: dict[bytes, bytes] = {}
    sizes = set()

    for new, old in zip(keys[1:], keys, strict=False):
        site = Site(KeyRing(new, old))
        site.jar = jar
        site.store(a=1)
        jar = site.jar
        sizes.add(len(jar[NAME]))

    assert 1 == len(sizes)


# Values


def test_datetime_and_bytes_survive() -> None:
    """As does whatever else MessagePack holds."""
    value = {"at": datetime(2026, 11, 20, 12, 30, tzinfo=UTC), "raw": b"\x00\xff", "n": None, "f": 1.5, "big": 2**63}
    site = Site()

    site.store(value=value)

    assert {"value": value} == site.read()


@pytest.mark.parametrize(
    "value",
    [object(), 2**64, "\ud800", 1j, pytest.param([[...]], id="ellipsis")],
)
def test_a_value_that_cannot_be_encoded_is_named_by_its_key(value: object) -> None:
    """Case D54: before anything is sent, and the browser keeps the session it had."""
    site = Site()
    site.store(a=1)
    jar = dict(site.jar)
    session = site.open()
    session.data["basket"] = {"wrong": value}

    with pytest.raises(UnencodableData, match=r"session\['basket'\] cannot be encoded") as caught:
        site.save(session)

    assert jar == site.jar
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_value_that_contains_itself_is_named_by_its_key() -> None:
    """Rather than exhaust the stack."""
    site = Site()
    session = site.open()
    endless: list[object] = []
    endless.append(endless)
    session.data["endless"] = endless

    with pytest.raises(UnencodableData, match="contains itself"):
        site.save(session)


def test_compression_makes_a_large_session_fit() -> None:
    """And it is off unless asked for."""
    text = "the quick brown fox " * 500

    with pytest.raises(SessionTooLarge):
        Site().store(text=text)
    site = Site(compress=True)
    [line] = site.store(text=text)

    assert len(line) < 1000
    assert {"text": text} == site.read()


def test_compression_never_writes_what_it_would_refuse_to_read() -> None:
    """Case D50 from the other side: data of over 256 KB is refused however small it would become."""
    site = Site(compress=True)

    with pytest.raises(SessionTooLarge) as caught:
        site.store(text="x" * 300_000)

    assert (256 * 1024, True) == (caught.value.limit, caught.value.is_data)
    assert "text (300005 bytes)" in str(caught.value)
    assert "of data" in str(caught.value)
    assert "max_chunks" not in str(caught.value)  # which would not help


def test_ten_thousand_bad_cookies_are_not_ten_thousand_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Case C32."""
    caplog.set_level(logging.DEBUG)
    site = Site()

    for _ in range(10_000):
        site.open(NAME + b"=bad").mark_accessed()

    assert 10_000 == len(site.events)
    assert 1 == len(caplog.records)


# Configuration


@pytest.mark.parametrize(
    "options",
    [
        {"lifetime": 3600},
        {"lifetime": timedelta(0)},
        {"lifetime": timedelta(seconds=-1)},
        {"lifetime": timedelta.max},
        {"idle_timeout": 60},
        {"idle_timeout": timedelta(milliseconds=1)},
    ],
    ids=str,
)
def test_times_that_cannot_work_are_refused_at_construction(options: dict[str, Any]) -> None:
    """Case C45."""
    with pytest.raises(ConfigurationError, match="is a timedelta of at least one second and at most a century"):
        Site(**options)


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(milliseconds=1), 0], ids=str)
def test_a_grace_may_be_none_at_all(grace: Any) -> None:
    """The message says so to who gives less than a second."""
    assert 0 == SessionManager(RING, renew_grace=timedelta(0)).configuration.renew_grace

    with pytest.raises(ConfigurationError, match=r"renew_grace is timedelta\(0\), or at least one second and at most"):
        SessionManager(RING, renew_grace=grace)


@pytest.mark.parametrize("keys", ["csk1.secret", None, b"secret", [KEY], KEY, KeyRing, KeyFile])
def test_keys_that_are_no_ring_are_refused_with_the_way_to_make_one(keys: object) -> None:
    """And not shown."""
    with pytest.raises(ConfigurationError, match=r"KeyRing\.from_env") as caught:
        Site(keys)

    assert "secret" not in str(caught.value)


async def _async_listener(event: Event) -> None:
    """What would never be awaited."""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"store": MemoryStore}, r"store is a Store, such as RedisStore\(url\), or None"),
        ({"cookie": "sid"}, r"cookie is a Cookie, such as Cookie\(name='sid'\)"),
        ({"persistent": "no"}, "persistent is True or False"),
        ({"compress": 6}, "compress is True or False"),
        ({"overflow": None}, "overflow is True or False"),
        ({"on_event": _async_listener}, "on_event is a plain function"),
        ({"on_event": "print"}, "on_event is a plain function"),
        ({"clock": 0}, "clock is a function that gives the time"),
        ({"random": 4}, "random is a function that gives so many bytes"),
    ],
    ids=["store's class", "cookie", "persistent", "compress", "overflow", "async", "no function", "clock", "random"],
)
def test_options_that_cannot_work_are_refused_at_construction(options: dict[str, Any], complaint: str) -> None:
    """Rather than by the first request, or by nobody."""
    with pytest.raises(ConfigurationError, match=complaint):
        Site(**options)


def _broken(_: int) -> bytes:
    raise OSError("no randomness")


def test_a_session_that_ends_with_its_request_needs_no_randomness() -> None:
    """An id is drawn for whoever asks, and for the client."""
    site = Site(random=_broken)

    session = site.open()

    assert {} == session.data
    assert [] == site.save(session)


def test_a_source_of_randomness_that_fails_gives_no_id() -> None:
    """Case A15: never one of zeros, not even for a handler."""
    session = Site(random=_broken).open()

    with pytest.raises(OSError, match="no randomness"):
        _ = session.id


@pytest.mark.parametrize("stored", [{}, {"a": 1}], ids=["new", "renewed"])
def test_a_source_of_randomness_that_fails_gives_no_session(stored: dict[str, Any]) -> None:
    """Case A15: nothing is sent, neither with an id of zeros nor with the old one."""
    site = Site()
    site.store(**stored)
    site.manager = Site(random=_broken).manager
    session = site.open()

    session.renew()
    session.data["b"] = 2

    with pytest.raises(OSError, match="no randomness"):
        site.save(session)


@pytest.mark.parametrize("stored", [{}, {"a": 1}], ids=["new", "stored"])
def test_a_question_for_the_id_writes_nothing(stored: dict[str, Any]) -> None:
    """The answer is no change, and is the same every time."""
    site = Site()
    site.store(**stored)
    session = site.open()

    answers = {session.id, session.id}
    lines = site.save(session)

    assert {session.id} == answers
    assert [] == lines


@pytest.mark.parametrize("begin", [lambda session: None, Session.renew, Session.clear], ids=["new", "renew", "clear"])
def test_an_id_that_was_asked_for_is_the_one_that_is_sent(begin: Callable[[Session[Any]], None]) -> None:
    """A log may have it before the client does."""
    site = Site()
    site.store(a=1)
    session = site.open()
    begin(session)
    session.data["b"] = 2
    asked = session.id

    site.save(session)

    assert asked == session.id
    assert asked == site.open().id


def test_an_id_that_nobody_asked_for_stays_the_same_once_it_is_sent() -> None:
    """Whoever asks after the response gets the one that the client has."""
    site = Site()
    session = site.open()
    session.data["a"] = 1

    site.save(session)

    assert session.id == site.open().id
    assert bytes(16).hex() != session.id


def test_a_garbage_cookie_costs_the_same_under_fifty_keys() -> None:
    """Case B25, by counting: one key is tried, whatever the ring's length."""
    tried = []
    ring = KeyRing(*(Key.generate() for _ in range(50)))
    for key in ring.keys:
        vars_open = key.aead.open

        def spy(*args: Any, _open: Any = vars_open, _id: str = key.id, **kwargs: Any) -> bytes:
            tried.append(_id)
            result: bytes = _open(*args, **kwargs)
            return result

        object.__setattr__(key, "aead", type("Spy", (), {"open": staticmethod(spy)})())
    site = Site(ring)
    victim = ring.keys[25]
    forged = base64url.encode(b"\x01" + victim.fingerprint + bytes(100))

    site.open(NAME + b"=" + forged).mark_accessed()

    assert [victim.id] == tried


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.booleans() | st.text(), st.lists), max_size=5))
@settings(max_examples=100, deadline=None)
def test_what_is_stored_comes_back(data: dict[str, Any]) -> None:
    """Hypothesis's data, if it can be encoded, through the cookie and back."""
    site = Site()
    session = site.open()
    session.data.update(data)

    site.save(session)

    assert data == site.read()


def test_the_clock_is_the_systems_unless_given() -> None:
    """For a session that begins now."""
    before = int(time.time())

    session = SessionManager(RING).session([])

    assert before <= session.created_at.timestamp() <= time.time()


# Labels and the store that there is none of


def test_a_label_comes_back() -> None:
    """And goes when it is taken away."""
    site = Site()
    session = site.open()
    session.data["a"] = 1
    session.label = "laptop"
    session.label = "laptop"
    site.save(session)
    labelled = site.open()
    first = labelled.label, labelled.subject
    labelled.label = None
    site.save(labelled)

    assert ("laptop", None) == first
    assert None is site.open().label
    assert {"a": 1} == site.read()


def test_a_label_is_a_str_or_none() -> None:
    """Another type is the caller's mistake, and said without the value."""
    with pytest.raises(TypeError, match=r"^session\.label is a str or None, not int$"):
        Site().open().label = 5  # type: ignore[assignment]


def test_a_late_change_without_a_store_is_reported() -> None:
    """The two verbs for frameworks that ask for no difference."""
    site = Site()
    site.store(a=1)
    session = site.open()

    async def respond() -> None:
        await site.manager.load(session)
        await site.manager.save(session)
        session.data["a"] = 2
        await site.manager.save_late(session)

    asyncio.run(respond())

    assert [LateWrite()] == site.of(LateWrite)
    assert {"a": 1} == site.read()


def test_an_untouched_session_is_never_late() -> None:
    """A handler that never looked at it cannot have changed it."""
    site = Site()
    site.store(a=1)
    session = site.open()

    asyncio.run(site.manager.save_late(session))

    assert [] == site.of(LateWrite)
    assert {"a": 1} == session.data


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["cookies", "store"])
def test_ending_everything_needs_a_revocation(store: MemoryStore | None) -> None:
    """The message says what to do without one."""
    manager = SessionManager(RING, store=store)

    with pytest.raises(ConfigurationError, match="needs a revocation; sessions in a store end with its records"):
        asyncio.run(manager.end_everything())


@pytest.mark.parametrize("subject", [None, 42, b"42"], ids=repr)
@pytest.mark.parametrize("options", [{"store": MemoryStore()}, {"revocation": Revocation(MemoryStore(), track=True)}])
def test_what_is_no_subject_is_refused(subject: Any, options: dict[str, Any]) -> None:
    """That of a visitor who has not signed in, or a number out of a database."""
    manager = SessionManager(RING, **options)

    for call in (manager.sessions(subject), manager.end_all(subject)):
        with pytest.raises(TypeError, match=f"a subject is a str, as session.subject is, not {type(subject).__name__}"):
            asyncio.run(call)


@pytest.mark.parametrize(
    "before",
    [datetime(2027, 1, 1), datetime(2027, 1, 1).date(), "2027-01-01", 1_800_000_000],  # noqa: DTZ001 - the point
    ids=["naive", "date", "text", "number"],
)
def test_time_without_a_zone_is_refused(before: Any) -> None:
    """It would be taken for that of whatever zone the server is in."""
    manager = SessionManager(RING, store=MemoryStore())

    with pytest.raises(ValueError, match="with its zone"):
        asyncio.run(manager.end_all("42", before=before))


@pytest.mark.parametrize(
    "except_id", ["", "00", "zz" * 16, "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n", "a" * 64, 42], ids=repr
)
def test_what_is_no_id_is_refused_where_it_would_spare_nobody(except_id: Any) -> None:
    """An `id_hash` among them, which is an easy slip: the session of who asked would end with the others."""
    manager = SessionManager(RING, store=MemoryStore())

    with pytest.raises(ValueError, match=r"^except_id is 32 hexadecimal digits, as session\.id gives it$"):
        asyncio.run(manager.end_all("42", except_id=except_id))
