"""Sessions in cookies that can be ended: logout, renewal, lists, late requests, and a store that is down."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import Clock
from revocable_site import EVERY, Instance, Jar, slow_instance, until_waiting
from test_servermode import GRACE, HOUR, KEY, NAME, OLD, Books, scenario

from cookiesession import ConfigurationError, KeyRing, SessionTooLarge, StoreUnavailable
from cookiesession.endings import MARGIN
from cookiesession.events import Cleared, LateWrite, Rejected, StoreFailed
from cookiesession.records import subject_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession import Session
    from cookiesession.stores import Record

WRITES = {"create", "replace", "delete"}
ALL = {"load", *WRITES}


# Opening


@scenario
async def test_request_without_a_cookie_of_ours_asks_nothing() -> None:
    """Nor does one that is not opened, or whose session has expired by itself."""
    instance = Instance()
    jar = await instance.login("ada")
    stranger = await Instance(KeyRing(OLD)).login("ada")

    await instance.read({})
    await instance.read({NAME: b"x"})
    await instance.read(stranger)
    instance.clock.now += 14 * 24 * HOUR
    await instance.read(jar)

    assert [] == instance.calls()


@scenario
async def test_session_is_asked_for_before_it_is_opened() -> None:
    """It says how. Twice asks once."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    session = instance.manager.session([(b"cookie", NAME + b"=" + jar[NAME])])

    with pytest.raises(RuntimeError, match=r"await load_session\(request\)"):
        session.mark_accessed()
    await session.load()
    await session.load()

    assert {"user": "ada"} == session.data
    assert ["load"] * 3 == instance.calls()


@scenario
async def test_tasks_of_one_request_see_one_answer() -> None:
    """The first that comes: what another hears later, or does not hear, changes nothing."""
    instance = slow_instance(check_every=0)
    jar = await instance.login("ada")
    session = instance.manager.session([(b"cookie", NAME + b"=" + jar[NAME])])
    instance.store.held = held = asyncio.Event()
    second = asyncio.ensure_future(session.load())
    await until_waiting()
    instance.store.held = None
    await session.load()
    instance.store.failing = {"load"}
    held.set()
    await second
    instance.store.failing = set()
    session.data["n"] = 1

    assert 1 == len(await instance.save(session, jar))
    assert {"user": "ada", "n": 1} == await instance.read(jar)


@scenario
async def test_transaction_needs_a_store_of_sessions() -> None:
    """A revocation keeps none."""
    session = await Instance().open({})

    with pytest.raises(ConfigurationError, match="transact"):
        await session.transact(lambda data: data)


@pytest.mark.parametrize("days", [13, 14], ids=["shorter", "as-long"])
@scenario
async def test_session_lives_no_longer_than_its_ending_is_known(days: int) -> None:
    """However often it is extended."""
    instance = Instance()
    jar = await instance.login("ada")
    instance.clock.now += 10 * 24 * HOUR
    session = await instance.open(jar)

    session.expire_after(timedelta(days=days))

    assert timedelta(days=4) == session.remaining
    with pytest.raises(ConfigurationError, match="no session lives longer than the manager's lifetime"):
        session.expire_after(timedelta(days=14, seconds=1))


# Logout


@pytest.mark.parametrize("how", ["clear", "data.clear", "end"])
@scenario
async def test_copy_of_a_cookie_opens_nothing_after_a_logout(how: str) -> None:
    """Case F71. Here at once, elsewhere within the interval, and for as long as the cookie lives."""
    here = Instance()
    there = here.another()
    jar = await here.login("ada", lifetime="x")
    copy = dict(jar)
    await there.read(copy)
    session = await here.open(jar)
    if how == "clear":
        session.clear()
    elif how == "data.clear":
        session.data.clear()
        session.subject = None
    else:
        await here.manager.end(session.id_hash)
    await here.save(session, jar)

    at_once = await here.read(copy)
    here.clock.now += EVERY - 0.001
    stale = await there.read(copy)
    here.clock.now += 0.001
    in_time = await there.read(copy)
    here.clock.now += 14 * 24 * HOUR - EVERY - 1

    assert ({}, "ada", {}) == (at_once, stale["user"], in_time)
    assert ({}, {}) == (await here.read(copy), await there.read(copy))


