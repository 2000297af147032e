"""Sessions in a store: the same to a handler, one call a request, nothing lost and nothing brought back."""

from __future__ import annotations

import asyncio
import functools
import gc
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import START, Clock
from msgspec import Struct, msgpack
from msgspec.structs import replace

from cookiesession import (
    ConfigurationError,
    Key,
    KeyRing,
    Session,
    SessionEnded,
    SessionManager,
    StoreUnavailable,
    UnencodableData,
    envelope,
)
from cookiesession.events import (
    Cleared,
    Event,
    LateWrite,
    Loaded,
    Opened,
    Rejected,
    Resealed,
    Sealed,
    Stored,
    StoreFailed,
)
from cookiesession.payload import pack, unpack
from cookiesession.records import subject_key
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.stores import Record

KEY, OLD = Key.generate(), Key.generate()
RING = KeyRing(KEY)
NAME = b"__Host-session"
GRACE = 10  # seconds, the default
HOUR = 3600


class Books(MemoryStore):
    """A store that keeps a list of what it was asked, and may be out of order."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.calls: list[str] = []
        self.failing: set[str] = set()

    async def note(self, call: str) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)  # others have their turn, as with a server
        if call in self.failing:
            raise StoreUnavailable("the store is away")

    async def load(self, key: bytes) -> Record | None:
        await self.note("load")
        return await super().load(key)

    async def create(self, key: bytes, record: Record) -> bool:
        await self.note("create")
        return await super().create(key, record)

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        await self.note("replace")
        return await super().replace(key, record, expected_version)

    async def delete(self, key: bytes) -> bool:
        await self.note("delete")
        return await super().delete(key)


class Site:
    """A manager with a store, and a browser before it."""

    def __init__(self, keys: Any = RING, *, store: Books | None = None, clock: Clock | None = None, **options: Any):
        self.clock = clock or Clock()
        self.store = Books(self.clock) if store is None else store
        self.events: list[Event] = []
        all_options = {"store": self.store, "clock": self.clock, "on_event": self.events.append, **options}
        self.manager: SessionManager[Any] = SessionManager(keys, **all_options)
        self.jar: dict[bytes, bytes] = {}

    def another(self, keys: Any = RING, **options: Any) -> Site:
        """The same store and browser, at another instance."""
        site = Site(keys, store=self.store, clock=self.clock, **options)
        site.jar = dict(self.jar)
        return site

    async def open(self, jar: dict[bytes, bytes] | None = None) -> Session[Any]:
        header = b"; ".join(b"%s=%s" % pair for pair in (self.jar if jar is None else jar).items())
        session = self.manager.session([(b"cookie", header)] if header else [])
        await self.manager.load(session)
        return session

    async def save(self, session: Session[Any]) -> list[bytes]:
        lines = [line for _, line in await self.manager.save(session)]
        for line in lines:
            name, _, rest = line.partition(b"=")
            self.jar[name] = rest.partition(b";")[0]
            if b"Max-Age=0" in line:
                del self.jar[name]
        return lines

    async def put(self, **data: Any) -> list[bytes]:
        session = await self.open()
        session.data.update(data)
        return await self.save(session)

    async def read(self) -> dict[str, Any]:
        return dict((await self.open()).data)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def calls(self) -> list[str]:
        """What the store was asked since the last time."""
        calls, self.store.calls = self.store.calls, []
        return calls


def scenario(test: Callable[..., Any]) -> Callable[..., None]:
    """A test that awaits."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


# One request


@scenario
async def test_data_is_in_the_store_and_an_id_in_the_cookie() -> None:
    """Nothing of the data is in the cookie, and neither the id nor the data can be read in the store."""
    site = Site()

    await site.put(text="x" * 3000)
    session = await site.open()

    assert {"text": "x" * 3000} == session.data
    assert len(site.jar[NAME]) < 200
    ((key, record),) = site.store._records.items()
    assert hashlib.sha256(bytes.fromhex(session.id)).digest() == key
    assert bytes.fromhex(session.id) not in record.value
    assert b"xxx" not in record.value


@scenario
async def test_calls_are_one_for_a_read_and_one_for_a_write() -> None:
    """And none without a cookie, for a cookie that is not ours, or for data that nobody has."""
    site = Site()

    nothing = await site.read(), site.calls()
    await site.put(a=1)
    created = site.calls()
    await site.read()
    read = site.calls()
    await site.put(a=2)
    written = site.calls()
    await site.put(a=2)
    unchanged = site.calls()
    foreign = Site(KeyRing(OLD))
    await foreign.put(a=1)
    stranger = await site.open(foreign.jar), site.calls()

    assert ({}, []) == nothing
    assert (["create"], ["load"], ["load", "replace"], ["load"]) == (created, read, written, unchanged)
    assert ({}, []) == (stranger[0].data, stranger[1])


@pytest.mark.parametrize("cookie", [b"", b"x", b"a" * 5000, b"../../etc/passwd", b"\0", b"2.x"], ids=str)
@scenario
async def test_what_we_did_not_seal_reaches_no_store(cookie: bytes) -> None:
    """Cases F68 and F69: no look-up for an id that is not ours, and none is adopted."""
    site = Site()

    session = await site.open({NAME: cookie})
    session.data["a"] = 1
    await site.save(session)

    assert ["create"] == site.calls()
    assert hashlib.sha256(cookie).digest() not in site.store._records


