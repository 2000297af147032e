"""Races and sequences of server-side sessions that once went wrong: fixation, revival, lost updates, stale cookies."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from harness import START, Clock
from msgspec import Struct
from test_servermode import GRACE, HOUR, KEY, NAME, OLD, RING, Books, Site, scenario

from cookiesession import (
    ConfigurationError,
    Cookie,
    Key,
    KeyRing,
    Session,
    SessionEnded,
    SessionManager,
    SessionTooLarge,
    StoreUnavailable,
)
from cookiesession.codec import MAX_ENCODED
from cookiesession.events import LateWrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cookiesession.stores import Record

# 1. renew() and clear() against transact()


@scenario
async def test_renewal_before_a_transaction_changes_the_id() -> None:
    """Session fixation: the id of before the login is that of after it."""
    site = Site()
    await site.put(n=0)
    fixed = dict(site.jar)
    session = await site.open()
    before = session.id

    session.renew()
    session.subject = "42"
    await session.transact(lambda data: data.update(n=1))
    await site.save(session)
    site.clock.now += GRACE

    assert before != (await site.open()).id
    assert {} == (await site.open(fixed)).data


@scenario
async def test_transaction_after_clear_begins_a_new_session() -> None:
    """And does not bring back the old one's data."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    session = await site.open()

    session.clear()
    await session.transact(lambda data: data.update(theme="dark"))
    await site.save(session)

    assert {"theme": "dark"} == await site.read()
    assert {} == (await site.open(copy)).data


# 2. clear() before renew()


@scenario
async def test_cleared_session_has_no_grace() -> None:
    """clear() and renew() at a login: the old user's id opens nothing."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    session = await site.open()

    session.clear()
    session.renew()
    session.data["user"] = "bob"
    await site.save(session)

    assert {} == (await site.open(copy)).data


@scenario
async def test_next_user_sees_nothing_of_the_last() -> None:
    """A concurrent request of the old session does not carry its data into the new one."""
    site = Site()
    await site.put(user="ada", word="ada's")
    session, other = await site.open(), await site.open()
    other.data["cart"] = ["tea"]
    await site.save(other)

    session.clear()
    session.renew()
    session.data["user"] = "bob"
    await site.save(session)

    assert {"user": "bob"} == await site.read()


@scenario
async def test_late_clear_and_renew_end_the_session() -> None:
    """The logout counts."""
    site = Site()
    await site.put(user="ada")
    session = await site.open()
    session.mark_accessed()
    await site.save(session)

    session.clear()
    session.renew()
    await site.manager.save_late(session)

    assert 0 == len(site.store)


# 3. overflow


@scenario
async def test_overflow_revives_no_ended_session() -> None:
    """A request that makes the session small again, after a logout elsewhere."""
    site = Site(overflow=True)
    await site.put(text="x" * 20_000, user="ada")
    slow, leaving = await site.open(), await site.open()
    leaving.clear()
    await site.save(leaving)

    del slow.data["text"]
    await site.save(slow)

    assert {} == await site.read()


@scenario
async def test_overflow_loses_no_change_on_its_way_back() -> None:
    """Another request's."""
    site = Site(overflow=True)
    await site.put(text="x" * 20_000)
    shrinking, other = await site.open(), await site.open()
    other.data["cart"] = ["tea"]
    await site.save(other)

    del shrinking.data["text"]
    shrinking.data["a"] = 1
    await site.save(shrinking)

    assert {"cart": ["tea"], "a": 1} == await site.read()


@scenario
async def test_overflow_there_and_back_and_there() -> None:
    """Within the grace, whose record is still there."""
    site = Site(overflow=True)
    await site.put(text="x" * 20_000)
    await site.put(text="x")
    await site.put(text="x" * 20_000)
    site.clock.now += 2 * GRACE

    assert 20_000 == len((await site.read())["text"])


@scenario
async def test_overflow_of_two_requests_at_once() -> None:
    """Both of one cookie."""
    site = Site(overflow=True)
    await site.put(a=1)
    first, second = await site.open(), await site.open()
    first.data["text"] = second.data["text"] = "x" * 20_000
    first.data["b"], second.data["c"] = 2, 3
    await site.save(first)
    await site.save(second)

    assert {"a", "b", "c", "text"} == set(await site.read())


@scenario
async def test_overflow_late_logout_is_reported() -> None:
    """Of a session that is in its cookie: never dropped in silence."""
    site = Site(overflow=True)
    await site.put(a=1)
    session = await site.open()
    session.mark_accessed()
    await site.save(session)

    session.clear()
    await site.manager.save_late(session)

    assert [LateWrite()] == site.of(LateWrite)


@scenario
async def test_overflow_has_no_transactions() -> None:
    """A session that is in its cookie has no newest version, and sessions begin there."""
    site = Site(overflow=True)
    session = await site.open()

    with pytest.raises(ConfigurationError, match="without overflow"):
        await session.transact(lambda data: data.update(n=1))


# 4. the cookie of a slow request


@scenario
async def test_request_under_way_leaves_the_renewed_cookie_alone() -> None:
    """Its response comes after the login's, and would sign the user out."""
    site = Site()
    await site.put(a=1)
    slow, login = await site.open(), await site.open()
    login.renew()
    login.data["user"] = 42
    await site.save(login)

    slow.data["b"] = 2
    await site.save(slow)

    assert 42 == (await site.read()).get("user")


