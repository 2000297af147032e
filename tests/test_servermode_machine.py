"""Requests of one browser at once, in any order that a store can answer them: what survives, and what never comes back.

Some begin with the browser's first cookie, others with what a response has left there. Hypothesis makes a `Plan`, a
`World` plays it, and every claim is checked of what is left. The clock stands still while the requests are under way,
and a response is in the browser as soon as it is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice, repeat
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from harness import Clock
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from test_servermode import GRACE, KEY, OLD, RING, Books, Site

from cookiesession import KeyRing, SessionEnded
from cookiesession.events import LateWrite
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypothesis.strategies import DataObject, SearchStrategy

    from cookiesession import Session
    from cookiesession.stores import Record

pytestmark = pytest.mark.timeout(900)  # seconds: outside CI, Hypothesis makes what breaks a claim smaller

ADA: Final = "ada"  # whose session the requests begin with
IDLE: Final = 1000  # seconds
LARGE: Final = "x" * 8000  # more than two cookies hold
MOST_TURNS: Final = 2000  # far more calls than any plan makes
NOWHERE: Final = -1  # the jar of a session that is in none yet

# Examples that are the same in every run. What breaks a claim is searched and not made small: the first one tells.
SLICE: Final = settings(max_examples=400, derandomize=True)
SEARCH: Final = settings(max_examples=2000, derandomize=True, database=None, phases=[Phase.generate])


class Gated(Books):
    """A store that answers one call at a time, in an order that is chosen."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._gated = False
        self._waiting: list[asyncio.Future[None]] = []

    async def note(self, call: str) -> None:
        """Waits for its turn."""
        if self._gated:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    async def serve(self, tasks: Sequence[asyncio.Task[None]], turns: Iterable[int]) -> None:
        """Answers the calls of `tasks` until all are done: of those that wait, always the one whose turn it is."""
        self._gated = True
        for turn in islice(chain(turns, repeat(0)), MOST_TURNS):
            for _ in range(5):  # until each has gone as far as it can
                await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                break
            if self._waiting:
                self._waiting.pop(turn % len(self._waiting)).set_result(None)
        self._gated = False
        assert all(task.done() for task in tasks), "requests wait for each other"


Step = Callable[["Visit"], Coroutine[Any, Any, None]]
"""What a handler does with its session: a method of `Visit`."""


@dataclass(frozen=True)
class Request:
    """The steps of a handler before its response starts, and after that."""

    steps: Sequence[Step]
    late: Sequence[Step]
    follows: bool
    """Whether it comes once the request before it is answered, with the browser's cookie, and not with the first."""

    @property
    def renews(self) -> bool:
        """Whether the browser is sent a new id of the same session. Late, it cannot be."""
        return Visit.renew in self.steps and not set(ENDING) & set(self.steps)


@dataclass(frozen=True)
class Plan:
    """What the requests do, and in which order the store answers them."""

    requests: Sequence[Request]
    turns: bytes
    renew_grace: int
    is_due: bool
    """Whether half of the idle timeout has passed, so that whoever touches the session writes it."""
    is_rotated: bool
    """Whether the cookie is under a key that seals no more, so that whoever touches the session sends it anew."""
    overflow: bool
    is_large: bool
    """Whether the session is in the store when the requests begin, and with overflow not in its cookie."""

    def does(self, *steps: Step) -> bool:
        """Whether any request takes any of these steps."""
        return any(step in steps for request in self.requests for step in (*request.steps, *request.late))

    @property
    def keeps_the_user(self) -> bool:
        """Whether nobody ends the session, nor has its record go at once for those that come with the same cookie."""
        return not self.does(*ENDING) and bool(self.renew_grace or not self.does(Visit.renew, Visit.shrink))

    @property
    def is_stored(self) -> bool:
        """Whether the session is in the store all the time. What is in a cookie is as old as that cookie."""
        return not self.overflow or (self.is_large and not self.does(Visit.shrink, Visit.empty))


@dataclass(frozen=True)
class Identity:
    """What a cookie opens, as far as the requests know: whose session, and where that has its id from."""

    owner: str
    jar: int
    """The first one that has the id. 0 is the one of before all requests."""


