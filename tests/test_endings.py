"""Endings: asked for no more often than promised, kept as long as they matter, and merged so that none is undone."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from harness import START, Clock
from revocable_site import Instance, slow_instance, until_waiting
from test_servermode import GRACE, Books, scenario

from cookiesession import StoreUnavailable, endings
from cookiesession.endings import EVERYTHING, MARGIN, RENEWALS, Ending, Endings, Standing, of_session, of_subject
from cookiesession.events import StoreFailed
from cookiesession.payload import Payload, id_hash
from cookiesession.stores import ATTEMPTS, Record

if TYPE_CHECKING:
    from collections.abc import Callable

LIFETIME: Final = 14 * 24 * 3600
ID: Final = b"A" * 16
HASH: Final = id_hash(ID)
NEWER: Final = id_hash(b"B" * 16)
LIVE, ENDED = Standing(is_over=False, is_renewed=False), Standing(is_over=True, is_renewed=False)
IN_GRACE, DEAD = Standing(is_over=False, is_renewed=True), Standing(is_over=True, is_renewed=True)


def payload(id: bytes = ID, *, began: float = START, subject: str | None = "ada") -> Payload:
    """A session of Ada's."""
    seconds, fraction = int(began), int((began - int(began)) * 1_000_000)
    return Payload(0, seconds, seconds, seconds + LIFETIME, 0, id, subject, b"\x80", fraction=fraction)


def known_of(instance: Instance) -> Endings:
    """What a process knows."""
    found: Endings = instance.manager.mode._endings  # type: ignore[union-attr]  # of a revocation
    return found


def all_records(instance: Instance) -> list[Record]:
    """What is in the store."""
    return list(instance.store._records.values())


# How often the store is asked


@pytest.mark.parametrize(("check_every", "calls"), [(5, 2), (0, 10), (0.1, 10)], ids=["5s", "every-request", "100ms"])
@scenario
async def test_store_is_asked_once_in_the_interval(check_every: float, calls: int) -> None:
    """For each of the three that may have ended it: ten requests in nine seconds."""
    instance = Instance(check_every=check_every)
    jar = await instance.login("ada")

    for _ in range(10):
        await instance.read(jar)
        instance.clock.now += 1

    assert ["load"] * 3 * calls == instance.calls()


@scenario
async def test_requests_at_once_ask_together() -> None:
    """Of one session and one process."""
    instance = Instance()
    jar = await instance.login("ada")

    found = await asyncio.gather(*(instance.read(jar) for _ in range(50)))

    assert [{"user": "ada"}] * 50 == found
    assert ["load"] * 3 == instance.calls()


@scenario
async def test_answer_that_was_asked_for_before_is_not_shared() -> None:
    """Without an interval: it may be older than what another process has ended since."""
    first = slow_instance(check_every=0)
    second = first.another()
    jar = await first.login("ada")
    hash = await first.hash(jar)
    first.store.held = held = asyncio.Event()
    early = asyncio.create_task(second.read(jar))
    await until_waiting()
    first.store.held = None
    await first.manager.end(hash)

    late = await second.read(jar)
    held.set()

    assert {} == late
    assert {"user": "ada"} == await early


@scenario
async def test_late_answer_does_not_undo_what_this_process_has_ended() -> None:
    """It was on its way when the session ended."""
    instance = slow_instance()
    jar = await instance.login("ada")
    hash = await instance.hash(jar)
    instance.clock.now += 5
    instance.store.held = held = asyncio.Event()
    early = asyncio.create_task(instance.read(jar))
    await until_waiting()
    instance.store.held = None
    await instance.manager.end(hash)
    held.set()
    await early

    assert {} == await instance.read(jar)


@pytest.mark.parametrize("several", [False, True], ids=["one", "all"])
@scenario
async def test_late_answer_does_not_bring_back_what_this_process_has_ended_when_the_store_fails(
    *, several: bool
) -> None:
    """Of a session that was renewed, and had its grace; or of all that had begun by then."""
    instance = slow_instance(fail_open=True, renew_grace=timedelta(hours=1))
    await instance.manager.end_everything()
    instance.clock.now += 10
    jar = await instance.login("ada")
    hash = await instance.hash(jar)
    await instance.renew(dict(jar))
    instance.clock.now += 10
    instance.store.held = held = asyncio.Event()
    early = asyncio.create_task(instance.read(jar))
    await until_waiting()
    instance.store.held = None
    await (instance.manager.end_everything() if several else instance.manager.end(hash))
    held.set()
    await early
    instance.clock.now += 10
    instance.store.failing = {"load"}

    assert {} == await instance.read(jar)