@pytest.mark.parametrize("when", ["loaded in the grace", "touched only"])
@scenario
async def test_request_in_the_grace_leaves_the_renewed_cookie_alone(when: str) -> None:
    """Sent with the old cookie, loaded after the renewal."""
    site = Site(idle_timeout=timedelta(seconds=100))
    await site.put(a=1)
    site.clock.now += 60
    old = dict(site.jar)
    login = await site.open()
    login.renew()
    login.data["user"] = 42
    await site.save(login)

    slow = await site.open(old)
    slow.mark_accessed()
    if when != "touched only":
        slow.data["b"] = 2
    await site.save(slow)

    assert 42 == (await site.read()).get("user")


@scenario
async def test_slow_request_deletes_no_renewed_cookie() -> None:
    """One that takes longer than the grace, and changes something."""
    site = Site()
    await site.put(a=1)
    slow, login = await site.open(), await site.open()
    login.renew()
    login.data["user"] = 42
    await site.save(login)

    site.clock.now += GRACE
    slow.data["b"] = 2
    await site.save(slow)

    assert 42 == (await site.read()).get("user")


@scenario
async def test_old_id_lives_no_longer_than_the_grace() -> None:
    """Whatever requests under way do with it."""
    site = Site()
    await site.put(a=1)
    old = dict(site.jar)
    slow, login = await site.open(), await site.open()
    login.renew()
    await site.save(login)

    slow.expire_after(timedelta(days=30))
    await site.save(slow)
    site.clock.now += GRACE

    assert {} == (await site.open(old)).data


@scenario
async def test_logout_after_renewal_is_final() -> None:
    """A request under way with the old id cannot renew what was ended under the new one."""
    site = Site()
    await site.put(user="ada")
    slow, login = await site.open(), await site.open()
    login.renew()
    await site.save(login)
    leaving = await site.open()
    leaving.clear()
    await site.save(leaving)

    slow.renew()
    await site.save(slow)

    assert {} == await site.read()