class Visit:
    """One request. It writes the name of the user that it is for, wherever it writes."""

    def __init__(self, world: World, number: int, session: Session[Any], identity: Identity) -> None:
        self.world = world
        self.session = session
        self.identity = identity
        self.field = f"field {number}"
        self.changes: set[str] = set()

    @property
    def owner(self) -> str:
        """For whom it is."""
        return self.identity.owner

    async def write(self) -> None:
        """Changes a field that no other request changes."""
        self.session.data[self.field] = self.owner
        self.changes.add(self.field)

    async def name(self) -> None:
        """Changes what is beside the data."""
        if self.session.label != self.owner:
            self.session.label = self.owner
            self.changes.add("label")

    async def count(self) -> None:
        """Adds to what all requests add to."""
        before = dict(self.session.data)
        try:
            await self.session.transact(self._add)
            self.world.counts += 1
        except SessionEnded:
            self.world.vain += before != self.session.data

    async def touch(self) -> None:
        """Reads the session."""
        self.session.mark_accessed()

    async def pause(self) -> None:
        """Does something else meanwhile."""
        await self.world.store.note("pause")

    async def extend(self) -> None:
        """Has the browser keep the cookie for longer, which is another cookie."""
        self.session.expire_after(timedelta(days=30))

    async def renew(self) -> None:
        """Asks for a new id."""
        self.session.renew()

    async def empty(self) -> None:
        """Takes everything out, which ends the session unless others put something in."""
        self.world.emptied |= changes(self.session)
        self.session.data.clear()

    async def log_out(self) -> None:
        """Ends the session. What is written after that is somebody else's."""
        self.session.clear()
        self.world.ended.add(self.identity.jar)
        self.identity = Identity(f"{self.field}'s next user", NOWHERE)

    async def log_in(self) -> None:
        """Ends the session, and begins the next user's."""
        await self.log_out()
        self.session.renew()
        self.session.subject = self.session.data["user"] = self.owner

    async def grow(self) -> None:
        """Makes the session too large for cookies."""
        self.session.data["text"] = LARGE

    async def shrink(self) -> None:
        """Makes it fit."""
        self.session.data["text"] = ""

    def _add(self, data: dict[str, Any]) -> None:
        data["counted"] = [*data.get("counted", ()), self.owner]


LASTING: Final = (Visit.touch, Visit.write, Visit.name, Visit.pause, Visit.extend, Visit.renew)
ENDING: Final = (Visit.empty, Visit.log_out, Visit.log_in)
MOVING: Final = (Visit.shrink, Visit.grow)


def plans(*, logouts: bool, overflow: bool) -> SearchStrategy[Plan]:
    """Two to five requests, which end the session only with `logouts`. With `overflow` there are no transactions."""
    steps = st.sampled_from((*LASTING, *(ENDING * logouts), *(MOVING if overflow else (Visit.count,))))
    listed = {"steps": st.lists(steps, max_size=3), "late": st.lists(steps, max_size=2)}
    request = st.builds(Request, **listed, follows=st.booleans())
    return st.builds(
        Plan,
        requests=st.lists(request, min_size=2, max_size=5),
        turns=st.binary(min_size=40, max_size=40),
        renew_grace=st.sampled_from((GRACE, GRACE, 0)),
        is_due=st.booleans(),
        is_rotated=st.booleans(),
        overflow=st.just(overflow),
        is_large=st.booleans() if overflow else st.just(value=False),
    )


class Saved(NamedTuple):
    """Changes of a request, and whether nothing that others do can take them away."""

    changes: set[str]
    lasts: bool