@scenario
async def test_visitors_without_data_leave_nothing() -> None:
    """Case F77: ten thousand of them."""
    site = Site()

    for _ in range(10_000):
        session = await site.open({})
        session.data.get("user")
        assert [] == await site.save(session)

    assert [] == site.calls()
    assert 0 == len(site.store)


@scenario
async def test_cookie_is_written_when_it_changes_alone() -> None:
    """A change of the data is no change of the id."""
    site = Site()
    first = await site.put(a=1)
    second = await site.put(a=2)
    session = await site.open()
    session.persistent = False
    third = await site.save(session)

    assert (1, 0, 1) == (len(first), len(second), len(third))
    assert b"Max-Age=1209600" in first[0]
    assert b"Max-Age" not in third[0]
    assert not (await site.open()).persistent


@scenario
async def test_unloaded_session_says_what_to_call() -> None:
    """But one that has nothing in the store needs no loading."""
    site = Site()
    await site.put(a=1)
    header = b"%s=%s" % (NAME, site.jar[NAME])

    unloaded = site.manager.session([(b"cookie", header)])
    with pytest.raises(RuntimeError, match=r"await load_session\(request\) before it is used"):
        _ = unloaded.data
    await unloaded.load()

    assert {"a": 1} == unloaded.data
    assert {} == site.manager.session([]).data


@scenario
async def test_session_that_the_store_has_lost_is_a_new_one() -> None:
    """Case G85: evicted, or ended elsewhere. The cookie goes once the session is touched."""
    site = Site()
    await site.put(a=1)
    site.store._records.clear()

    session = await site.open()

    assert {} == session.data
    assert session.is_new
    assert b"Max-Age=0" in (await site.save(session))[0]
    assert [Rejected(reason="ended")] == site.of(Rejected)


@scenario
async def test_typed_sessions_are_the_same() -> None:
    """With validation, defaults and upgrades."""

    class Visitor(Struct):
        name: str = ""
        cart: list[str] = []

    site = Site(model=Visitor)
    session = await site.open()
    session.data.cart.append("tea")
    await site.save(session)
    await site.another().put(name=5)

    again = await site.open()

    assert Visitor() == again.data
    assert ["invalid"] == [event.reason for event in site.of(Rejected)]


@scenario
async def test_value_that_cannot_be_encoded_stores_nothing() -> None:
    """Case D54: what was there stays."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    session.data["a"] = object()

    with pytest.raises(UnencodableData, match=r"session\['a'\]"):
        await site.save(session)

    assert {"a": 1} == await site.read()


@scenario
async def test_value_that_would_not_come_back_stores_nothing() -> None:
    """Cases D53 and D54: neither with the response, which raises, nor after it."""
    site = Site()
    await site.put(a=1)
    session, late = await site.open(), await site.open()
    for each in (session, late):
        each.data["a"] = msgpack.Ext(1, b"")

    with pytest.raises(UnencodableData, match=r"session\['a'\] could not be read back"):
        await site.save(session)
    await site.manager.save_late(late)

    assert {"a": 1} == await site.read()
    assert LateWrite() in site.events


@scenario
async def test_ten_megabytes_are_a_session() -> None:
    """The limits of cookies are not the store's. Compressed or not."""
    for compress in (False, True):
        site = Site(compress=compress)

        await site.put(text="x" * 10**7)

        assert 10**7 == len((await site.read())["text"])


# Records


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "future", "foreign", "pickle", "empty"])
@scenario
async def test_record_that_is_not_as_we_left_it_is_no_session(damage: str) -> None:
    """Case F78: flipped, cut, another session's, from the future, under an unknown key, of another format."""
    site, other = Site(), Site()
    await site.put(a=1)
    await other.put(b=2)
    ((key, record),) = site.store._records.items()
    ((_, swapped),) = other.store._records.items()
    foreign = Site(KeyRing(OLD))
    await foreign.put(a=1)
    value = {
        "flip": record.value[:-1] + bytes([record.value[-1] ^ 1]),
        "cut": record.value[:-5],
        "swap": swapped.value,
        "future": record.value,
        "foreign": next(iter(foreign.store._records.values())).value,
        "pickle": b"\x80\x04\x95",
        "empty": b"",
    }[damage]
    site.store._records[key] = record._replace(value=value)
    if damage == "future":
        site.clock.now -= 61

    session = await site.open()

    assert {} == session.data
    assert 1 == len(site.of(Rejected))


@scenario
async def test_record_under_an_old_key_is_sealed_anew_when_written() -> None:
    """And its cookie on the next touch. Nobody notices."""
    site = Site(KeyRing(OLD))
    await site.put(a=1)
    rotated = site.another(KeyRing(KEY, OLD))

    session = await rotated.open()
    session.data.get("a")
    resealed = await rotated.save(session)
    await rotated.put(a=2)
    alone = rotated.another(RING)

    assert 1 == len(resealed)
    assert {"a": 2} == await alone.read()
    assert [Resealed(key_id=KEY.id, old_key_id=OLD.id, size=len(rotated.jar[NAME]), chunks=1)] == rotated.of(Resealed)
    assert [(OLD.id, False), (KEY.id, True)] == [(e.key_id, e.primary) for e in rotated.of(Loaded)]
    assert [(KEY.id, True)] == [(event.key_id, event.primary) for event in alone.of(Loaded)]