@scenario
async def test_logout_by_an_old_id_is_one() -> None:
    """A second tab, whose request has left before the renewal's cookie came."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    login = await site.open()
    login.renew()
    await site.save(login)

    leaving = await site.open(copy)
    leaving.clear()
    lines = await site.save(leaving)

    assert b"Max-Age=0" in lines[0]
    assert 0 == len(site.store)


# 5. emptied data


@scenario
async def test_emptied_session_keeps_what_others_have_put_in() -> None:
    """A flash message that is popped is no logout."""
    site = Site()
    await site.put(flash="saved")
    popping, other = await site.open(), await site.open()
    other.data["cart"] = ["tea"]
    await site.save(other)

    popping.data.pop("flash")
    await site.save(popping)

    assert {"cart": ["tea"]} == await site.read()


# 6. concurrency within one request


@scenario
async def test_transactions_at_once_in_one_request() -> None:
    """Both count."""
    site = Site()
    await site.put(n=0)
    session = await site.open()

    def increment(data: dict[str, Any]) -> None:
        data["n"] += 1

    await asyncio.gather(session.transact(increment), session.transact(increment))
    assert 2 == session.data["n"]
    await site.save(session)

    assert {"n": 2} == await site.read()


@scenario
async def test_change_during_a_transaction_is_kept() -> None:
    """By another task of the request."""
    site = Site()
    await site.put(n=0)
    session = await site.open()

    async def other() -> None:
        session.data["b"] = 2

    await asyncio.gather(session.transact(lambda data: data.update(n=1)), other())
    await site.save(session)

    assert {"n": 1, "b": 2} == await site.read()


@scenario
async def test_loading_twice_at_once_takes_nothing_back() -> None:
    """The second answer is newer than what the handler works on."""
    site = Site()
    await site.put(a=1)
    session = site.manager.session([(b"cookie", NAME + b"=" + site.jar[NAME])])
    real, saved = site.store.load, asyncio.Event()

    async def slow(key: bytes) -> Any:
        await saved.wait()
        return await real(key)

    site.store.load = slow  # type: ignore[method-assign]
    second = asyncio.create_task(_awaited(session.load()))
    await asyncio.sleep(0)
    site.store.load = real  # type: ignore[method-assign]
    await session.load()
    session.data["b"] = 2
    await site.put(c=3)
    saved.set()
    await second
    await site.save(session)

    assert {"a": 1, "b": 2, "c": 3} == await site.read()


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


@scenario
async def test_late_change_keeps_what_the_save_before_has_merged() -> None:
    """The handler does not see it, and its late change is no removal of it."""
    site = Site()
    await site.put(a=1)
    session, other = await site.open(), await site.open()
    other.data["theirs"] = 1
    await site.save(other)
    session.data["mine"] = 1
    await site.save(session)

    session.data["late"] = 1
    await site.manager.save_late(session)

    assert {"a": 1, "theirs": 1, "mine": 1, "late": 1} == await site.read()


# 7. end_all


@scenario
async def test_end_all_ends_a_session_that_is_renewed_meanwhile() -> None:
    """Whoever keeps renewing does not escape."""
    site = Site()
    session = await site.open()
    session.data["a"] = 1
    session.subject = "42"
    await site.save(session)
    renewing = await site.open()
    renewing.mark_accessed()
    renewing.renew()

    real = site.store.find

    async def find(subject: bytes) -> Any:
        found = await real(subject)
        if not renewing._state.is_new and renewing._state.amended:
            await site.save(renewing)
        return found

    site.store.find = find  # type: ignore[method-assign]
    await site.manager.end_all("42")

    assert {} == await site.read()


@pytest.mark.parametrize("wrong", ["00", "zz", "id", "", " ab"])
@scenario
async def test_end_refuses_what_is_no_id_hash(wrong: str) -> None:
    """An id, say, which would quietly end nothing; and hands the store no key of another length."""
    site = Site()
    await site.put(a=1)
    if wrong == "id":
        wrong = (await site.open()).id
    site.calls()

    with pytest.raises(ValueError, match="id_hash"):
        await site.manager.end(wrong)
    assert [] == site.calls()


# 8. models


class Old(Struct):
    """A model."""

    a: int = 0


class New(Struct):
    """The same with another field."""

    a: int = 0
    n: int = 0


@scenario
async def test_new_field_of_a_model_is_no_change_of_everybody() -> None:
    """A record from before the field: who leaves it alone does not set it to its default."""
    old = Site(model=Old)
    session = await old.open()
    session.data.a = 1
    await old.save(session)
    site = old.another(model=New)
    first, second = await site.open(), await site.open()
    first.data.n = 5
    second.data.a = 2
    await site.save(first)
    await site.save(second)

    assert New(2, 5) == (await site.open()).data


@scenario
async def test_transaction_on_a_record_that_does_not_validate() -> None:
    """InvalidToken never leaves the manager."""

    class Strict(Struct):
        a: str = ""

    old = Site(model=Old)
    session = await old.open()
    session.data.a = 1
    await old.save(session)
    site = old.another(model=Strict)
    session = await site.open()

    await session.transact(lambda data: setattr(data, "a", "x"))
    await site.save(session)

    assert Strict("x") == (await site.open()).data


@scenario
async def test_compressed_data_of_the_largest_size_comes_back() -> None:
    """With a subject, which comes on top."""
    site = Site(compress=True)
    session = await site.open()
    session.data["t"] = "x" * (MAX_ENCODED - 8)
    session.subject = "42"
    await site.save(session)

    assert MAX_ENCODED - 8 == len((await site.read()).get("t", ""))


@scenario
async def test_compressed_cookie_of_the_largest_size_is_refused() -> None:
    """Rather than written, and not read."""
    manager = SessionManager(RING, compress=True, cookie=Cookie(max_chunks=8))
    session = manager.session([])
    session.data["t"] = "x" * (MAX_ENCODED - 8)
    session.subject = "42"

    with pytest.raises(SessionTooLarge):
        await manager.save(session)


# 9. a store that fails


@scenario
async def test_logout_without_a_store_is_not_ignored() -> None:
    """Also where requests go on without sessions: the cookie goes, or the caller hears of it."""
    site = Site(on_store_error="anonymous")
    await site.put(user="ada")
    site.store.failing = {"load", "delete"}
    session = await site.open()
    session.clear()
    lines = await site.save(session)
    site.store.failing = set()

    assert [] != lines or {} == await site.read()


@scenario
async def test_renewal_that_fails_leaves_no_live_copy() -> None:
    """hand_over() has created the new record when the old one cannot be expired."""
    site = Site()
    await site.put(a=1)
    session = await site.open()
    session.subject = "42"
    session.renew()
    site.store.failing = {"replace"}
    with pytest.raises(StoreUnavailable):
        await site.save(session)
    site.store.failing = set()

    assert [] == await site.manager.sessions("42")


def test_with_configuration_adds_up() -> None:
    """Each keeps what the last one changed."""
    site = Site()
    other = site.manager.with_configuration(clock=lambda: 5.0).with_configuration(compress=True)

    assert 5.0 == other.configuration.clock()


@scenario
async def test_payload_shows_nothing() -> None:
    """Frames of a crash reporter hold payloads."""
    site = Site()
    await site.put(word="tea-secret")
    session = await site.open()
    session.mark_accessed()

    state: Any = session._state
    said = repr(state.payload) + repr(state.held) + repr(state.ticket.payload)

    assert "tea-secret" not in said
    assert repr(bytes.fromhex(session.id))[2:-1] not in said


@scenario
async def test_session_cleared_during_a_transaction_stays_cleared() -> None:
    """By another task of the same request."""
    site = Site()
    await site.put(n=0)
    session = await site.open()

    transaction = asyncio.ensure_future(session.transact(lambda data: data.update(n=1)))
    await asyncio.sleep(0)
    session.clear()
    await transaction
    lines = await site.save(session)

    assert b"Max-Age=0" in lines[0]
    assert {} == session.data
    assert 0 == len(site.store)


class Failing(Books):
    """A store that fails the second time it is asked for a record, and later than it answers the first time."""

    loads = 0

    async def load(self, key: bytes) -> Record | None:
        self.loads += 1
        if self.loads == 2:
            await asyncio.sleep(0.01)
            raise StoreUnavailable("the store is away")
        return await super().load(key)


@scenario
async def test_session_that_a_task_has_loaded_stays_when_another_fails_to() -> None:
    """Both at once, of one request."""
    clock = Clock()
    site = Site(store=Failing(clock), clock=clock, on_store_error="anonymous")
    await site.put(a=1)
    session = site.manager.session([(b"cookie", b"%s=%s" % (NAME, site.jar[NAME]))])

    failing = [asyncio.ensure_future(session.load()) for _ in range(2)]
    await failing[0]
    session.data["b"] = 2
    await failing[1]
    await site.save(session)

    assert {"a": 1, "b": 2} == await site.read()


@scenario
async def test_cleared_overflow_begins_anew_in_the_cookie() -> None:
    """And its record goes."""
    site = Site(overflow=True)
    await site.put(text="x" * 20_000)
    copy = dict(site.jar)

    session = await site.open()
    session.clear()
    session.data["a"] = 1
    await site.save(session)

    assert {"a": 1} == await site.read()
    assert 0 == len(site.store)
    assert {} == (await site.open(copy)).data


@scenario
async def test_sessions_that_cannot_be_ended_are_not_passed_over() -> None:
    """A store that says yes and does nothing, or somebody who renews faster than that."""
    site = Site()
    session = await site.open()
    session.subject = "42"
    await site.save(session)

    async def pretend(key: bytes) -> bool:
        return True

    site.store.delete = pretend  # type: ignore[method-assign]

    with pytest.raises(StoreUnavailable, match="after 100 attempts to end them"):
        await site.manager.end_all("42")


@scenario
async def test_transaction_on_a_record_of_another_model_ends() -> None:
    """Which another version of the application has written meanwhile."""
    site = Site(model=Old)
    session = await site.open()
    session.data.a = 1
    await site.save(session)
    session = await site.open()
    await site.another().put(a="text")

    with pytest.raises(SessionEnded, match="none that this application reads"):
        await session.transact(lambda data: Old(2))


BIG = "x" * 20_000


@scenario
async def test_requests_of_one_session_fail_together() -> None:
    """Within one deadline, and not one deadline after the other. Case G80."""
    site = Site()
    await site.put(n=0)
    sessions = [await site.open() for _ in range(5)]
    calls = 0

    async def late(key: bytes) -> Any:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        raise StoreUnavailable("too late")

    site.store.load = late  # type: ignore[method-assign]

    transactions = (session.transact(lambda data: data.update(n=1)) for session in sessions)
    results = await asyncio.gather(*transactions, return_exceptions=True)

    assert [StoreUnavailable] * 5 == [type(result) for result in results]
    assert 1 == calls


@scenario
async def test_request_after_a_failure_does_not_fail_with_those_before_it() -> None:
    """The store is back, though they are not through yet."""
    site = Site()
    await site.put(n=0)
    sessions = [await site.open() for _ in range(50)]
    later = await site.open()
    site.store.failing = {"load"}
    waiting = [asyncio.ensure_future(session.transact(lambda data: data.update(n=1))) for session in sessions]

    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    site.store.failing = set()
    not_through = sum(not task.done() for task in waiting)
    await later.transact(lambda data: data.update(n=2))
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert not_through
    assert {StoreUnavailable} == {type(result) for result in results}
    assert {"n": 2} == await site.read()


@pytest.mark.parametrize("deed", ["end", "renew"])
@scenario
async def test_request_that_only_seals_anew_loses_nothing_to_others(deed: str) -> None:
    """Somebody has ended or renewed the session meanwhile: there is no change to report, and the cookie is theirs."""
    site = Site(KeyRing(OLD))
    await site.put(a=1)
    rotated = site.another(KeyRing(KEY, OLD))
    slow = await rotated.open()
    slow.mark_accessed()
    other = await rotated.open()
    other.clear() if deed == "end" else other.renew()
    await rotated.save(other)

    assert [] == await rotated.save(slow)
    assert [] == rotated.of(LateWrite)


@scenario
async def test_id_that_comes_back_has_no_old_version() -> None:
    """A session moves out and in again while a request is slow: its version is not mistaken for the present one."""
    site = Site(overflow=True)
    await site.put(text=BIG)
    slow = await site.open()
    await site.put(text="small")
    site.clock.now += GRACE
    await site.put(text=BIG + "new", b=2)

    slow.data["c"] = 3
    await site.save(slow)

    assert {"text": BIG + "new", "b": 2, "c": 3} == await site.read()


@scenario
async def test_requests_that_move_in_at_once_lose_nothing() -> None:
    """Over the record that the session left a moment ago. Of those that are slower one is slower still."""
    site = Site(overflow=True)
    await site.put(text=BIG)
    await site.put(text="small")
    sessions = {name: await site.open() for name in "abc"}
    for name, session in sessions.items():
        session.data.update({"text": BIG, name: 1})

    await asyncio.gather(*map(site.save, sessions.values()))

    assert {"text": BIG, "a": 1, "b": 1, "c": 1} == await site.read()
    assert [] == site.of(LateWrite)


@scenario
async def test_verbs_of_the_slower_request_that_moves_in_are_kept() -> None:
    """Its subject, say."""
    site = Site(overflow=True)
    await site.put(text="small")
    first, second = await site.open(), await site.open()
    first.data["text"] = second.data["text"] = BIG
    second.subject = "42"

    await site.save(first)
    await site.save(second)

    assert "42" == (await site.open()).subject


@scenario
async def test_record_that_expires_while_a_session_moves_in_is_none() -> None:
    """Between being in the way and being looked at. A store that goes on so is out of order."""
    for turns in (1, 100):
        site = Site(overflow=True)
        await site.put(text="small")
        session = await site.open()
        session.data["text"] = BIG
        real, refusals = site.store.create, iter(range(turns))

        async def in_the_way(key: bytes, record: Any, real: Any = real, refusals: Any = refusals) -> bool:
            return next(refusals, None) is None and await real(key, record)

        site.store.create = in_the_way  # type: ignore[method-assign]

        if turns == 1:
            await site.save(session)
            assert BIG == (await site.read())["text"]
        else:
            with pytest.raises(StoreUnavailable, match="changed 100 times while it was saved"):
                await site.save(session)


@pytest.mark.parametrize(
    ("keys", "ahead", "later"),
    [
        pytest.param(KeyRing(OLD, KEY), 0, 0, id="under-a-key-that-is-gone"),
        pytest.param(RING, 61, 0, id="of-the-future"),
        pytest.param(RING, 0, HOUR, id="that-is-over-but-for-the-store"),
    ],
)
@scenario
async def test_record_that_does_not_open_makes_room_for_a_session_that_moves_in(
    keys: KeyRing, ahead: int, later: int
) -> None:
    """It is nobody's session here, and keeps no response from a user whose cookie opens."""
    site = Site(overflow=True, store=Books(Clock(START - GRACE)))
    await site.put(text="small")
    elsewhere = Site(keys, store=site.store, clock=Clock(START + ahead), overflow=True)
    elsewhere.jar = dict(site.jar)
    session = await elsewhere.open()
    session.data["text"] = BIG
    session.expire_after(timedelta(seconds=HOUR))
    await elsewhere.save(session)
    site.clock.now += later

    await site.put(text=BIG, mine=1)

    assert {"text": BIG, "mine": 1} == await site.read()
    assert 1 == len(site.store)


