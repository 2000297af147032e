"""Lifetimes and remember-me: what the seal says of them holds to the second, in a cookie and in a store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from harness import START
from hypothesis import given
from hypothesis import strategies as st
from two_modes import BOTH, MODES, Site, put, together

from cookiesession import Key, KeyRing, Session
from cookiesession.events import LateWrite, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR: Final = 3600
KEY, OLD = Key.generate(), Key.generate()

in_both_modes = pytest.mark.parametrize("mode", BOTH)
in_each_mode = pytest.mark.parametrize("mode", MODES)


def _read(_: Session[Any]) -> None:
    pass


def _write(session: Session[Any]) -> None:
    session.data["writes"] = session.data.get("writes", 0) + 1


def _renew(session: Session[Any]) -> None:
    session.renew()


def _expire_after(seconds: int) -> Callable[[Session[Any]], None]:
    return lambda session: session.expire_after(timedelta(seconds=seconds))


@dataclass
class Case:
    """A session that begins at 0 s, what is done with it, and when it is to end; all in seconds."""

    lifetime: int
    idle: int | None
    acts: list[tuple[int, Callable[[Session[Any]], None]]]
    unused: int
    """The first second in which it is over, if nobody uses it any more."""
    at_latest: int
    """That in which it is over even if somebody does: `expires_at`."""


CASES: Final = {
    "absolute": Case(HOUR, None, [], HOUR, HOUR),
    "absolute, written": Case(HOUR, None, [(HOUR - 1, _write)], HOUR, HOUR),
    "absolute, read": Case(HOUR, None, [(HOUR - 1, _read)], HOUR, HOUR),
    "absolute, renewed": Case(HOUR, None, [(1800, _renew)], 5400, 5400),
    "absolute, renewed twice in the last second": Case(
        HOUR, None, [(HOUR - 1, _renew), (2 * HOUR - 2, _renew)], 3 * HOUR - 2, 3 * HOUR - 2
    ),
    "of a second": Case(1, None, [], 1, 1),
    "idle": Case(HOUR, 600, [], 600, HOUR),
    "idle, read at half": Case(HOUR, 600, [(300, _read)], 600, HOUR),
    "idle, read after half": Case(HOUR, 600, [(301, _read)], 901, HOUR),
    "idle, read in the last second": Case(HOUR, 600, [(599, _read)], 1199, HOUR),
    "idle, read often": Case(HOUR, 600, [(second, _read) for second in (300, 600 - 1, 700, 899, 900)], 600 + 900, HOUR),
    "idle, written at once": Case(HOUR, 600, [(1, _write)], 601, HOUR),
    "idle, renewed": Case(HOUR, 600, [(500, _renew)], 1100, 500 + HOUR),
    "idle, odd, read before half": Case(HOUR, 601, [(300, _read)], 601, HOUR),
    "idle, odd, read after half": Case(HOUR, 601, [(301, _read)], 902, HOUR),
    "idle of a second": Case(HOUR, 1, [], 1, HOUR),
    "idle of two seconds, read at half": Case(HOUR, 2, [(1, _read)], 2, HOUR),
    "idle and absolute": Case(HOUR, 600, [(500 * n, _read) for n in range(1, 8)], HOUR, HOUR),
    "idle and absolute, a second apart": Case(1101, 600, [(500, _read)], 1100, 1101),
    "idle and absolute, renewed": Case(
        HOUR, 600, [*((500 * n, _read) for n in range(1, 7)), (3500, _renew)], 4100, 7100
    ),
    "idle of a whole lifetime": Case(HOUR, HOUR, [], HOUR, HOUR),
    "idle of a whole lifetime, read": Case(HOUR, HOUR, [(1801, _read)], HOUR, HOUR),
    "idle of more than a lifetime": Case(400, 600, [(301, _read)], 400, 400),
    "idle of more than a lifetime, renewed": Case(400, 600, [(399, _renew)], 799, 799),
    "own": Case(HOUR, None, [(10, _expire_after(100))], 110, 110),
    "own, written": Case(HOUR, None, [(10, _expire_after(100)), (50, _write)], 110, 110),
    "own, longer": Case(HOUR, None, [(10, _expire_after(2 * HOUR))], 2 * HOUR + 10, 2 * HOUR + 10),
    "own, renewed": Case(HOUR, None, [(10, _expire_after(100)), (20, _renew)], 20 + HOUR, 20 + HOUR),
    "own and idle": Case(HOUR, 60, [(10, _expire_after(100))], 70, 110),
    "own and idle, read": Case(HOUR, 60, [(10, _expire_after(100)), (60, _read)], 110, 110),
}


def _site(mode: str, case: Case, *, persistent: bool) -> Site:
    """A site whose manager would have it the other way than the session says."""
    idle = None if case.idle is None else timedelta(seconds=case.idle)
    return Site(mode, lifetime=timedelta(seconds=case.lifetime), idle_timeout=idle, persistent=not persistent)


def _begin(site: Site, *, persistent: bool) -> list[bytes]:
    def begin(session: Session[Any]) -> None:
        session.data["a"] = 1
        session.persistent = persistent

    return site.visit(begin).lines


def _alive(site: Site, second: int) -> bool:
    """Whether a request in that second, with what the browser had, finds the session. Whatever its `Max-Age` was."""
    later = site.another()
    now, later.clock.now = later.clock.now, START + second
    alive = not later.request().is_new
    later.clock.now = now
    return alive


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("persistent", [True, False], ids=["persistent", "with-the-browser"])
@in_both_modes
def test_a_session_ends_in_the_second_that_is_sealed(mode: str, case: Case, *, persistent: bool) -> None:
    """Case F76: alive in the second before, over in it and after it; and the browser was told no later one."""
    site = _site(mode, case, persistent=persistent)
    told = [(0, line) for line in _begin(site, persistent=persistent)]
    for second, act in case.acts:
        site.clock.now = START + second
        visit = site.visit(act)
        told += [(second, line) for line in visit.lines]
        assert {"a": 1}.items() <= visit.data.items()

    session = site.request()
    assert START + case.at_latest == session.expires_at.timestamp()
    assert persistent == session.persistent
    seconds = [case.unused - 1, case.unused, case.unused + 1, case.unused + HOUR]
    assert [True, False, False, False] == [_alive(site, second) for second in seconds]
    second, line = told[-1]
    ages = [second + int(age) for age in re.findall(rb"Max-Age=(\d+)", line)]
    assert ([case.unused if mode == "cookie" else case.at_latest] if persistent else []) == ages


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@in_both_modes
def test_a_session_that_has_ended_is_a_new_one_with_an_event(mode: str, case: Case) -> None:
    """Nothing of it is left, and what begins in its place is a whole new one."""
    site = _site(mode, case, persistent=True)
    _begin(site, persistent=True)
    for second, act in case.acts:
        site.clock.now = START + second
        site.visit(act)
    old = site.request().id
    site.clock.now = START + case.unused
    site.events.clear()

    visit = site.visit(put(b=2))

    absolute = case.unused == case.at_latest
    reason = "expired" if absolute else "idle" if mode == "cookie" else "ended"
    assert [reason] == [event.reason for event in site.of(Rejected)]
    assert (True, absolute or mode == "cookie") == (visit.session.is_new, visit.session.has_expired)
    assert old != visit.session.id
    assert ({}, {"b": 2}) == (visit.data, site.request().data)
    assert START + case.unused + case.lifetime == visit.session.expires_at.timestamp()
    assert not site.request().has_expired


@pytest.mark.parametrize(("seconds", "lives"), [(-HOUR, False), (-61, False), (-60, True), (-1, True), (0, True)])
@in_each_mode
def test_a_clock_that_was_set_back_ends_what_began_after_it(mode: str, *, seconds: int, lives: bool) -> None:
    """Case F76: a minute is what clocks of two servers may differ by. It lives again once the clock is right."""
    site = Site(mode, lifetime=timedelta(hours=1), idle_timeout=timedelta(minutes=10))
    site.visit(put(a=1))

    assert lives == _alive(site, seconds)
    assert _alive(site, 1)


@pytest.mark.parametrize("seconds", [-60, -1])
@in_each_mode
def test_a_server_that_is_behind_shortens_nothing(mode: str, seconds: int) -> None:
    """Its write counts as one of the second in which the session began."""
    site = Site(mode, lifetime=timedelta(hours=1), idle_timeout=timedelta(minutes=10))
    site.visit(put(a=1))
    site.clock.now = START + seconds
    site.visit(put(b=2))

    assert [True, False] == [_alive(site, second) for second in (599, 600)]


@given(
    lifetime=st.integers(1, 1000),
    idle=st.none() | st.integers(1, 1200),
    visits=st.lists(st.tuples(st.integers(0, 400), st.sampled_from([_read, _write, _renew])), max_size=6),
)
@pytest.mark.parametrize("mode", BOTH)
def test_any_course_of_visits_ends_when_the_rules_say(
    mode: str, lifetime: int, idle: int | None, visits: list[tuple[int, Callable[[Session[Any]], None]]]
) -> None:
    """Against the rules in six lines."""
    site = _site(mode, Case(lifetime, idle, [], 0, 0), persistent=True)
    _begin(site, persistent=True)
    second, used, expires = 0, 0, lifetime

    for pause, act in visits:
        second += pause
        site.clock.now = START + second
        unused = expires if idle is None else min(expires, used + idle)
        assert (second < unused) == (not site.request().is_new)
        if second >= unused:
            break
        site.visit(act)
        is_due = idle is not None and 2 * (second - used) > idle
        used = second if act is not _read or is_due else used
        expires = second + lifetime if act is _renew else expires


# What a handler sees


@pytest.mark.parametrize(
    ("second", "left"), [(0, 3600), (0.25, 3599.75), (1801, 1799), (3599.999, 0.001), (3600, 0), (9000, 0), (-60, 3660)]
)
@in_each_mode
def test_what_remains_is_never_less_than_nothing(mode: str, second: float, left: float) -> None:
    """As long as a request takes: what has opened stays open to its end. An idle timeout has no part in it."""
    site = Site(mode, lifetime=timedelta(hours=1), idle_timeout=timedelta(hours=2))
    site.visit(put(a=1))
    site.clock.now = START + min(second, 3599)
    session = site.request()
    session.mark_accessed()

    site.clock.now = START + second

    assert left == pytest.approx(session.remaining.total_seconds())
    assert timedelta(hours=1) == session.expires_at - session.created_at


@in_each_mode
def test_an_own_lifetime_is_what_remains(mode: str) -> None:
    """From when it was said."""
    site = Site(mode, lifetime=timedelta(hours=1))
    site.visit(put(a=1))
    site.clock.now += 60

    site.visit(_expire_after(90))

    assert timedelta(seconds=90) == site.request().remaining


@in_each_mode
def test_a_renewed_session_begins_at_its_renewal(mode: str) -> None:
    """With all of its times, though it keeps its data and what was chosen for it."""
    site = Site(mode, lifetime=timedelta(hours=1), idle_timeout=timedelta(minutes=10))
    _begin(site, persistent=False)
    site.clock.now += 500

    site.visit(_renew)

    session = site.request()
    assert (START + 500, START + 500 + HOUR) == (session.created_at.timestamp(), session.expires_at.timestamp())
    assert (timedelta(hours=1), False, {"a": 1}) == (session.remaining, session.persistent, session.data)


@in_each_mode
def test_what_never_was_has_not_expired(mode: str) -> None:
    """A first visit, a logout, and a cookie that nobody sealed."""
    site = Site(mode)
    first = site.visit(put(a=1)).session
    cleared = site.visit(lambda session: session.clear()).session
    site.jar = {b"__Host-session": b"forged"}
    forged = site.visit().session

    assert [(True, False)] * 3 == [(session.is_new, session.has_expired) for session in (first, cleared, forged)]


@in_each_mode
def test_an_expired_session_costs_the_store_nothing(mode: str) -> None:
    """The seal tells, and the cookie goes."""
    site = Site(mode, lifetime=timedelta(hours=1))
    site.visit(put(a=1))
    site.clock.now += HOUR
    site.store.calls.clear()

    visit = site.visit()

    assert visit.session.has_expired
    assert [] == site.store.calls
    assert {} == site.jar


# Remember-me


@pytest.mark.parametrize("default", [True, False], ids=["persistent", "with-the-browser"])
@in_each_mode
def test_a_manager_says_what_sessions_are_by_default(mode: str, *, default: bool) -> None:
    """And a session may be the other."""
    site = Site(mode, persistent=default)

    [line] = site.visit(put(a=1)).lines
    [other] = site.visit(lambda session: setattr(session, "persistent", not default)).lines

    assert [default, not default] == [b"Max-Age" in each for each in (line, other)]


@pytest.mark.parametrize("persistent", [True, False], ids=["persistent", "with-the-browser"])
@in_each_mode
def test_whatever_writes_a_session_again_keeps_what_was_chosen(mode: str, *, persistent: bool) -> None:
    """A change, its use, a rotation, a renewal: whatever the default has become since."""
    options: dict[str, Any] = {"idle_timeout": timedelta(minutes=10), "persistent": not persistent}
    site = Site(mode, KeyRing(OLD), **options)
    _begin(site, persistent=persistent)
    seen = []

    for keys, act in [(OLD, put(b=2)), (OLD, _read), (KEY, _read), (KEY, put(text="x" * 4000)), (KEY, _renew)]:
        site = site.another(KeyRing(keys, OLD) if keys is KEY else KeyRing(OLD), **options)
        site.clock.now += 301
        visit = site.visit(act)
        seen += [b"Max-Age" in line for line in visit.lines if b"Max-Age=0" not in line]
        assert persistent == site.request().persistent

    assert seen
    assert {persistent} == set(seen)


@in_each_mode
def test_a_session_in_the_place_of_another_is_as_the_manager_says(mode: str) -> None:
    """Who logs out is not remembered."""
    site = Site(mode, persistent=False)
    _begin(site, persistent=True)

    visit = site.visit(together([lambda session: session.clear(), put(b=2)]))

    assert not visit.session.persistent
    assert [False] == [b"Max-Age" in line for line in visit.lines]


@in_each_mode
def test_the_same_choice_again_writes_nothing(mode: str) -> None:
    """It is no change."""
    site = Site(mode)
    _begin(site, persistent=True)

    assert [] == site.visit(lambda session: setattr(session, "persistent", True)).lines


# Beside a writer


@pytest.mark.parametrize("late", ["reader", "writer"])
@pytest.mark.parametrize("pause", [300, 301], ids=["not-due", "due"])
@in_each_mode
def test_use_that_is_noted_beside_a_writer_leaves_its_data(mode: str, pause: int, late: str) -> None:
    """Case F75. In a cookie the later response is what the browser keeps: there a due reader that is late undoes it."""
    site = Site(mode, idle_timeout=timedelta(minutes=10))
    site.visit(put(n=0))
    site.clock.now += pause
    reader, writer = site.request(), site.request()
    assert {"n": 0} == reader.data == writer.data
    writer.data["n"] = 1

    for session in (writer, reader) if late == "reader" else (reader, writer):
        site.respond(session)

    is_undone = mode != "store" and late == "reader" and pause == 301
    assert {"n": 0 if is_undone else 1} == site.request().data
    assert [] == site.of(LateWrite)
    assert _alive(site, pause + 599)