@scenario
async def test_record_under_an_old_key_is_sealed_anew_whatever_its_cookie_is_under() -> None:
    """During a deployment, an instance that has not got the new ring writes after one that has."""
    site = Site(KeyRing(OLD, KEY))
    await site.put(a=1)
    behind, ahead = site.another(KeyRing(OLD, KEY)), site.another(KeyRing(KEY, OLD))
    slow = await behind.open()
    await ahead.put(b=2)
    slow.data["c"] = 3
    assert [] == await behind.save(slow)
    later = ahead.another(KeyRing(KEY, OLD))

    session = await later.open()
    session.mark_accessed()
    lines = await later.save(session)

    assert [] == lines
    assert ["load", "replace"] == later.calls()[-2:]
    assert {"a": 1, "b": 2, "c": 3} == await later.another(RING).read()


@scenario
async def test_record_of_an_unknown_key_has_the_source_look_again() -> None:
    """Another instance may be ahead. Once for the cookie and once for the record."""

    class Elsewhere:
        looks = 0

        def current(self, now: float) -> KeyRing:
            return KeyRing(OLD)

        def refresh(self, now: float) -> KeyRing:
            self.looks += 1
            return KeyRing(KEY, OLD)

    site = Site()
    await site.put(a=1)
    source = Elsewhere()

    assert {"a": 1} == await site.another(source).read()
    assert 2 == source.looks


@scenario
async def test_record_that_holds_no_data_is_no_session() -> None:
    """Authentic, but not what this application writes."""
    site = Site()
    await site.put(a=1)
    ((key, record),) = site.store._records.items()
    plaintext, _ = envelope.open_bytes(record.value, RING, envelope.bind("record", key), now=START)
    payload = replace(unpack(plaintext, START), data=b"\xc1")
    value = envelope.seal_bytes(pack(payload), KEY, envelope.bind("record", key), now=START)
    site.store._records[key] = record._replace(value=value)

    assert {} == await site.read()
    assert [Rejected(reason="undecodable")] == site.of(Rejected)


@scenario
async def test_every_algorithm_seals_records() -> None:
    """Fernet too."""
    for algorithm in ("xaes-256-gcm", "aes-256-gcm", "fernet"):
        site = Site(KeyRing(Key.generate(algorithm)))

        await site.put(a=1)

        assert {"a": 1} == await site.read()


@scenario
async def test_cookie_of_one_mode_opens_in_no_other() -> None:
    """An id is not data, nor data an id."""
    served, plain = Site(), SessionManager(RING, clock=Clock())
    await served.put(a=1)
    session = plain.session([])
    session.data["a"] = 1
    [(_, line)] = await plain.save(session)

    of_id = plain.session([(b"cookie", NAME + b"=" + served.jar[NAME])])
    of_data = await served.open({NAME: line.partition(b"=")[2].partition(b";")[0]})

    assert ({}, {}) == (of_id.data, of_data.data)


@scenario
async def test_id_that_comes_with_data_is_none() -> None:
    """Authentic, but not what this application writes: its data would not be the record's."""
    site = Site()
    await site.put(a=1)
    plaintext, _ = envelope.open(site.jar[NAME], RING, envelope.bind("id", NAME), now=START)
    payload = replace(unpack(plaintext, START), data=b"\x80")
    site.jar[NAME] = envelope.seal(pack(payload), KEY, envelope.bind("id", NAME), now=START)

    assert {} == await site.read()
    assert [Rejected(reason="undecodable")] == site.of(Rejected)


# Time


@pytest.mark.parametrize(("later", "expected"), [(599, {"a": 1}), (600, {})])
@scenario
async def test_idle_session_ends_at_the_exact_second(later: int, expected: dict[str, Any]) -> None:
    """By the seal of the record, and by the store."""
    site = Site(idle_timeout=timedelta(minutes=10))
    await site.put(a=1)

    site.clock.now += later

    assert expected == await site.read()


@scenario
async def test_use_is_written_once_half_of_the_idle_timeout_has_passed() -> None:
    """To the record. The cookie names the same session, and stays."""
    site = Site(idle_timeout=timedelta(minutes=10))
    await site.put(a=1)

    lines = []
    for _ in range(10):
        site.clock.now += 301
        session = await site.open()
        session.data.get("a")
        lines += await site.save(session)

    assert [] == lines
    assert {"a": 1} == await site.read()


@scenario
async def test_lifetime_ends_a_session_that_is_used() -> None:
    """At the exact second."""
    site = Site(lifetime=timedelta(hours=1))
    await site.put(a=1)

    site.clock.now += HOUR - 1
    before = await site.read()
    site.clock.now += 1

    assert ({"a": 1}, {}) == (before, await site.read())


# Ending and renewing


@scenario
async def test_clear_removes_record_and_cookie() -> None:
    """Case F71: a copy of the cookie opens nothing."""
    site = Site()
    await site.put(a=1)
    copy = dict(site.jar)

    session = await site.open()
    session.clear()
    lines = await site.save(session)

    assert b"Max-Age=0" in lines[0]
    assert 0 == len(site.store)
    assert {} == (await site.open(copy)).data
    assert [Cleared()] == site.of(Cleared)