@scenario
async def test_session_that_moves_in_over_what_does_not_open_leaves_who_is_faster() -> None:
    """Another request does the same at once, or a moment before."""
    for ahead in range(8):
        site = Site(overflow=True)
        await site.put(text="small")
        elsewhere = site.another(KeyRing(OLD, KEY), overflow=True)
        first, second = await site.open(), await site.open()
        await elsewhere.put(text=BIG)
        first.data.update(text=BIG, a=1)
        second.data.update(text=BIG, b=2)

        saving = asyncio.ensure_future(site.save(first))
        for _ in range(ahead):
            await asyncio.sleep(0)
        await site.save(second)
        await saving

        assert {"text": BIG, "a": 1, "b": 2} == await site.read()


@scenario
async def test_request_under_way_that_takes_the_last_entry_ends_no_login() -> None:
    """A flash message, say, taken out under the old id within the grace."""
    site = Site()
    await site.put(flash="hello")
    old = dict(site.jar)
    login = await site.open()
    login.renew()
    login.data["user"] = "alice"
    await site.save(login)

    under_way = await site.open(old)
    under_way.data.pop("flash")
    await site.save(under_way)

    assert "alice" == (await site.read()).get("user")


@scenario
async def test_cancelled_renewal_leaves_one_session() -> None:
    """Between the new record and the old: nobody learns of the new id. Case E63."""
    site = Site()
    session = await site.open()
    session.subject = "42"
    await site.save(session)
    session = await site.open()
    session.renew()
    real, hanging = site.store.replace, asyncio.Event()

    async def hang(key: bytes, record: Any, expected_version: int) -> bool:
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    site.store.replace = hang  # type: ignore[method-assign]
    saving = asyncio.ensure_future(site.save(session))
    await hanging.wait()
    saving.cancel()
    await asyncio.wait({saving})
    site.store.replace = real  # type: ignore[method-assign]

    assert 1 == len(await site.manager.sessions("42"))