@pytest.mark.parametrize("revocable", [True, False], ids=["revocation", "none"])
@scenario
async def test_logout_races_fifty_slow_responses(revocable: bool) -> None:
    """Case F72. With a revocation the session stays gone; without one the last response brings it back."""
    instance = Instance(check_every=0)
    if not revocable:
        instance.manager = instance.manager.with_configuration(revocation=None)
    jar = await instance.login("ada")
    started = asyncio.Event()

    async def slow(number: int) -> list[bytes]:
        session = await instance.open(jar)
        session.data[f"n{number}"] = number
        await started.wait()
        for _ in range(number % 7):  # in many orders
            await asyncio.sleep(0)
        return await instance.save(session, last)

    async def leave() -> None:
        await started.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        await instance.logout(dict(jar))

    last: Jar = dict(jar)
    tasks = [asyncio.create_task(slow(number)) for number in range(50)]
    leaving = asyncio.create_task(leave())
    for _ in range(20):
        await asyncio.sleep(0)
    started.set()
    await asyncio.gather(leaving, *tasks)

    assert bool(await instance.read(last)) is not revocable
    assert bool(await instance.read(jar)) is not revocable


@scenario
async def test_response_after_a_logout_changes_no_cookie() -> None:
    """The browser's is deleted, or another's by then. The loss is reported, where there is one."""
    instance = Instance()
    jar = await instance.login("ada")
    changed, renewed, read = [await instance.open(jar) for _ in range(3)]
    await instance.logout(dict(jar))

    changed.data["n"] = 1
    renewed.renew()
    read.mark_accessed()
    lines = [await instance.save(session, jar) for session in (changed, renewed, read)]
    for session in (changed, renewed, read):
        await instance.manager.save_late(session)

    assert [[], [], []] == lines
    assert 2 == len(instance.of(LateWrite))


@scenario
async def test_login_after_a_logout_in_one_request_lives() -> None:
    """It is another session, and what is left to be done after the response does not end it."""
    instance = Instance()
    jar = await instance.login("ada")
    old = dict(jar)
    session = await instance.open(jar)
    session.clear()
    session.renew()
    session.data["user"] = "bob"

    await instance.save(session, jar)
    await instance.manager.save_late(session)

    assert ({"user": "bob"}, {}) == (await instance.read(jar), await instance.read(old))
    assert [] == instance.of(LateWrite)


@scenario
async def test_late_logout_ends_the_session() -> None:
    """Its cookie stays, and opens nothing. What was stored after it is lost."""
    instance = Instance()
    jar = await instance.login("ada")
    leaving, other = await instance.open(jar), await instance.open(jar)
    await instance.save(leaving, jar)

    leaving.clear()
    await instance.manager.save_late(leaving)
    silent = instance.of(LateWrite)
    other.clear()
    other.data["user"] = "bob"
    await instance.manager.save_late(other)

    assert {} == await instance.read(jar)
    assert [] == silent
    assert 1 == len(instance.of(LateWrite))


@scenario
async def test_late_logout_ends_what_the_same_response_has_begun() -> None:
    """A session that the client has got with the headers, and no other before."""
    instance = Instance()
    jar: Jar = {}
    session = await instance.open(jar)
    session.data["user"] = "ada"
    await instance.save(session, jar)

    session.clear()
    await instance.manager.save_late(session)

    assert [NAME] == list(jar)
    assert {} == await instance.read(jar)
    assert [] == instance.of(LateWrite)


@scenario
async def test_late_logout_after_a_logout_asks_nothing() -> None:
    """There is nothing left to be ended."""
    instance = Instance()
    jar = await instance.login("ada")
    session = await instance.open(jar)
    session.clear()
    await instance.save(session, jar)
    instance.calls()

    session.clear()
    await instance.manager.save_late(session)

    assert [] == instance.calls()
    assert [] == instance.of(LateWrite)


@scenario
async def test_late_change_is_reported() -> None:
    """In whatever way it cannot be saved. A fresh session that is cleared is none."""
    instance = Instance()
    jar = await instance.login("ada")
    changed, strange, leaving = [await instance.open(jar) for _ in range(3)]
    fresh = await instance.open({})

    changed.data["n"] = 1
    strange.data["n"] = object()
    leaving.clear()
    fresh.clear()
    for session in (changed, strange, fresh):
        await instance.manager.save_late(session)
    reported = len(instance.of(LateWrite))
    instance.store.failing = ALL
    await instance.manager.save_late(leaving)

    assert 2 == reported
    assert 1 == len(instance.of(LateWrite))
    assert 1 == len(instance.of(StoreFailed))