@scenario
async def test_cancelled_request_disturbs_no_other() -> None:
    """Who waits with it gets the answer, and nobody asks again."""
    instance = slow_instance()
    jar = await instance.login("ada")
    instance.store.held = held = asyncio.Event()

    cancelled, other = (asyncio.create_task(instance.read(jar)) for _ in range(2))
    await until_waiting()
    cancelled.cancel()
    await until_waiting()
    held.set()

    assert {"user": "ada"} == await other
    assert cancelled.cancelled()
    assert ["load"] * 3 == instance.calls()


@scenario
async def test_failure_that_nobody_waits_for_is_no_warning() -> None:
    """The loop would say that it was never retrieved; and it is not remembered."""
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    instance = slow_instance()
    jar = await instance.login("ada")
    instance.store.failing = {"load"}

    cancelled = asyncio.create_task(instance.read(jar))
    await asyncio.sleep(0)
    cancelled.cancel()
    await until_waiting()
    gc.collect()
    instance.store.failing = set()

    assert [] == said
    assert {"user": "ada"} == await instance.read(jar)


@scenario
async def test_old_failure_takes_no_newer_answer_away() -> None:
    """It comes when another request has asked again, and been told."""
    instance = slow_instance()
    jar = await instance.login("ada")
    instance.store.held = held = asyncio.Event()
    early = asyncio.create_task(instance.read(jar))
    await until_waiting()
    instance.clock.now += 5
    instance.store.held = None
    late = await instance.read(jar)
    instance.store.failing = {"load"}
    held.set()
    await early
    instance.calls()

    again = await instance.read(jar)

    assert ({}, {"user": "ada"}, {"user": "ada"}) == (await early, late, again)
    assert [] == instance.calls()


@scenario
async def test_process_remembers_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for first is asked for again."""
    monkeypatch.setattr(endings, "REMEMBERED", 4)
    instance = Instance()
    jars = [await instance.login(f"user {number}") for number in range(5)]

    for jar in jars:
        assert "user" in await instance.read(jar)
    asked = len(instance.calls())
    await instance.read(jars[0])

    assert 4 == len(known_of(instance)._known)
    assert 13 == asked  # 2 for each session, and 3 for all of them: that one went twice
    assert 2 == len(instance.calls())  # not of all sessions, which was asked for when the others were


@pytest.mark.parametrize("step", [-3600, -1], ids=["an-hour", "a-second"])
@scenario
async def test_clock_that_is_set_back_makes_nothing_last_longer(step: int) -> None:
    """What was asked for in the future is asked for again."""
    first = Instance()
    second = first.another()
    first.clock.now += 7200
    jar = await first.login("ada")
    first.clock.now += 30
    await second.read(jar)
    await first.manager.end(await first.hash(jar))

    first.clock.now += step

    assert {} == await second.read(jar)


# How long an ending stays


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda site, info: site.manager.end(info), id="listed"),
        pytest.param(lambda site, info: site.manager.end(info.id_hash), id="hash"),
        pytest.param(lambda site, info: site.manager.end_all("ada"), id="subject"),
        pytest.param(lambda site, info: site.manager.end_everything(), id="everything"),
    ],
)
@scenario
async def test_ending_outlives_every_cookie_and_goes(end: Callable[[Instance, Any], Any]) -> None:
    """Of a session that is extended as far as it can be, and ended at any time of its life."""
    instance = Instance(check_every=0, track=True)
    jar = await instance.login("ada")
    session = await instance.open(jar)
    session.expire_after(timedelta(days=14))
    await instance.save(session, jar)
    instance.clock.now += LIFETIME // 2
    [info] = await instance.manager.sessions("ada")
    await end(instance, info)
    ended = instance.clock.now

    opened = []
    while instance.clock.now < START + LIFETIME + 2 * MARGIN:
        opened.append(await instance.read(jar))
        instance.clock.now += LIFETIME // 20
    instance.clock.now = ended + LIFETIME + MARGIN

    assert [{}] * len(opened) == opened
    assert 0 == len(instance.store)


@scenario
async def test_session_that_was_sealed_for_longer_lives_no_longer() -> None:
    """Before there was a revocation, or with another lifetime: its ending would be forgotten before it."""
    longer = Instance(lifetime=timedelta(days=28), check_every=0)
    instance = longer.another(lifetime=timedelta(days=14))
    jar = await longer.login("ada")

    instance.clock.now += LIFETIME - 1
    last = await instance.read(jar)
    instance.clock.now += 1

    assert ({"user": "ada"}, {}) == (last, await instance.read(jar))


@scenario
async def test_older_ending_does_not_shorten_a_newer_one() -> None:
    """What had begun until the newer one is kept out for as long."""
    instance = Instance(check_every=0)
    spared = (await instance.open({})).id
    instance.clock.now += LIFETIME // 2
    jar = await instance.login("ada")
    instance.clock.now += 1
    await instance.manager.end_all("ada", except_id=spared)
    await instance.manager.end_all("ada", before=datetime.fromtimestamp(START, UTC))

    instance.clock.now += LIFETIME - 60

    assert {} == await instance.read(jar)


# How endings of several sessions add up


TIMES: Final = (START, START + 10, START + 20)


@pytest.mark.parametrize("began", [START - 5, START + 5, START + 15, START + 25])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)], ids=str)
@pytest.mark.parametrize("spared", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=str)
@scenario
async def test_session_ends_that_any_of_several_covers(
    began: float, order: tuple[int, ...], spared: tuple[int, ...]
) -> None:
    """In any order. Who is spared by one may not have been by another."""
    known = known_of(Instance(check_every=0))
    for index in order:
        await known.end_several(of_subject("ada"), TIMES[index], [HASH] if index in spared else [NEWER])

    covered = any(began < at and index not in spared for index, at in enumerate(TIMES))

    assert (ENDED if covered else LIVE) == await known.standing(payload(began=began))


@pytest.mark.parametrize("moment", [START, START + 0.3, START + 0.123_456_7, START + 0.999_999_9], ids=str)
@scenario
async def test_what_begins_with_an_ending_is_not_ended(moment: float) -> None:
    """On a clock that has not moved since; what began a few microseconds before is."""
    clock = Clock(moment - 0.000_003)
    instance = Instance(clock=clock, check_every=0)
    before = await instance.login("ada")
    clock.now = moment

    await instance.manager.end_all("ada")
    after = await instance.login("ada")

    assert ({}, {"user": "ada"}) == (await instance.read(before), await instance.read(after))


@scenario
async def test_subject_without_a_letter_is_somebody() -> None:
    """Whose sessions end as those of others."""
    instance = Instance(track=True)
    jar = await instance.login("")
    instance.clock.now += 1

    assert 1 == await instance.manager.end_all("")
    assert {} == await instance.read(jar)


@scenario
async def test_session_without_a_subject_ends_with_all() -> None:
    """And with no subject's."""
    known = known_of(Instance(check_every=0))
    anonymous = payload(subject=None)

    await known.end_several(of_subject("ada"), None)
    subject = await known.standing(anonymous)
    await known.end_several(EVERYTHING, START + 1)

    assert (LIVE, ENDED) == (subject, await known.standing(anonymous))