@scenario
async def test_what_is_stored_after_clear_is_another_session() -> None:
    """With another id, and the old one's record gone."""
    site = Site()
    await site.put(a=1)
    copy = dict(site.jar)
    session = await site.open()
    before = session.id

    session.clear()
    session.data["b"] = 2
    await site.save(session)

    assert {"b": 2} == await site.read()
    assert before != (await site.open()).id
    assert {} == (await site.open(copy)).data
    assert 1 == len(site.store)


@scenario
async def test_renewed_session_leaves_its_old_id_for_a_moment() -> None:
    """Case F70: requests under way survive, and ten seconds later the old id is dead."""
    site = Site()
    await site.put(a=1)
    copy = dict(site.jar)
    session = await site.open()
    before = session.id
    session.renew()
    session.data["user"] = 42
    await site.save(session)

    at_once = (await site.open(copy)).data
    site.clock.now += GRACE - 1
    late = (await site.open(copy)).data
    site.clock.now += 1
    dead = (await site.open(copy)).data

    assert ({"a": 1}, {"a": 1}, {}) == (at_once, late, dead)
    assert {"a": 1, "user": 42} == await site.read()
    assert before != (await site.open()).id


@scenario
async def test_renewed_session_is_listed_once() -> None:
    """What its old id still opens is no session of its own; but it ends with all the others."""
    site = Site()
    session = await site.open()
    session.subject = "42"
    await site.save(session)
    copy = dict(site.jar)
    session = await site.open()
    session.renew()
    await site.save(session)
    again = await site.open()

    listed = await site.manager.sessions("42")
    count = await site.manager.end_all("42", except_id=again.id)

    assert [again.id_hash] == [info.id_hash for info in listed]
    assert 1 == count
    assert (await site.open(copy)).is_new


@scenario
async def test_renewed_sessions_are_forgotten_with_their_requests() -> None:
    """As many as there are logins."""
    site = Site()

    async def log_in() -> str:
        session = await site.open()
        session.renew()
        session.data["n"] = 1
        id = session.id
        await site.save(session)
        return id

    ids = {await log_in() for _ in range(10)}
    gc.collect()

    assert 10 == len(ids)
    assert not len(site.manager.mode._renewing)  # type: ignore[union-attr]  # of a store


@scenario
async def test_session_is_renewed_once() -> None:
    """A copy of the old id, in its grace, renews nothing: it would outlive the change of the password."""
    site = Site()
    session = await site.open()
    session.subject = "42"
    await site.save(session)
    copy = dict(site.jar)
    first, second = await site.open(), await site.open()
    first.renew()
    await site.save(first)
    third = await site.open(copy)

    lines = []
    for late in (second, third):
        late.renew()
        lines += await site.save(late)

    assert [] == lines
    assert [first.id_hash] == [info.id_hash for info in await site.manager.sessions("42")]
    assert first.id == (await site.open()).id


@scenario
async def test_change_under_a_renewed_id_is_reported() -> None:
    """It is not carried into a session of more rights, and is gone with the grace."""
    site = Site()
    await site.put(a=1)
    slow, login = await site.open(), await site.open()
    login.renew()
    await site.save(login)

    slow.data["b"] = 2
    lines = await site.save(slow)

    assert [] == lines
    assert {"a": 1} == await site.read()
    assert [LateWrite()] == site.of(LateWrite)
    with pytest.raises(SessionEnded, match="renewed by another request"):
        await slow.transact(lambda data: data.update(c=3))


@scenario
async def test_logout_that_began_before_a_renewal_ends_the_renewed_session() -> None:
    """And so does ending what was listed before it."""
    for leave in ("clear", "end"):
        site = Site()
        session = await site.open()
        session.subject = "42"
        await site.save(session)
        slow, login = await site.open(), await site.open()
        [listed] = await site.manager.sessions("42")
        login.renew()
        await site.save(login)

        if leave == "clear":
            slow.clear()
            await site.save(slow)
        else:
            await site.manager.end(listed)

        assert 0 == len(site.store)
        assert (await site.open()).is_new