# Renewal


@scenario
async def test_login_gives_a_new_id_and_ends_the_old_one() -> None:
    """Case F70. After a grace in which requests under way still see what they came with, and save nothing."""
    here = Instance(check_every=0)
    there = here.another()
    jar: Jar = {}
    await here.put(jar, cart=["tea"])
    old = dict(jar)
    before = await here.hash(old)

    await here.login("ada", jar)
    in_grace = await there.read(old)
    written = await there.put(dict(old), n=1)
    here.clock.now += GRACE

    assert before != await here.hash(jar)
    assert ({"cart": ["tea"]}, []) == (in_grace, written)
    assert ({}, {}) == (await here.read(old), await there.read(old))
    assert {"cart": ["tea"], "user": "ada"} == await there.read(jar)
    assert 1 == len(there.of(LateWrite))


@pytest.mark.parametrize(("check_every", "user"), [(0, "ada"), (EVERY, None)])
@scenario
async def test_old_id_changes_nothing_in_a_process_that_has_noticed(check_every: float, user: str | None) -> None:
    """One that has not may put the old cookie back: the price of asking the store more seldom."""
    instance = Instance(check_every=check_every)
    other = instance.another()
    jar: Jar = {}
    await instance.put(jar, cart="tea")
    slow = await other.open(jar)
    slow.data["seen"] = 1

    await instance.login("ada", jar)
    await other.save(slow, jar)
    instance.clock.now += GRACE

    assert user == (await instance.read(jar)).get("user")


@scenario
async def test_dead_old_id_deletes_no_cookie() -> None:
    """The browser has the newer one's there. That of a session which was ended is deleted."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    old = dict(jar)
    await instance.renew(jar)
    instance.clock.now += GRACE

    late = await instance.put(dict(old))
    for end in (instance.manager.end_all("ada"), instance.manager.end(await instance.hash(jar))):
        await end
        late += await instance.put(dict(old))

    assert [] == late
    assert 1 == len(await instance.put(dict(jar)))


@scenario
async def test_logout_by_an_old_id_ends_the_newer() -> None:
    """And the other way round."""
    instance = Instance(check_every=0)
    jars = [await instance.login("ada") for _ in range(2)]
    olds = [dict(jar) for jar in jars]
    for jar in jars:
        await instance.renew(jar)
        await instance.renew(jar)

    await instance.logout(dict(olds[0]))
    await instance.logout(dict(jars[1]))

    assert [{}] * 4 == [await instance.read(jar) for jar in (*jars, *olds)]


@scenario
async def test_ending_by_an_old_id_lasts_for_as_long_as_the_newer_could_live() -> None:
    """Which began thirteen days later. That of the old id goes with the old id's own time."""
    day = 24 * HOUR
    instance = Instance()
    old = await instance.login("ada")
    instance.clock.now += 13 * day
    newer = dict(old)
    await instance.renew(newer)

    await instance.logout(dict(old))

    instance.clock.now += 13 * day
    assert {} == await instance.another().read(newer)
    left = []
    for seconds in (0, day, MARGIN):  # longer than the session, for a clock that is behind
        instance.clock.now += seconds
        left.append(len(instance.store))
    assert [1, 1, 0] == left


@scenario
async def test_first_of_two_renewals_wins() -> None:
    """The other's response changes no cookie: the browser has one, or is about to."""
    here = Instance()
    there = here.another()
    jar = await here.login("ada")
    first, second = await here.open(jar), await there.open(jar)
    first.renew()
    second.renew()
    first.data["n"] = 1

    lines = await here.save(first, jar), await there.save(second, dict(jar))

    assert (1, 0) == tuple(len(each) for each in lines)
    assert {"user": "ada", "n": 1} == await there.read(jar)
    assert 1 == len(there.of(LateWrite))


class Late(Books):
    """A store in which another process is faster, with whatever it does just before the first create()."""

    faster: Callable[[], Any] | None = None

    async def create(self, key: bytes, record: Record) -> bool:
        faster, self.faster = self.faster, None
        if faster is not None:
            await faster()
        return await super().create(key, record)