class World:
    """A browser with a session of Ada's, what it asks for at once, and what is left when all is answered."""

    def __init__(self, plan: Plan, kind: type[Gated] = Gated) -> None:
        self.plan = plan
        self.clock = Clock()
        self.store = kind(self.clock)
        self.options: dict[str, Any] = {
            "random": at_random,
            "overflow": plan.overflow,
            "renew_grace": timedelta(seconds=plan.renew_grace),
            "idle_timeout": timedelta(seconds=IDLE),
        }
        ring = KeyRing(OLD) if plan.is_rotated else RING
        self.site = Site(ring, store=self.store, clock=self.clock, **self.options)
        self.jars: list[dict[bytes, bytes]] = []  # the first cookie, and the browser's after each response
        self.identity = Identity(ADA, 0)  # of the browser's cookie
        self.answered: list[asyncio.Event] = []
        self.ended: set[int] = set()  # the jars whose session somebody ends
        self.renewing: set[int] = set()  # and whose somebody renews, or has renewed
        self.renewed: set[int] = set()  # and whose somebody has renewed
        self.emptied: set[str] = set()  # what those who take everything out have seen
        self.saved: list[Saved] = []
        self.counts = 0  # the transactions that were done
        self.vain = 0  # and those that were not, and changed data all the same
        self.at_once: list[Session[Any]] = []  # of the jars, as soon as all is answered
        self.later: list[Session[Any]] = []  # and when every grace is over

    async def play(self) -> World:
        """Has the requests made and answered."""
        await self.site.put(user=ADA, text=LARGE if self.plan.is_large else "")
        self.jars.append(dict(self.site.jar))
        self.site = self.site.another(KeyRing(KEY, OLD), **self.options)
        self.clock.now += IDLE // 2 + 1 if self.plan.is_due else 0
        self.answered = [asyncio.Event() for _ in self.plan.requests]
        visits = [self.visit(number, request) for number, request in enumerate(self.plan.requests)]
        tasks = [asyncio.create_task(visit) for visit in visits]
        await self.store.serve(tasks, self.plan.turns)
        await asyncio.gather(*tasks)
        self.at_once = [await self.site.open(jar) for jar in self.jars]
        self.clock.now += GRACE
        self.later = [await self.site.open(jar) for jar in self.jars]
        return self

    async def visit(self, number: int, request: Request) -> None:
        """One request, until all is saved that comes after its response too."""
        visit = await self.arrive(number, request)
        for step in request.steps:
            await step(visit)
        await visit.pause()
        former = visit.identity
        self.renewing |= {former.jar} if request.renews else set()
        lines = await self.site.save(visit.session)
        if lines and (request.renews or former.jar == NOWHERE):
            self.renewed |= {former.jar} if request.renews else set()
            visit.identity = Identity(former.owner, len(self.jars))
        self.identity = visit.identity if lines else self.identity
        self.jars.append(dict(self.site.jar))
        self.answered[number].set()
        self.note(visit, lasts=True)
        visit.field, visit.changes = f"late field {number}", set()
        for step in request.late:
            await step(visit)
        if visit.session._state.opened:  # as the middleware does
            await self.site.manager.save_late(visit.session)
        self.note(visit, lasts=Visit.renew not in request.late)

    async def arrive(self, number: int, request: Request) -> Visit:
        """A request as its handler gets it."""
        jar, identity = self.jars[0], Identity(ADA, 0)
        if request.follows and number:
            await self.answered[number - 1].wait()
            jar, identity = dict(self.site.jar), self.identity
        session = await self.site.open(jar)
        state: Any = session._state  # and not is_new, which opens the session
        if state.held is None and state.carried is None:
            identity = Identity(f"field {number}'s first user", NOWHERE)
        return Visit(self, number, session, identity)

    def note(self, visit: Visit, *, lasts: bool) -> None:
        """What `visit` has saved lasts if that was before any renewal of that id."""
        self.saved.append(Saved(visit.changes, lasts=lasts and visit.identity.jar not in self.renewing))


def at_random(size: int) -> bytes:
    """Ids are; and whoever has met a conflict tries again at once, for which a single byte is asked."""
    return token_bytes(size) if size > 1 else bytes(size)


def changes(session: Session[Any]) -> set[str]:
    """What requests have changed, each for itself, as far as it is in a session."""
    fields = {name for name in session.data if "field" in name}
    return fields if session.label is None else fields | {"label"}


def owners(session: Session[Any]) -> set[str]:
    """Whose words are in a session."""
    data = {name: value for name, value in session.data.items() if name != "text"}
    return {*data.pop("counted", ()), *data.values(), session.subject, session.label} - {None}


# What is claimed


def nobody_is_signed_out(world: World) -> None:
    """A session that nobody ends is the browser's, renewed or not: at once, and when the old id is dead."""
    if world.plan.keeps_the_user:
        for session in (world.at_once[-1], world.later[-1]):
            assert session.data.get("user") == ADA


def no_change_is_lost(world: World) -> None:
    """Each field, the label and every transaction are in the browser's session, once.

    But for what has no way there: what comes by the old id after a renewal, or with a renewal that comes late.
    """
    if world.plan.keeps_the_user and world.plan.is_stored:
        for session in (world.at_once[-1], world.later[-1]):
            assert set().union(*(saved.changes for saved in world.saved if saved.lasts)) <= changes(session)
            assert world.counts == len(session.data.get("counted", ()))


def no_loss_is_silent(world: World) -> None:
    """There is an event for each that has lost a change to somebody's renewal, or to somebody who took all out.

    But for what those saw who took it out.
    """
    if world.plan.is_stored and not world.plan.does(Visit.log_out, Visit.log_in):
        left = world.emptied.union(*map(changes, world.later))
        left |= set() if world.plan.keeps_the_user else {"label"}  # which alone makes no session
        lost = [saved for saved in world.saved if not saved.changes <= left]
        assert len(lost) <= len(world.site.of(LateWrite))