@scenario
async def test_logout_gives_up_after_a_hundred_conflicts() -> None:
    """And says so, rather than that it had happened."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    site.store.replace = _never  # type: ignore[method-assign]

    session.clear()

    with pytest.raises(StoreUnavailable, match="changed 100 times while it was ended"):
        await site.save(session)


@pytest.mark.parametrize("compress", [False, True])
@scenario
async def test_subject_and_compression_do_not_have_the_cookie_written_again(*, compress: bool) -> None:
    """They are the record's, and not the id's."""
    site = Site(compress=compress)
    session = await site.open()
    session.subject, session.data["text"] = "42", "x" * 2000
    await site.save(session)

    assert [] == await site.put(more=1)


@scenario
async def test_renewed_session_without_grace_leaves_nothing() -> None:
    """For those who prefer it."""
    site = Site(renew_grace=timedelta(0))
    await site.put(a=1)
    copy = dict(site.jar)
    session = await site.open()
    session.renew()
    await site.save(session)

    assert {} == (await site.open(copy)).data
    assert {"a": 1} == await site.read()
    assert 1 == len(site.store)


@pytest.mark.parametrize("grace", [0, GRACE])
@scenario
async def test_renewal_takes_concurrent_changes_along(grace: int) -> None:
    """Those that came before it."""
    site = Site(renew_grace=timedelta(seconds=grace))
    await site.put(a=1)
    renewing, other = await site.open(), await site.open()
    other.data["b"] = 2
    other.label = "phone"
    await site.save(other)

    renewing.renew()
    renewing.data["c"] = 3
    await site.save(renewing)

    session = await site.open()
    assert {"a": 1, "b": 2, "c": 3} == session.data
    assert "phone" == session.label


@scenario
async def test_logout_wins_over_a_slow_request() -> None:
    """Case F72: its change is not saved, and its browser may have another session by now."""
    site = Site()
    await site.put(a=1)
    slow, leaving = await site.open(), await site.open()
    leaving.clear()
    await site.save(leaving)

    slow.data["a"] = 2

    assert [] == await site.save(slow)
    assert 0 == len(site.store)


@scenario
async def test_logout_wins_over_a_renewal() -> None:
    """The new record goes, too."""
    for grace in (timedelta(0), timedelta(seconds=GRACE)):
        site = Site(renew_grace=grace)
        await site.put(a=1)
        slow, leaving = await site.open(), await site.open()
        leaving.clear()
        await site.save(leaving)

        slow.renew()

        assert [] == await site.save(slow)
        assert 0 == len(site.store)


@scenario
async def test_logout_wins_over_a_transaction() -> None:
    """Which says so."""
    site = Site()
    await site.put(a=1)
    slow, leaving = await site.open(), await site.open()
    leaving.clear()
    await site.save(leaving)

    with pytest.raises(SessionEnded):
        await slow.transact(lambda data: data.update(a=2))

    assert 0 == len(site.store)


# Concurrent changes


@scenario
async def test_later_use_counts_where_two_saves_meet() -> None:
    """Cases F75 and F76: the idle timeout is from the last of both, to the second."""
    site = Site(idle_timeout=timedelta(minutes=10))
    await site.put(a=1)
    early, late = await site.open(), await site.open()
    early.data["b"] = 2
    late.data["c"] = 3

    site.clock.now += 10
    await site.save(early)
    site.clock.now += 500
    await site.save(late)
    site.clock.now += 599
    last = await site.read()
    site.clock.now += 1
    after = await site.read()

    assert ({"a": 1, "b": 2, "c": 3}, {}) == (last, after)


@scenario
async def test_request_that_only_seals_anew_takes_back_no_later_use() -> None:
    """Its times are those of before. Another request has used the session meanwhile."""
    site = Site(KeyRing(OLD), idle_timeout=timedelta(minutes=10))
    await site.put(a=1)
    rotated = site.another(KeyRing(KEY, OLD), idle_timeout=timedelta(minutes=10))
    site.clock.now += 200
    reading, writing = await rotated.open(), await rotated.open()
    reading.mark_accessed()
    writing.data["b"] = 2

    await rotated.save(writing)
    await rotated.save(reading)
    site.clock.now += 599

    assert {"a": 1, "b": 2} == await rotated.read()


@scenario
async def test_fifty_requests_lose_no_field() -> None:
    """Case F73: each writes its own field and one that all share, of which the last one's is left."""
    site = Site()
    await site.put(shared=[])
    sessions = [await site.open() for _ in range(50)]

    async def respond(number: int, session: Session[Any]) -> None:
        session.data[f"field {number}"] = number
        session.data["shared"].append(number)
        await site.save(session)

    await asyncio.gather(*(respond(number, session) for number, session in enumerate(sessions)))

    data = await site.read()
    assert {f"field {number}": number for number in range(50)} == {n: v for n, v in data.items() if n != "shared"}
    assert 1 == len(data["shared"])


@scenario
async def test_two_hundred_increments_are_two_hundred() -> None:
    """Case F74, by transactions; and what else their requests change is saved as well."""
    site = Site()
    await site.put(n=0)

    async def increment(number: int) -> None:
        session = await site.open()
        session.data[f"seen {number % 3}"] = True
        await session.transact(lambda data: data.update(n=data["n"] + 1))
        assert session.data[f"seen {number % 3}"]
        await site.save(session)

    await asyncio.gather(*(increment(number) for number in range(200)))

    assert {"n": 200, "seen 0": True, "seen 1": True, "seen 2": True} == await site.read()


@scenario
async def test_transaction_may_give_other_data() -> None:
    """For models that do not change."""

    class Frozen(Struct, frozen=True):
        n: int = 0

    site = Site(model=Frozen)
    session = await site.open()
    await session.transact(lambda data: Frozen(data.n + 1))
    await site.save(session)
    again = await site.open()
    await again.transact(lambda data: Frozen(data.n + 1))

    assert Frozen(2) == again.data == (await site.open()).data


@scenario
async def test_transaction_that_raises_changes_nothing() -> None:
    """Neither does one whose result cannot be encoded, is no data, or would not come back."""
    site = Site()
    await site.put(a=1)
    session = await site.open()

    def fail(data: dict[str, Any]) -> None:
        data["a"] = 2
        raise LookupError

    with pytest.raises(LookupError):
        await session.transact(fail)
    with pytest.raises(UnencodableData):
        await session.transact(lambda data: data.update(a=object()))
    with pytest.raises(TypeError, match=r"session\.data is a dict, not int"):
        await session.transact(lambda data: data.setdefault("a", 2))
    with pytest.raises(UnencodableData, match=r"session\['a'\] could not be read back"):
        await session.transact(lambda data: data.update(a=msgpack.Ext(1, b"")))

    assert {"a": 1} == session.data == await site.read()