@pytest.mark.parametrize("deed", ["renew", "end"])
@scenario
async def test_renewal_that_another_overtakes_sets_no_cookie(deed: str) -> None:
    """Between its last look and its own entry."""
    clock = Clock()
    here = Instance(store=Late(clock), clock=clock, check_every=0)
    there = here.another()
    jar = await here.login("ada")
    theirs = dict(jar)
    hash = await here.hash(jar)
    here.store.faster = lambda: there.renew(theirs) if deed == "renew" else there.manager.end(hash)

    assert [] == await here.renew(jar)
    assert bool(await there.read(theirs)) is (deed == "renew")


@pytest.mark.parametrize("everything", [True, False], ids=["everything", "subject"])
@scenario
async def test_renewal_is_no_way_out_of_an_ending(everything: bool) -> None:
    """In a process that relies on what it heard before: the renewed session would have begun after it."""
    here = Instance()
    there = here.another()
    stolen = await here.login("ada")
    await there.read(stolen)
    here.clock.now += 1
    await (here.manager.end_everything() if everything else here.manager.end_all("ada"))
    here.clock.now += 1

    stale = await there.read(stolen)
    lines = await there.renew(stolen)
    here.clock.now += EVERY

    assert ({"user": "ada"}, []) == (stale, lines)
    assert {} == await there.read(stolen)


@pytest.mark.parametrize("everything", [True, False], ids=["everything", "subject"])
@scenario
async def test_renewal_while_an_ending_is_on_its_way_is_no_way_out(everything: bool) -> None:
    """It began after the ending was asked for, and its process could not know of it."""
    clock = Clock()
    here = Instance(store=Late(clock), clock=clock, check_every=0)
    stolen = await here.login("ada")

    async def renew_meanwhile() -> None:
        clock.now += 0.25
        assert 1 == len(await here.renew(stolen))
        clock.now += 0.25

    clock.now += 0.25
    here.store.faster = renew_meanwhile
    await (here.manager.end_everything() if everything else here.manager.end_all("ada"))

    assert {} == await here.read(stolen)


@scenario
async def test_request_with_a_dead_session_spares_nobody() -> None:
    """end_all(except_id=) in a process that has not heard yet does not bring the session back, nor a renewed one."""
    here = Instance()
    there = here.another()
    stolen = await here.login("ada")
    await there.read(stolen)
    here.clock.now += 1
    await here.manager.end_all("ada")
    here.clock.now += 1
    session = await there.open(stolen)

    await there.manager.end_all("ada", except_id=session.id)
    session.renew()
    await there.manager.end_all("ada", except_id=session.id)
    lines = await there.save(session, stolen)

    assert [] == lines
    assert {} == await here.read(stolen)


@pytest.mark.parametrize("renew_first", [True, False], ids=["renew-first", "end-first"])
@scenario
async def test_change_of_password_keeps_the_session_that_makes_it(renew_first: bool) -> None:
    """Renewed, before or after the others have ended."""
    instance = Instance(check_every=0)
    jar, other = [await instance.login("ada") for _ in range(2)]
    instance.clock.now += 1
    old = dict(jar)
    session = await instance.open(jar)
    if renew_first:
        session.renew()
    await instance.manager.end_all("ada", except_id=session.id)
    instance.clock.now += 1
    if not renew_first:
        session.renew()

    await instance.save(session, jar)

    assert ({"user": "ada"}, {}) == (await instance.read(jar), await instance.read(other))
    assert {"user": "ada"} == await instance.read(old)
    instance.clock.now += GRACE
    assert {} == await instance.read(old)


@scenario
async def test_login_within_the_second_of_an_ending_lives() -> None:
    """As a password that was forgotten is set anew: all sessions end, and one begins."""
    instance = Instance(check_every=0)
    instance.clock.now += 0.25
    old = await instance.login("ada")
    instance.clock.now += 0.25
    jar: Jar = {}
    await instance.put(jar, cart=[])
    await instance.manager.end_all("ada")
    instance.clock.now += 0.25

    await instance.login("ada", jar)

    assert ({}, "ada") == (await instance.read(old), (await instance.read(jar))["user"])