@pytest.mark.parametrize(
    ("overflow", "act", "left"),
    [
        pytest.param(False, lambda session: session.renew(), {"user": "ada", "text": BIG}, id="renewed"),
        pytest.param(False, lambda session: session.data.clear(), {}, id="emptied"),
        pytest.param(True, lambda session: session.data.pop("text"), {"user": "ada"}, id="moved-into-the-cookie"),
    ],
)
@scenario
async def test_record_that_goes_at_once_may_expire_before_it_is_removed(
    *, overflow: bool, act: Callable[[Session[Any]], object], left: dict[str, Any]
) -> None:
    """In a store whose clock is ahead, or at the end of a second: nobody else has changed it."""
    site = Site(store=Books(Clock(START + 2)), overflow=overflow, renew_grace=timedelta(0))
    await site.put(user="ada", text=BIG)
    session = await site.open()

    act(session)
    lines = await site.save(session)

    assert 1 == len(lines)
    assert left == await site.read()
    assert [] == site.of(LateWrite)


@scenario
async def test_session_that_ends_while_it_is_ended_has_ended() -> None:
    """By two tabs that leave at once."""
    site = Site()
    await site.put(a=1)
    first, second = await site.open(), await site.open()
    for session in (first, second):
        session.clear()

    await asyncio.gather(site.save(first), site.save(second))

    assert 0 == len(site.store)
    assert (await site.open()).is_new


@scenario
async def test_change_that_another_renewal_leaves_behind_is_reported() -> None:
    """In time or late, together with a renewal of its own or without."""
    for late in (False, True):
        site = Site()
        await site.put(a=1)
        slow, login = await site.open(), await site.open()
        if late:
            slow.mark_accessed()
            await site.save(slow)
        login.renew()
        await site.save(login)

        slow.data["b"] = 2
        if late:
            await site.manager.save_late(slow)
        else:
            slow.renew()
            assert [] == await site.save(slow)

        assert [LateWrite()] == site.of(LateWrite)
        assert {"a": 1} == await site.read()