@scenario
async def test_transaction_beside_what_cannot_be_encoded_saves_nothing() -> None:
    """The response would fail, and half of the request were done."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    session.data["b"] = object()

    with pytest.raises(UnencodableData, match="b"):
        await session.transact(lambda data: data.update(a=2))

    assert {"a": 1} == await site.read()


@scenario
async def test_transaction_of_a_new_session_is_a_change() -> None:
    """It has no record yet."""
    site = Site()
    session = await site.open()

    await session.transact(lambda data: data.update(a=1))

    assert 0 == len(site.store)
    await site.save(session)
    assert {"a": 1} == await site.read()


@scenario
async def test_transaction_keeps_what_a_verb_has_changed() -> None:
    """Beside the data."""
    site = Site()
    await site.put(n=0)
    session = await site.open()
    session.subject = "42"
    await session.transact(lambda data: data.update(n=1))
    await site.save(session)

    again = await site.open()
    assert ("42", {"n": 1}) == (again.subject, again.data)


def test_transaction_needs_a_store() -> None:
    """A cookie has no newest version."""
    session = SessionManager(RING).session([])

    with pytest.raises(ConfigurationError, match="needs a store"):
        session.transact(lambda data: data.update(a=1))


@scenario
async def test_changes_that_are_invalid_together_are_the_later_ones() -> None:
    """A model's rules bind two fields, and each request kept them."""

    class Pair(Struct):
        low: int = 0
        high: int = 10

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    site = Site(model=Pair)
    session = await site.open()
    session.data.low = 1
    await site.save(session)
    first, second = await site.open(), await site.open()
    first.data.low = 9
    second.data.high = 5
    await site.save(first)
    await site.save(second)

    assert Pair(1, 5) == (await site.open()).data


@scenario
async def test_changes_beside_the_data_are_merged_too() -> None:
    """Subject, label, lifetime and whether the browser keeps it, whoever of two is the slower one."""
    site = Site()
    await site.put(a=1)
    first, second = await site.open(), await site.open()
    first.subject = "42"
    second.label = "phone"
    second.expire_after(timedelta(hours=1))
    second.persistent = False
    await site.save(first)
    await site.save(second)

    session = await site.open()
    assert ("42", "phone", False) == (session.subject, session.label, session.persistent)
    assert START + HOUR == int(session.expires_at.timestamp())
    assert [1] == [event.conflicts for event in site.of(Stored) if event.conflicts]


@scenario
async def test_save_gives_up_after_a_hundred_conflicts() -> None:
    """Which one writer alone of ever so many could meet."""
    site = Site(random=bytes)
    await site.put(a=1)
    session = await site.open()
    session.data["a"] = 2
    site.store.replace = _never  # type: ignore[method-assign]

    with pytest.raises(StoreUnavailable, match="changed 100 times"):
        await site.save(session)
    with pytest.raises(StoreUnavailable, match="changed 100 times"):
        await session.transact(lambda data: data.update(a=3))


@scenario
async def test_renewal_gives_up_after_a_hundred_conflicts() -> None:
    """The old session stays."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    id, real = session.id, site.store.replace

    async def never_the_old(key: bytes, record: Record, expected_version: int) -> bool:
        return key.hex() != Session.hash_of(id) and await real(key, record, expected_version)

    site.store.replace = never_the_old  # type: ignore[method-assign]
    session.renew()

    with pytest.raises(StoreUnavailable, match="changed 100 times while it was renewed"):
        await site.save(session)
    assert {"a": 1} == await site.read()


@scenario
async def test_renewal_of_a_session_that_is_ended_under_its_new_id_ends() -> None:
    """By somebody who lists and ends sessions at that very moment."""
    site = Site()
    await site.put(a=1)
    renewing, other = await site.open(), await site.open()
    other.data["b"] = 2
    await site.save(other)
    real = site.store.replace

    async def end_the_new(key: bytes, record: Record, expected_version: int) -> bool:
        if key.hex() != Session.hash_of(other.id):
            return False
        return await real(key, record, expected_version)

    site.store.replace = end_the_new  # type: ignore[method-assign]
    renewing.renew()

    assert [] == await site.save(renewing)


async def _never(key: bytes, record: Record, expected_version: int) -> bool:
    return False


# Late changes


@scenario
async def test_late_change_is_saved() -> None:
    """The headers have left, but the record is at hand."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    session.data["b"] = 2
    await site.save(session)

    session.data["c"] = 3
    await site.manager.save_late(session)
    await site.manager.save_late(session)

    assert {"a": 1, "b": 2, "c": 3} == await site.read()
    assert [] == site.of(LateWrite)