def no_transaction_is_half_done(world: World) -> None:
    """The handler of one that says that the session has ended sees nothing of it."""
    assert 0 == world.vain


def users_share_no_session(world: World) -> None:
    """Whichever cookie opens it, a session is of one user: data, subject and label."""
    for session in (*world.at_once, *world.later):
        assert len(owners(session)) <= 1


def ended_session_stays_ended(world: World) -> None:
    """After a logout, early or late, by an old id or the new one, no cookie opens it from then on.

    Without a grace nobody knows what an old id was renewed to: the logout's own cookie opens nothing.
    """
    if world.plan.is_stored and world.ended:
        for opened in (world.at_once, world.later):
            jars = range(len(opened)) if world.plan.renew_grace else world.ended - {NOWHERE}
            assert all(opened[jar].data.get("user") != ADA for jar in jars)


def old_id_dies(world: World) -> None:
    """With the grace of its renewal, whatever the requests with it do."""
    if world.plan.is_stored:
        # With overflow, what begins meanwhile is in its cookie.
        for jar in world.renewed & ({0} if world.plan.overflow else set(range(len(world.jars)))):
            assert world.later[jar].is_new
            assert world.plan.renew_grace or world.at_once[jar].is_new


def no_record_is_left_over(world: World) -> None:
    """A session that nobody ends has one record, once every grace is over."""
    if world.plan.keeps_the_user and world.plan.is_stored:
        assert 1 == len(world.store)


Claim = Callable[[World], None]
CLAIMS: Final[Sequence[Claim]] = (
    nobody_is_signed_out,
    no_change_is_lost,
    no_loss_is_silent,
    no_transaction_is_half_done,
    users_share_no_session,
    ended_session_stays_ended,
    old_id_dies,
    no_record_is_left_over,
)

configurations: Final = pytest.mark.parametrize(
    "planned",
    [
        pytest.param(plans(logouts=False, overflow=False), id="stored"),
        pytest.param(plans(logouts=True, overflow=False), id="stored-with-logouts"),
        pytest.param(plans(logouts=False, overflow=True), id="overflow"),
        pytest.param(plans(logouts=True, overflow=True), id="overflow-with-logouts"),
    ],
)


@configurations
@given(data=st.data())
@SLICE
def test_requests_at_once_keep_every_claim(planned: SearchStrategy[Plan], data: DataObject) -> None:
    """Lost updates, revived sessions, wrong users and stale ids. Cases F70 to F74."""
    world = asyncio.run(World(data.draw(planned)).play())

    for claim in CLAIMS:
        claim(world)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@configurations
@given(data=st.data())
@settings(SLICE, max_examples=20_000, derandomize=False)
def test_many_more_requests_at_once_keep_every_claim(planned: SearchStrategy[Plan], data: DataObject) -> None:
    """Others in each run."""
    world = asyncio.run(World(data.draw(planned)).play())

    for claim in CLAIMS:
        claim(world)


# The claims can fail


class Blind(Gated):
    """A store that looks at no version."""

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        await self.note("replace")
        present = self._records.get(key, record)
        return await MemoryStore.replace(self, key, record, present.version)


class Reviving(Gated):
    """A store that puts a record where there is none any more."""

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        replaced = await super().replace(key, record, expected_version)
        return replaced or await MemoryStore.create(self, key, record)


class Keeping(Gated):
    """A store that says that it has removed a record."""

    async def delete(self, key: bytes) -> bool:
        await self.note("delete")
        return True


def breaks(plan: Plan, store: type[Gated], claim: Claim) -> bool:
    """Whether a claim does not hold."""
    world = asyncio.run(World(plan, store).play())
    try:
        claim(world)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(
    ("store", "claim"),
    [
        pytest.param(Blind, no_change_is_lost, id="no-versions"),
        pytest.param(Reviving, ended_session_stays_ended, id="revived-records"),
        pytest.param(Keeping, old_id_dies, id="kept-records"),
    ],
)
def test_store_that_breaks_its_contract_is_found(store: type[Gated], claim: Claim) -> None:
    """The promises are as good as the store: one that forgets a rule breaks a claim."""
    planned = plans(logouts=claim is ended_session_stays_ended, overflow=False)

    plan = find(planned, lambda plan: breaks(plan, store, claim), settings=SEARCH)

    assert breaks(plan, store, claim)
    assert not breaks(plan, Gated, claim)