# 10. ends that come late, or by an old id


async def _renewed(site: Site, jar: dict[bytes, bytes] | None = None) -> list[bytes]:
    session = await site.open(jar)
    session.renew()
    return await site.save(session)


@scenario
async def test_late_logout_ends_what_another_request_has_renewed() -> None:
    """Also where this one wanted to renew it too, and was slower. Nothing is lost by that, and nothing reported."""
    for renews in (False, True):
        site = Site()
        await site.put(user="ada")
        leaving = await site.open()
        await _renewed(site)
        if renews:
            leaving.renew()
        leaving.mark_accessed()
        await site.save(leaving)
        site.events.clear()

        leaving.clear()
        await site.manager.save_late(leaving)

        assert 0 == len(site.store)
        assert (await site.open()).is_new
        assert [] == site.of(LateWrite)


@scenario
async def test_late_logout_counts_where_the_store_had_failed_at_first() -> None:
    """The request went on without a session, and the store is back."""
    site = Site(on_store_error="anonymous")
    await site.put(user="ada")
    site.store.failing = {"load"}
    leaving = await site.open()
    leaving.mark_accessed()
    await site.save(leaving)
    site.store.failing = set()

    leaving.clear()
    await site.manager.save_late(leaving)

    assert 0 == len(site.store)
    assert [] == site.of(LateWrite)


@pytest.mark.parametrize("comes", ["with a cookie", "without"])
@scenario
async def test_late_logout_of_nobody_is_none(comes: str) -> None:
    """Of a session that another request has ended, or that never was."""
    site = Site()
    if comes == "with a cookie":
        await site.put(user="ada")
        site.store._records.clear()
    leaving = await site.open()
    await site.save(leaving)

    leaving.clear()
    await site.manager.save_late(leaving)

    assert [] == site.of(LateWrite)


@scenario
async def test_late_logout_of_an_overflow_that_is_in_the_store_counts() -> None:
    """As it does without overflow."""
    site = Site(overflow=True)
    await site.put(text=BIG)
    leaving = await site.open()
    leaving.mark_accessed()
    await site.save(leaving)

    leaving.clear()
    await site.manager.save_late(leaving)

    assert 0 == len(site.store)
    assert [] == site.of(LateWrite)


@scenario
async def test_late_emptying_ends_a_session_that_nobody_has_changed() -> None:
    """A background task that takes out the last entry. However often the end is saved, nothing is lost."""
    site = Site()
    await site.put(flash="saved")
    popping = await site.open()
    popping.mark_accessed()
    await site.save(popping)

    popping.data.pop("flash")
    await site.manager.save_late(popping)
    await site.manager.save_late(popping)

    assert 0 == len(site.store)
    assert [] == site.of(LateWrite)


@pytest.mark.parametrize("when", ["before the response", "after it"])
@scenario
async def test_late_emptying_keeps_what_others_have_put_in(when: str) -> None:
    """What this request has put together with its own change, and its handler does not see, is others' too."""
    site = Site()
    await site.put(flash="saved")
    popping, other = await site.open(), await site.open()
    if when == "after it":
        popping.mark_accessed()
        await site.save(popping)
    other.data["cart"] = ["tea"]
    await site.save(other)
    if when == "before the response":
        popping.data["mine"] = 1
        await site.save(popping)

    popping.data.clear()
    await site.manager.save_late(popping)

    assert {"cart": ["tea"]} == await site.read()
    assert [] == site.of(LateWrite)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("old", ["when it is loaded", "when it is saved"])
@scenario
async def test_emptying_under_an_old_id_ends_nothing_and_is_reported(old: str, *, late: bool) -> None:
    """It is not carried into the renewed session, as no other change is."""
    site = Site()
    await site.put(flash="saved")
    copy = dict(site.jar)
    popping = await site.open()
    await _renewed(site)
    if old == "when it is loaded":
        popping = await site.open(copy)
    if late:
        popping.mark_accessed()
        await site.save(popping)

    popping.data.pop("flash")
    if late:
        await site.manager.save_late(popping)
    else:
        assert [] == await site.save(popping)

    assert {"flash": "saved"} == await site.read()
    assert [LateWrite()] == site.of(LateWrite)


@pytest.mark.parametrize("end", ["renewed by another", "ended by another", "cleared", "emptied"])
@scenario
async def test_late_transaction_of_an_ended_session_says_so(end: str) -> None:
    """And changes no data, which nobody would see."""
    site = Site()
    await site.put(n=0)
    session = await site.open()
    if end == "renewed by another":
        await _renewed(site)
        session.renew()
    elif end == "ended by another":
        await site.manager.end(session)
        session.data["b"] = 2
    elif end == "cleared":
        session.clear()
    else:
        session.data.clear()
    await site.save(session)
    before = dict(session.data)

    with pytest.raises(SessionEnded, match="has ended, or been renewed by another request"):
        await session.transact(lambda data: data.update(n=1))

    assert before == session.data