@scenario
async def test_too_large_a_session_has_ended_nothing() -> None:
    """What is to replace it cannot be sent."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    for clears in (True, False):
        session = await instance.open(jar)
        if clears:
            session.clear()
        session.renew()
        session.data["text"] = "x" * 20_000

        with pytest.raises(SessionTooLarge):
            await instance.save(session, jar)

    assert {"user": "ada"} == await instance.read(jar)


@scenario
async def test_unchanged_session_under_an_old_key_is_sealed_anew() -> None:
    """Unless it has ended: then its cookie stays as it is, and nothing is reported as lost."""
    old = Instance(KeyRing(OLD), check_every=0)
    instance = old.another(KeyRing(KEY, OLD))
    jar = await old.login("ada")
    ended, live = await instance.open(jar), await instance.open(jar)
    for session in (ended, live):
        session.mark_accessed()

    sealed = await instance.save(live, dict(jar))
    await old.logout(dict(jar))

    assert (1, []) == (len(sealed), await instance.save(ended, jar))
    assert [] == instance.of(LateWrite)


# Lists


async def listed(instance: Instance, user: str = "ada") -> list[str]:
    """The hashes in a user's list."""
    return [info.id_hash for info in await instance.manager.sessions(user)]


@scenario
async def test_list_shows_what_lives() -> None:
    """Through login, use, renewal and every way of ending, and not what is somebody else's."""
    instance = Instance(track=True, check_every=0, idle_timeout=timedelta(hours=1))
    jars = [await instance.login("ada") for _ in range(5)]
    await instance.login("bob")
    await instance.renew(jars[0])
    await instance.logout(jars[1])
    await instance.manager.end((await instance.manager.sessions("ada"))[-1])
    assert 3 == len(await instance.store.find(subject_key("ada")))
    instance.clock.now += HOUR / 2 + 1
    for jar in jars:
        if await instance.read(jar):
            await instance.put(jar)
    instance.clock.now += HOUR / 2
    live = [await instance.hash(jar) for jar in jars if await instance.read(jar)]

    assert 3 == len(live)
    assert sorted(live) == sorted(await listed(instance))
    assert 3 == await instance.manager.end_all("ada")
    assert [] == await listed(instance)
    assert {} == await instance.store.find(subject_key("ada"))


@scenario
async def test_list_has_what_was_sealed_under_a_key_that_is_gone() -> None:
    """The record of a session changes its key with its cookie: a key that is retired at once takes neither."""
    before = Instance(KeyRing(OLD), track=True)
    jar = await before.login("ada")
    during, after = before.another(KeyRing(KEY, OLD)), before.another(KeyRing(KEY))
    session = await during.open(jar)
    session.mark_accessed()

    await during.save(session, jar)

    assert {"user": "ada"} == await after.read(jar)
    assert [await after.hash(jar)] == [info.id_hash for info in await after.manager.sessions("ada")]


@scenario
async def test_list_tells_of_label_and_use() -> None:
    """A change of the data alone asks the store nothing."""
    instance = Instance(track=True, idle_timeout=timedelta(hours=1))
    jar = await instance.login("ada", secret="tea and cakes")  # noqa: S106  to be found nowhere
    session = await instance.open(jar)
    session.label = "Firefox"
    await instance.save(session, jar)
    instance.calls()
    await instance.put(jar, n=1)
    quiet = instance.calls()
    instance.clock.now += HOUR / 2 + 1
    await instance.put(jar)

    [info] = await instance.manager.sessions("ada")

    assert [] == quiet
    assert ("Firefox", HOUR / 2 + 1) == (info.label, (info.used_at - info.created_at).total_seconds())
    again = await instance.open(jar)
    assert (again.created_at, again.expires_at) == (info.created_at, info.expires_at)


@scenario
async def test_session_of_nobody_is_not_written_to_any_list() -> None:
    """Nor looked for in one when it becomes somebody's."""
    instance = Instance(track=True)
    jar: Jar = {}
    session = await instance.open(jar)
    session.data["n"], session.label = 1, "Firefox"
    await instance.save(session, jar)

    before = instance.calls()
    await instance.login("ada", jar)

    assert [] == before
    assert "delete" not in instance.calls()
    assert [await instance.hash(jar)] == await listed(instance)


@scenario
async def test_list_holds_no_data() -> None:
    """However much there is of it: who has the keys and the store has no more than the list."""
    instance = Instance(track=True)

    await instance.login("ada", text="x" * 1000)

    [record] = (await instance.store.find(subject_key("ada"))).values()
    assert len(record.value) < 300