# Renewed sessions


@scenario
async def test_renewed_session_lives_for_its_grace() -> None:
    """As long as the newest does that it was renewed to: a chain of them."""
    instance = Instance(check_every=0)
    known = known_of(instance)
    ids = [bytes([number]) * 16 for number in range(4)]
    for id, newer in pairwise(ids):
        await known.end(id_hash(id), began=START, at=START + GRACE, successor=id_hash(newer))

    in_grace = [await known.standing(payload(id)) for id in ids]
    instance.clock.now += GRACE - 1
    await known.end(id_hash(ids[-1]), began=START, at=instance.clock.now)
    ended = [await known.standing(payload(id)) for id in ids]

    assert [IN_GRACE] * 3 + [LIVE] == in_grace
    assert [DEAD] * 3 + [ENDED] == ended


@scenario
async def test_old_id_is_dead_after_its_grace_without_a_look_at_the_newer() -> None:
    """However long the chain is: one call of the store for its own ending."""
    instance = Instance(check_every=0)
    known = known_of(instance)
    await known.end(HASH, began=START, at=START + GRACE, successor=NEWER)
    instance.clock.now += GRACE
    instance.calls()

    assert DEAD == await known.standing(payload())
    assert ["load"] * 3 == instance.calls()


@pytest.mark.parametrize(("renewals", "standing"), [(RENEWALS - 1, IN_GRACE), (RENEWALS, DEAD)], ids=["7", "8"])
@scenario
async def test_old_id_outlives_few_renewals(renewals: int, standing: Standing) -> None:
    """Whoever renews a session all the time does not make its oldest cookie cost more and more calls."""
    instance = Instance(check_every=0)
    known = known_of(instance)
    ids = [bytes([number]) * 16 for number in range(renewals + 1)]
    for id, newer in pairwise(ids):
        await known.end(id_hash(id), began=START, at=START + GRACE, successor=id_hash(newer))

    assert standing == await known.standing(payload(ids[0]))
    assert LIVE == await known.standing(payload(ids[-1]))