@pytest.mark.parametrize("renewals", [1, 2, 3])
@scenario
async def test_old_id_opens_nothing_after_a_logout_by_the_new_one(renewals: int) -> None:
    """Whoever has stolen it has ten seconds of nothing; with one look more at the store for each renewal."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    for _ in range(renewals):
        await _renewed(site)
    before = await site.open(copy)
    leaving = await site.open()
    leaving.clear()
    await site.save(leaving)
    site.calls()

    after = await site.open(copy)

    assert {"user": "ada"} == before.data
    assert {} == after.data
    assert ["load"] * (renewals + 1) == site.calls()


@pytest.mark.parametrize(
    ("way", "renewals"),
    [
        *((way, renewals) for way in ("clear", "late clear", "end") for renewals in (1, 2, 1100)),
        *(("old cookie", renewals) for renewals in (1, 2, 7)),
    ],
)
@scenario
async def test_end_by_an_old_id_ends_whatever_it_was_renewed_to(way: str, renewals: int) -> None:
    """All in the chain, however long: by a request under way, by a second tab's cookie, by a list of before."""
    site = Site()
    await site.put(user="ada")
    copy, leaving = dict(site.jar), await site.open()
    leaving.mark_accessed()
    if way == "late clear":
        await site.save(leaving)
    listed = leaving.id_hash
    for _ in range(renewals):
        await _renewed(site)

    if way == "end":
        assert await site.manager.end(listed)
    else:
        leaving = await site.open(copy) if way == "old cookie" else leaving
        leaving.clear()
        await (site.manager.save_late(leaving) if way == "late clear" else site.save(leaving))

    site.clock.now += 1
    assert {} == await site.read()
    assert {} == (await site.open(copy)).data
    assert 0 == len(site.store)


@scenario
async def test_id_from_many_renewals_ago_opens_nothing() -> None:
    """Or whoever renews a thousand times in ten seconds has the store asked as often for each request."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    for _ in range(9):
        await _renewed(site)
    site.calls()

    after = await site.open(copy)

    assert {} == after.data
    assert ["load"] * 9 == site.calls()
    assert {"user": "ada"} == await site.read()


@scenario
async def test_logout_by_an_old_id_comes_after_that_by_the_new_one() -> None:
    """A request under way, which still had the session."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    await _renewed(site)
    under_way = await site.open(copy)
    assert await site.manager.end(await site.open())

    under_way.clear()
    await site.save(under_way)

    assert 0 == len(site.store)


@scenario
async def test_logout_that_failed_half_way_can_be_tried_again() -> None:
    """By the old id, which still leads to what it was renewed to."""
    site = Site()
    await site.put(user="ada")
    copy = dict(site.jar)
    await _renewed(site)

    for failing in ({"delete"}, set()):
        site.store.failing = failing
        leaving = await site.open(copy)
        leaving.clear()
        with pytest.raises(StoreUnavailable) if failing else nullcontext():
            await site.save(leaving)

    assert 0 == len(site.store)


@scenario
async def test_end_follows_a_renewal_that_comes_meanwhile() -> None:
    """Of the session that the old id was renewed to, while that is ended."""
    site = Site()
    await site.put(user="ada")
    leaving = await site.open()
    await _renewed(site)
    real, races = site.store.load, iter([_renewed(site)])

    async def renew_first(key: bytes) -> Any:
        record = await real(key)
        if key.hex() != leaving.id_hash and (race := next(races, None)) is not None:
            await race
        return record

    leaving.clear()
    site.store.load = renew_first  # type: ignore[method-assign]
    await site.save(leaving)

    assert 0 == len(site.store)
    assert {} == await site.read()


@scenario
async def test_record_that_does_not_open_is_ended_too() -> None:
    """Under a key that is gone, say: an administrator has its hash from elsewhere."""
    site = Site()
    await site.put(a=1)
    hash_of_it = (await site.open()).id_hash
    other = site.another(KeyRing(Key.generate()))

    assert await other.manager.end(hash_of_it)
    assert not await other.manager.end(hash_of_it)
    assert 0 == len(site.store)


@scenario
async def test_records_of_a_subject_that_do_not_open_are_ended_too() -> None:
    """They do at another instance, which has a key that this one lacks, or a clock that is ahead."""
    site = Site()
    for elsewhere in (site, Site(KeyRing(OLD), store=site.store), Site(store=site.store, clock=Clock(START + 61))):
        session = await elsewhere.open()
        session.subject = "42"
        await elsewhere.save(session)

    listed = await site.manager.sessions("42")
    began_before = await site.manager.end_all("42", before=listed[0].created_at + timedelta(seconds=1))

    assert (1, 1, 2) == (len(listed), began_before, await site.manager.end_all("42"))
    assert 0 == len(site.store)


@scenario
async def test_cookie_of_before_a_renewal_does_not_bring_its_id_back() -> None:
    """With overflow: the session was small in that cookie, has grown into the store, and was renewed there."""
    site = Site(overflow=True)
    await site.put(text="small")
    small = dict(site.jar)
    await site.put(text=BIG)
    await _renewed(site)

    slow = await site.open(small)
    slow.data["text"] = BIG + "mine"
    lines = await site.save(slow)
    site.clock.now += GRACE

    assert [] == lines
    assert [LateWrite()] == site.of(LateWrite)
    assert {"text": BIG} == await site.read()
    assert 1 == len(site.store)


# 11. renewals that are interrupted