@pytest.mark.parametrize("minutes", [1, 14, 16, 29])
@scenario
async def test_session_whose_data_alone_changes_is_listed_while_it_lives(minutes: int) -> None:
    """And for half of its idle timeout after that. The list is written once in each half."""
    idle, times = 1800, 180 // minutes
    instance = Instance(track=True, idle_timeout=timedelta(seconds=idle))
    jar = await instance.login("ada")
    hash = await instance.hash(jar)
    instance.calls()
    for number in range(times):
        instance.clock.now += minutes * 60
        await instance.put(jar, n=number)
    written = instance.calls().count("replace")
    instance.clock.now += idle - 1
    alive = await instance.read(jar)

    lists = [await listed(instance)]
    instance.clock.now += idle / 2 + 1
    lists.append(await listed(instance))

    assert {"user": "ada", "n": times - 1} == alive
    assert [[hash], []] == lists
    assert min(times, 12) >= written


@scenario
async def test_session_that_is_nobodys_any_more_is_in_no_list() -> None:
    """Or somebody else's."""
    instance = Instance(track=True)
    jar = await instance.login("ada")
    owners: list[tuple[list[str], list[str]]] = []
    for subject in ("bob", None, "ada"):
        session = await instance.open(jar)
        session.subject = subject
        await instance.save(session, jar)
        owners.append((await listed(instance), await listed(instance, "bob")))

    hash = await instance.hash(jar)

    assert [([], [hash]), ([], []), ([hash], [])] == owners


@scenario
async def test_list_has_what_was_tracked() -> None:
    """Without tracks there is none, and with those of others a session may come from another key."""
    instance = Instance()
    await instance.login("ada")

    with pytest.raises(ConfigurationError, match=r"Revocation\(track=True\)"):
        await instance.manager.sessions("ada")
    assert 0 == await instance.manager.end_all("ada")


@scenario
async def test_renewal_that_is_half_done_is_listed_once() -> None:
    """Where the store fails between the ending and the lists, the session is renewed, and the operator told."""
    instance = Instance(track=True, check_every=0)
    jar = await instance.login("ada")
    instance.store.failing = {"delete"}

    lines = await instance.renew(jar)
    instance.store.failing = set()

    assert 1 == len(lines)
    assert [await instance.hash(jar)] == await listed(instance)
    assert 1 == len(instance.of(StoreFailed))


@scenario
async def test_track_that_does_not_open_is_written_anew() -> None:
    """Of a key that is gone: the session is not left out of all lists to come."""
    instance = Instance(KeyRing(OLD), track=True)
    jar = await instance.login("ada")
    other = instance.another(KeyRing(KEY, OLD))
    hash = bytes.fromhex(await instance.hash(jar))
    instance.store._records[hash] = instance.store._records[hash]._replace(value=b"x")
    session = await other.open(jar)
    session.label = "Firefox"

    assert 1 == len(await other.save(session, jar))
    assert [await other.hash(jar)] == await listed(other)


@scenario
async def test_end_tells_whether_there_was_anything_to_end() -> None:
    """Of an old id, whether there was a newer one."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    old = await instance.hash(jar)
    await instance.renew(jar)
    instance.clock.now += GRACE

    ended = [await instance.manager.end(old), await instance.manager.end(old)]

    assert [True, False] == ended
    assert {} == await instance.read(jar)


@scenario
async def test_end_of_a_time_ends_what_began_before() -> None:
    """Of a subject, or of all."""
    instance = Instance(check_every=0, track=True)
    first = await instance.login("ada")
    instance.clock.now += 10
    moment = datetime.fromtimestamp(instance.clock.now - 5, UTC)
    second, other = await instance.login("ada"), await instance.login("bob")

    count = await instance.manager.end_all("ada", before=moment)
    after_one = [await instance.read(jar) for jar in (first, second)]
    await instance.manager.end_everything(before=datetime.fromtimestamp(instance.clock.now + 1, UTC))

    assert (1, [{}, {"user": "ada"}]) == (count, after_one)
    assert [{}, {}] == [await instance.read(jar) for jar in (second, other)]


# A store that is down


@scenario
async def test_closed_and_down_is_as_good_as_ended() -> None:
    """The cookie stays as it is and counts again later; a logout deletes it all the same."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    instance.store.failing = ALL
    session = await instance.open(jar)
    leaving = await instance.open(jar)

    fresh = dict(session.data)
    session.data["user"] = "bob"
    lines = await instance.save(session, jar)
    await instance.manager.save_late(session)
    late = instance.of(LateWrite)
    leaving.clear(site_data=True)
    headers = await instance.manager.save(leaving)
    instance.store.failing = set()

    assert ({}, []) == (fresh, lines)
    assert 1 == len(late)
    assert [b"set-cookie", b"clear-site-data"] == [name for name, _ in headers]
    assert b"Max-Age=0" in headers[0][1]
    assert {"user": "ada"} == await instance.read(jar)
    assert 2 == len(instance.of(StoreFailed))