@scenario
async def test_first_renewal_wins_and_an_end_stays() -> None:
    """Whoever asks later is told, and changes nothing."""
    known = known_of(Instance(check_every=0))

    first = await known.end(HASH, began=START, at=START + GRACE, successor=NEWER)
    second = await known.end(HASH, began=START, at=START + GRACE, successor=id_hash(b"C" * 16))
    ended = await known.end(HASH, began=START, at=START)
    again = await known.end(HASH, began=START, at=START + 1)

    assert [(True, NEWER), (False, NEWER), (True, NEWER), (False, NEWER)] == [first, second, ended, again]


@scenario
async def test_clock_that_is_behind_gives_an_ended_session_no_grace() -> None:
    """That of who ended it was ahead."""
    instance = Instance(check_every=0)
    known = known_of(instance)

    await known.end(HASH, began=START, at=START + 60)

    assert ENDED == await known.standing(payload())


# What can go wrong in a store


class Busy(Books):
    """A store in which others are always faster."""

    async def create(self, key: bytes, record: Record) -> bool:
        return False


@scenario
async def test_store_in_which_others_are_always_faster_is_given_up() -> None:
    """After as many attempts as anywhere else."""
    clock = Clock()
    known = known_of(Instance(store=Busy(clock), clock=clock))

    with pytest.raises(StoreUnavailable, match=f"changed {ATTEMPTS} times"):
        await known.end_several(EVERYTHING, None)


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("end", ["logout", "end_all", "end_everything"])
@scenario
async def test_what_is_known_to_have_ended_stays_so_while_the_store_is_down(end: str, *, fail_open: bool) -> None:
    """However long ago the process has learnt of it. Of others it still knows nothing."""
    instance = Instance(fail_open=fail_open)
    jar = await instance.login("ada")
    copy = dict(jar)
    other = instance.another()
    if end == "logout":
        await other.logout(jar)
    else:
        instance.clock.now += 1
        await (other.manager.end_all("ada") if end == "end_all" else other.manager.end_everything())
    instance.clock.now += 5
    assert {} == await instance.read(copy)
    bob = await instance.login("bob")

    instance.store.failing = {"load"}
    instance.clock.now += 3600

    assert {} == await instance.read(copy)
    assert ({"user": "bob"} if fail_open else {}) == await instance.read(bob)
    assert len(instance.of(StoreFailed)) == 1


@scenario
async def test_what_was_renewed_is_not_known_to_have_ended_before_its_grace_is_over() -> None:
    """What the store would say of the newer one, nobody knows."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    old = payload(bytes.fromhex((await instance.open(jar)).id))
    await instance.renew(jar)
    known = known_of(instance)
    assert IN_GRACE == await known.standing(old)

    instance.store.failing = {"load"}

    with pytest.raises(StoreUnavailable):
        await known.standing(old)
    instance.clock.now += GRACE
    assert DEAD == await known.standing(old)


DEEP = b"\x94\x01\xc4\x00\x80" + b"\x91" * 100_000 + b"\xc0"  # passed over like anything that comes to the layout later


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xc1", b"\x90", b"\x91\xa1x", b"\x93\x01\xc4\x00\x90", b"\x80\x04K.", DEEP],
    ids=lambda garbage: garbage[:5].hex(),
)
@scenario
async def test_garbage_is_no_answer(garbage: bytes) -> None:
    """Neither that a session lives, nor that it has ended."""
    instance = Instance(check_every=0)
    jar = await instance.login("ada")
    hash = await instance.hash(jar)
    await instance.store.create(endings._key(of_session(bytes.fromhex(hash))), Record(garbage, 1, START + 60))

    with pytest.raises(StoreUnavailable, match="holds what is no ending"):
        await instance.manager.end(hash)
    assert {} == await instance.read(jar)
    assert {"user": "ada"} == await instance.another(fail_open=True).read(jar)


def test_ending_shows_nothing() -> None:
    """In no crash report: neither whose it is nor what it was renewed to."""
    assert "<Ending>" == repr(Ending(1.0, HASH, {NEWER: 0.0}))


@scenario
async def test_store_learns_no_id_and_no_subject() -> None:
    """Nor what an id's record would be under."""
    instance = Instance(track=True)
    jar = await instance.login("a subject of some length")
    session = await instance.open(jar)
    await instance.renew(jar)
    await instance.logout(jar)
    await instance.manager.end_all("a subject of some length")

    everything = b"".join(key + record.value for key, record in instance.store._records.items())

    assert bytes.fromhex(session.id) not in everything
    assert b"a subject" not in everything


def test_version_of_the_layout_can_grow() -> None:
    """What a later version adds is passed over."""
    assert Ending(1.0, HASH) == endings._decode(endings._encode((1.0, HASH, {}, "more")))