@scenario
async def test_late_logout_counts() -> None:
    """The cookie opens nothing any more."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    await site.save(session)

    session.clear()
    await site.manager.save_late(session)

    assert 0 == len(site.store)


@pytest.mark.parametrize("late", ["new", "renewed", "cleared and filled"])
@scenario
async def test_late_change_that_the_client_cannot_learn_of_is_reported(late: str) -> None:
    """A new id is in no cookie."""
    site = Site()
    if late != "new":
        await site.put(a=1)
    session = await site.open()
    session.mark_accessed()
    await site.save(session)

    if late == "renewed":
        session.renew()
    if late == "cleared and filled":
        session.clear()
    session.data["b"] = 2
    await site.manager.save_late(session)

    assert [LateWrite()] == site.of(LateWrite)
    assert (1 if late == "renewed" else 0) == len(site.store)


# Subjects


@scenario
async def test_sessions_of_a_subject_are_listed_and_ended() -> None:
    """Other people's are not."""
    site = Site()
    ids = []
    for number, (subject, label) in enumerate((("42", "laptop"), ("42", "phone"), ("7", "tablet"))):
        site.jar = {}
        session = await site.open()
        session.data["n"] = number
        session.subject, session.label = subject, label
        await site.save(session)
        ids.append((session.id, session.id_hash))
        site.clock.now += 60

    listed = await site.manager.sessions("42")
    ended = await site.manager.end(listed[0]), await site.manager.end(listed[0])
    left = await site.manager.sessions("42")

    assert ["phone", "laptop"] == [info.label for info in listed]
    assert [ids[1][1], ids[0][1]] == [info.id_hash for info in listed]
    assert [START + 60, START] == [info.created_at.timestamp() for info in listed]
    assert all(info.used_at == info.created_at < info.expires_at for info in listed)
    assert (True, False) == ended
    assert ["laptop"] == [info.label for info in left]
    assert [] == await site.manager.sessions("nobody")


@scenario
async def test_session_that_begins_at_the_very_time_is_spared() -> None:
    """Those end that began before it."""
    site = Site()
    session = await site.open()
    session.subject = "42"
    await site.save(session)

    assert 0 == await site.manager.end_all("42", before=session.created_at)
    assert 1 == await site.manager.end_all("42", before=session.created_at + timedelta(seconds=1))


@scenario
async def test_subject_may_be_any_text() -> None:
    """Also none: that is somebody, and None is nobody."""
    site = Site()
    for subject in ("", "a/b", "\0"):
        site.jar = {}
        session = await site.open()
        session.subject = subject
        await site.save(session)

        assert [session.id_hash] == [info.id_hash for info in await site.manager.sessions(subject)]
        assert subject == (await site.open()).subject


@scenario
async def test_record_in_the_index_of_another_subject_is_not_its() -> None:
    """Whoever writes to the store makes nobody's session somebody else's, nor has it ended with theirs."""
    site = Site()
    session = await site.open()
    session.subject = "ada"
    await site.save(session)
    key = bytes.fromhex(session.id_hash)
    store: MemoryStore = site.store
    record = await store.load(key)
    assert record is not None
    await store.delete(key)
    await store.create(key, record._replace(subject=subject_key("eve")))

    assert [] == await site.manager.sessions("eve")
    assert 0 == await site.manager.end_all("eve")
    assert "ada" == (await site.open()).subject


@pytest.mark.parametrize("compress", [False, True])
@scenario
async def test_record_is_compressed_if_that_was_asked_for(*, compress: bool) -> None:
    """As what is in cookies."""
    site = Site(compress=compress)

    await site.put(text="tea " * 1000)

    assert compress == all(len(record.value) < 1000 for record in site.store._records.values())
    assert {"text": "tea " * 1000} == await site.read()


@scenario
async def test_all_sessions_but_one_are_ended() -> None:
    """After a change of password, say."""
    site = Site()
    ids = []
    for number in range(5):
        site.jar = {}
        session = await site.open()
        session.data["n"] = number
        session.subject = "42"
        await site.save(session)
        ids.append(session.id)

    count = await site.manager.end_all("42", except_id=ids[2])
    rest = await site.manager.end_all("42")

    assert (4, 1) == (count, rest)
    assert 0 == len(site.store)


@scenario
async def test_session_that_is_renewed_just_now_is_spared() -> None:
    """By its new id, which the store does not know yet."""
    site = Site()
    session = await site.open()
    session.subject = "42"
    await site.save(session)
    session = await site.open()

    session.renew()
    count = await site.manager.end_all("42", except_id=session.id)
    await site.save(session)

    assert 0 == count
    assert "42" == (await site.open()).subject
    assert 1 == await site.manager.end_all("42", except_id=session.id)  # the old record, in its grace
    assert "42" == (await site.open()).subject


@scenario
async def test_session_is_ended_by_its_own_object_or_hash() -> None:
    """Or by what a list said."""
    site = Site()
    await site.put(a=1)
    first = await site.open()

    assert await site.manager.end(first)
    assert not await site.manager.end(first.id_hash)


def test_listing_and_ending_need_a_store() -> None:
    """Sessions in cookies are known to their browsers alone."""
    manager = SessionManager(RING)

    for call in (manager.sessions("42"), manager.end("00"), manager.end_all("42")):
        with pytest.raises(ConfigurationError, match="where there is a store"):
            asyncio.run(call)


@scenario
async def test_id_hash_opens_nothing() -> None:
    """Case F79: who has read the whole store has no cookie."""
    site = Site()
    await site.put(a=1)
    session = await site.open()

    for forged in (session.id_hash, session.id):
        opened = await site.open({NAME: forged.encode()})
        assert {} == opened.data
    assert hashlib.sha256(bytes.fromhex(session.id)).hexdigest() == session.id_hash