@scenario
async def test_late_logout_without_a_store_is_reported() -> None:
    """Neither the cookie nor the store hears of it."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    instance.store.failing = ALL
    session = await instance.open(jar)
    session.mark_accessed()
    await instance.save(session, jar)

    session.clear()
    await instance.manager.save_late(session)

    assert 1 == len(instance.of(LateWrite))


def leave(session: Session[Any]) -> None:
    """A logout."""
    session.clear()


def renew(session: Session[Any]) -> None:
    """A login."""
    session.renew()
    session.data["n"] = 1


@pytest.mark.parametrize("deed", [leave, renew])
@pytest.mark.parametrize("failing", [ALL, WRITES], ids=["down", "read-only"])
@scenario
async def test_save_that_the_store_fails_can_be_repeated(
    deed: Callable[[Session[Any]], None], failing: set[str]
) -> None:
    """Closed: it raises, the client keeps what it has, and so does the request."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    old = dict(jar)
    session = await instance.open(jar)
    deed(session)
    instance.store.failing = failing

    with pytest.raises(StoreUnavailable):
        await instance.save(session, jar)
    kept = dict(jar)
    instance.store.failing = set()
    lines = await instance.save(session, jar)
    await instance.manager.save_late(session)
    instance.clock.now += GRACE

    assert (old, 1) == (kept, len(lines))
    assert {} == await instance.read(old)
    assert ({} if deed is leave else {"user": "ada", "n": 1}) == await instance.read(jar)


@scenario
async def test_browser_is_asked_to_forget_the_site_when_the_save_is_repeated() -> None:
    """What a failed save has not sent is sent by the next one."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    session = await instance.open(jar)
    session.clear(site_data=True)
    instance.store.failing = ALL

    with pytest.raises(StoreUnavailable):
        await instance.manager.save(session)
    instance.store.failing = set()
    headers = await instance.manager.save(session)

    assert [b"set-cookie", b"clear-site-data"] == [name for name, _ in headers]


@pytest.mark.parametrize("deed", [leave, renew])
@scenario
async def test_open_goes_on_without_a_store(deed: Callable[[Session[Any]], None]) -> None:
    """By choice: the session counts, the response is sent, and each failure is an event."""
    instance = Instance(check_every=0, fail_open=True)
    jar = await instance.login("ada")
    instance.store.failing = ALL
    session = await instance.open(jar)
    deed(session)

    lines = await instance.save(session, jar)

    assert 1 == len(lines)
    assert ({} if deed is leave else {"user": "ada", "n": 1}) == await instance.read(jar)
    assert len(instance.of(StoreFailed)) >= 2


@scenario
async def test_open_and_down_an_old_id_saves_nothing() -> None:
    """If it was known to be one before."""
    instance = Instance(check_every=0, fail_open=True)
    jar = await instance.login("ada")
    session = await instance.open(jar)
    old = dict(jar)
    await instance.renew(jar)
    session = await instance.open(old)
    session.data["n"] = 1
    instance.store.failing = ALL

    assert [] == await instance.save(session, old)
    assert 1 == len(instance.of(LateWrite))


@scenario
async def test_store_that_is_down_ends_nothing_between_requests() -> None:
    """It raises, open or not."""
    instance = Instance(check_every=0, fail_open=True, track=True)
    jar = await instance.login("ada")
    hash = await instance.hash(jar)
    instance.store.failing = ALL

    for end in (instance.manager.end(hash), instance.manager.end_all("ada"), instance.manager.end_everything()):
        with pytest.raises(StoreUnavailable):
            await end


@scenario
async def test_ended_session_is_an_event() -> None:
    """Of a kind with those that a cookie gives no session for, and of a logout."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    await instance.logout(dict(jar))

    await instance.read(jar)

    assert ["ended"] == [event.reason for event in instance.of(Rejected)]
    assert 1 == len(instance.of(Cleared))