class Lossy(Books):
    """A store that does what it is asked, and loses its answers from a call on: for once, or for good."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.answers: Iterator[bool] = repeat(True)

    async def create(self, key: bytes, record: Record) -> bool:
        return self._answer(answer=await super().create(key, record))

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        return self._answer(answer=await super().replace(key, record, expected_version))

    async def delete(self, key: bytes) -> bool:
        return self._answer(answer=await super().delete(key))

    def _answer(self, *, answer: bool) -> bool:
        if not next(self.answers):
            raise StoreUnavailable("the answer was lost")
        return answer


async def _subjects(site: Site) -> Session[Any]:
    session = await site.open()
    session.subject, session.data["a"] = "42", 1
    await site.save(session)
    return await site.open()


@pytest.mark.parametrize(("grace", "others", "calls"), [(GRACE, 0, 2), (GRACE, 1, 4), (0, 0, 2)], ids=str)
@scenario
async def test_renewal_whose_answer_is_lost_leaves_the_session_as_it_was(grace: int, others: int, calls: int) -> None:
    """One session, under the id that the client has, and with its lifetime: not two, and not none in ten seconds."""
    for call in range(calls):
        clock = Clock()
        store = Lossy(clock)
        site = Site(store=store, clock=clock, renew_grace=timedelta(seconds=grace))
        session = await _subjects(site)
        for number in range(others):
            await site.put(b=number)
        session.renew()
        store.answers = chain(repeat(True, call), [False], repeat(True))

        with pytest.raises(StoreUnavailable, match="the answer was lost"):
            await site.save(session)
        clock.now += GRACE
        again = await site.open()

        assert 1 == again.data.get("a")
        assert [again.id_hash] == [info.id_hash for info in await site.manager.sessions("42")]
        assert START + 14 * 24 * HOUR == int(again.expires_at.timestamp())


@pytest.mark.parametrize("lost", [StoreUnavailable, asyncio.CancelledError])
@scenario
async def test_session_that_does_not_reach_its_cookie_stays_in_the_store(lost: type[BaseException]) -> None:
    """Where the answer of the store is lost, or the client is gone. It has the id alone, and not for ten seconds."""
    site = Site(overflow=True)
    await site.put(a=1, text=BIG)
    session = await site.open()
    del session.data["text"]
    real = site.store.replace

    async def lose(key: bytes, record: Record, expected_version: int) -> bool:
        site.store.replace = real  # type: ignore[method-assign]
        await real(key, record, expected_version)
        raise lost

    site.store.replace = lose  # type: ignore[method-assign]
    with pytest.raises(lost):
        await site.save(session)
    site.clock.now += GRACE

    again = await site.open()
    assert {"a": 1, "text": BIG} == again.data
    assert START + 14 * 24 * HOUR == int(again.expires_at.timestamp())


@pytest.mark.parametrize("overflow", [False, True], ids=["renewed", "moved-into-the-cookie"])
@scenario
async def test_record_that_goes_at_once_goes_by_itself_where_the_store_fails_to_remove_it(*, overflow: bool) -> None:
    """Without a grace, and in a second. The session is elsewhere by then, and is not ended by that."""
    site = Site(overflow=overflow, renew_grace=timedelta(0))
    await site.put(a=1, text=BIG)
    old = dict(site.jar)
    session = await site.open()
    session.renew()
    session.data["text"] = ""
    site.store.failing = {"delete"}

    assert 1 == len(await site.save(session))
    assert {"a": 1, "text": ""} == await site.read()
    site.clock.now += 1
    assert (await site.open(old)).is_new
    assert {"a": 1, "text": ""} == await site.read()


@scenario
async def test_renewal_to_an_id_that_the_store_has_touches_neither_session() -> None:
    """A source of randomness that repeats itself, of which the store tells: that record is somebody else's."""
    site = Site()
    session = await _subjects(site)
    session.renew()
    site.store.create = _present  # type: ignore[method-assign]
    site.calls()

    with pytest.raises(StoreUnavailable, match="drawn just now"):
        await site.save(session)

    assert [] == site.calls()
    assert {"a": 1} == await site.read()


async def _present(key: bytes, record: Record) -> bool:
    return False


@scenario
async def test_renewal_in_a_store_that_goes_away_waits_for_it_once_more_at_most() -> None:
    """The request's client waits."""
    clock = Clock()
    site = Site(store=(store := Lossy(clock)), clock=clock)
    session = await _subjects(site)
    session.renew()
    store.answers = chain([True], repeat(False))
    store.failing = {"load"}
    site.calls()

    with pytest.raises(StoreUnavailable, match="the answer was lost"):
        await site.save(session)

    assert ["create", "replace", "load"] == site.calls()


@pytest.mark.parametrize("scope", ["task", "anyio"])
@scenario
async def test_cancelled_renewal_is_taken_back(scope: str) -> None:
    """Also where whoever cancels does it again and again, as the scopes of anyio do: in Starlette, say."""
    site = Site()
    session = await _subjects(site)
    session.renew()
    real, hanging, cancels = site.store.replace, asyncio.Event(), anyio.CancelScope()

    async def hang(key: bytes, record: Record, expected_version: int) -> bool:
        await real(key, record, expected_version)
        site.store.replace = real  # type: ignore[method-assign]
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def save() -> None:
        with cancels:
            await site.save(session)

    site.store.replace = hang  # type: ignore[method-assign]
    saving = asyncio.ensure_future(save())
    await hanging.wait()
    cancels.cancel() if scope == "anyio" else saving.cancel()
    await asyncio.wait({saving})
    for _ in range(10):
        await asyncio.sleep(0)
    site.clock.now += GRACE

    assert {"a": 1} == await site.read()
    assert 1 == len(await site.manager.sessions("42"))