# A store that fails


@pytest.mark.parametrize("call", ["load", "replace", "delete"])
@scenario
async def test_store_that_fails_is_said_and_the_cookie_stays(call: str) -> None:
    """Cases G80, G81: and works again as soon as the store does, G90."""
    site = Site()
    await site.put(a=1)
    jar = dict(site.jar)
    site.store.failing = {call}

    async def respond() -> None:
        session = await site.open()
        session.data["b"] = 2
        if call == "delete":
            session.clear()
        await site.save(session)

    with pytest.raises(StoreUnavailable, match=r"^the store is away$"):
        await respond()
    site.store.failing = set()

    assert jar == site.jar
    assert {"a": 1} == await site.read()


@pytest.mark.parametrize("call", ["load", "replace", "delete", "create"])
@scenario
async def test_store_that_fails_leaves_no_session_where_that_was_chosen(call: str) -> None:
    """Nothing is written, and the cookie stays for the next request, but for a logout's."""
    site = Site(on_store_error="anonymous")
    await site.put(a=1)
    jar = dict(site.jar)
    site.store.failing = {call, "create"}

    session = await site.open({} if call == "create" else None)
    session.data["b"] = 2
    if call == "delete":
        session.clear()
    lines = await site.save(session)
    site.store.failing = set()

    assert (call == "delete") == bool(lines)
    assert [StoreFailed(problem="the store is away")] == site.of(StoreFailed)
    assert ({} if call == "delete" else jar) == site.jar
    assert {"a": 1} == (await site.open(jar)).data


@scenario
async def test_change_of_a_session_that_was_not_loaded_is_lost_late_too() -> None:
    """And reported."""
    site = Site(on_store_error="anonymous")
    await site.put(a=1)
    site.store.failing = {"load"}
    session = await site.open()
    await site.save(session)

    session.data["b"] = 2
    await site.manager.save_late(session)

    assert [LateWrite()] == site.of(LateWrite)


@scenario
async def test_id_that_the_store_has_already_is_no_session() -> None:
    """A source of randomness that repeats itself, of which the store tells."""
    site = Site(random=bytes)
    await site.put(a=1)
    site.jar = {}

    with pytest.raises(StoreUnavailable, match="drawn just now"):
        await site.put(b=2)


# Overflow


@scenario
async def test_overflow_keeps_small_sessions_in_the_cookie() -> None:
    """And moves them to the store and back, unseen."""
    site = Site(overflow=True)

    small = await site.put(a=1), site.calls()
    await site.put(text="x" * 20_000)
    large = site.calls(), len(site.jar[NAME])
    read = await site.read(), site.calls()
    session = await site.open()
    id = session.id
    del session.data["text"]
    await site.save(session)
    back = site.calls()

    assert [] == small[1]
    assert ["create"] == large[0]
    assert large[1] < 200
    assert ({"a": 1, "text": "x" * 20_000}, ["load"]) == read
    assert ["load", "replace"] == back
    assert {"a": 1} == await site.read()
    assert [] == site.calls()
    assert id == (await site.open()).id


@scenario
async def test_overflow_clears_what_is_in_the_cookie() -> None:
    """Without a call of the store."""
    site = Site(overflow=True)
    await site.put(a=1)

    session = await site.open()
    session.clear()
    lines = await site.save(session)

    assert b"Max-Age=0" in lines[0]
    assert ({}, []) == (await site.read(), site.calls())


@scenario
async def test_overflow_reseals_after_a_rotation() -> None:
    """In the cookie."""
    site = Site(KeyRing(OLD), overflow=True)
    await site.put(a=1)
    rotated = site.another(KeyRing(KEY, OLD), overflow=True)

    session = await rotated.open()
    session.mark_accessed()
    await rotated.save(session)

    assert {"a": 1} == await rotated.another(RING, overflow=True).read()
    assert [OLD.id] == [event.old_key_id for event in rotated.of(Resealed)]


@scenario
async def test_overflow_of_a_session_that_fills_cookies() -> None:
    """Two cookies, and not one byte more."""
    site = Site(overflow=True)

    await site.put(text="x" * 5000)
    two = set(site.jar)
    await site.put(text="x" * 300_000)

    assert {NAME, NAME + b".1"} == two
    assert {NAME} == set(site.jar)
    assert 300_000 == len((await site.read())["text"])


# Options


@pytest.mark.parametrize(
    "options",
    [
        {"store": "redis://localhost"},
        {"store": object()},
        {"overflow": True},
        {"on_store_error": "ignore"},
        {"renew_grace": timedelta(seconds=-1)},
        {"renew_grace": 10},
    ],
    ids=["a URL", "no store", "overflow alone", "unknown policy", "negative grace", "no timedelta"],
)
def test_options_that_cannot_work_are_refused_at_construction(options: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SessionManager(RING, **options)


@scenario
async def test_events_tell_of_cookie_and_record() -> None:
    """Sizes and keys, no id and no value."""
    site = Site()
    await site.put(word="x")
    session = await site.open()
    session.data["word"] = "y"
    await site.save(session)

    assert [Stored, Sealed, Opened, Loaded, Stored] == [type(event) for event in site.events]
    assert session.id not in repr(site.events)
    assert session.id_hash not in repr(site.events)
