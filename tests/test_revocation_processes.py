"""Processes that end sessions in cookies, in any order that a store can answer them: what opens where and when.

Hypothesis makes a `Plan`, a `World` plays it, and every claim is checked of what was opened meanwhile and of what is
left. Each call of the store is under way for a while before it has its effect, and its answer after that.
And real processes, with a Redis between them.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from harness import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_servers import Server, needs_a_server, running
from revocable_site import EVERY, Instance, Jar
from test_servermode import GRACE, RING

from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from hypothesis.strategies import DataObject, SearchStrategy

    from cookiesession import Session
    from cookiesession.stores import Record

pytestmark = [
    pytest.mark.timeout(900),  # seconds: outside CI, Hypothesis makes what breaks a claim smaller
    pytest.mark.no_cover,  # what runs here runs in other tests too, and here so often that measuring takes most of it
]

USERS: Final = ("ada", "bob")
TURN: Final = 0.001  # seconds that pass with each turn
MOST_TURNS: Final = 5000  # far more than any plan takes
AT_ONCE: Final = 4  # deeds

SLICE: Final = settings(max_examples=400, derandomize=True)


class Gated(MemoryStore):
    """A store that has one call at a time go on, in an order that is chosen."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.is_gated = True
        self.waiting: list[asyncio.Future[None]] = []

    async def turn(self) -> None:
        """Waits for it."""
        if self.is_gated:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            await turn

    async def load(self, key: bytes) -> Record | None:
        await self.turn()
        record = await super().load(key)
        await self.turn()
        return record

    async def create(self, key: bytes, record: Record) -> bool:
        await self.turn()
        created = await super().create(key, record)
        await self.turn()
        return created

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        await self.turn()
        replaced = await super().replace(key, record, expected_version)
        await self.turn()
        return replaced

    async def delete(self, key: bytes) -> bool:
        await self.turn()
        deleted = await super().delete(key)
        await self.turn()
        return deleted

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        await self.turn()
        found = await super().find(subject)
        await self.turn()
        return found


class Moment(NamedTuple):
    """When something was done, and by which process."""

    order: int
    at: float
    process: int


@dataclass(eq=False)
class Cookie:
    """What a response has set: one id of a login."""

    login: Login
    jar: Jar
    id_hash: str
    renewed: Moment | None = None
    """When the response was there that set the next id."""
    lasts_until: float = 0.0
    """The end of the grace, at the earliest."""


@dataclass(eq=False)
class Login:
    """What begins as one session, with all ids that it is renewed to."""

    number: int
    user: str
    began: float
    cookies: list[Cookie] = field(default_factory=list)
    ended: list[Moment] = field(default_factory=list)
    is_doomed: bool = False
    """Whether anybody has begun to do what may end it."""
    renewals: int = 0
    """Of requests that are under way."""
    spared: int = 0
    """By requests that are under way: the id that they know, and none that another renews it to meanwhile."""


class Plan(NamedTuple):
    """What is done, and in which order it goes on."""

    deeds: Sequence[Deed]
    turns: bytes
    intervals: Sequence[float]
    """The `check_every` of each process."""
    renew_grace: int
    track: bool


class Deed(NamedTuple):
    """Something that a process does, with one of the cookies there are then."""

    do: Callable[[World, Deed], Coroutine[Any, Any, None]]
    process: int
    choice: int
    steps: Sequence[str] = ()


class World:
    """Several processes, the cookies that they have set, and what is known to have ended."""

    def __init__(self, plan: Plan, kind: type[Gated] = Gated) -> None:
        self.plan = plan
        self.clock = Clock()
        self.store = kind(self.clock)
        options: dict[str, Any] = {"renew_grace": timedelta(seconds=plan.renew_grace), "track": plan.track}
        self.processes = [
            Instance(store=self.store, clock=self.clock, check_every=every, **options) for every in plan.intervals
        ]
        self.order = 0
        self.logins: list[Login] = []
        self.sweeps: Counter[str] = Counter()  # under way, by whose sessions they end
        self.broken: list[str] = []  # claims that did not hold

    async def play(self) -> World:
        """Does what is planned, until all is done."""
        left = list(self.plan.deeds)
        running: set[asyncio.Task[None]] = set()
        for index in range(MOST_TURNS):
            for _ in range(8):  # until each has gone as far as it can
                await asyncio.sleep(0)
            running = {task for task in running if not task.done() or task.result()}
            if not left and not running:
                break
            turn = self.plan.turns[index] if index < len(self.plan.turns) else 0
            self.clock.now += TURN
            choice = turn % (len(self.store.waiting) + bool(left and len(running) < AT_ONCE))
            if choice < len(self.store.waiting):
                self.store.waiting.pop(choice).set_result(None)
            else:
                deed = left.pop(0)
                running.add(asyncio.create_task(deed.do(self, deed)))
        assert not left, "deeds wait for each other"
        assert not running, "deeds wait for each other"
        self.store.is_gated = False
        await self.judge()
        return self

    def now(self, process: int) -> Moment:
        """One after all that has been."""
        self.order += 1
        return Moment(self.order, self.clock.now, process)

    def claim(self, what: str, *, holds: bool) -> None:
        if not holds:
            self.broken.append(what)

    def is_known(self, done: Moment, asked: Moment) -> bool:
        """Whether a process has to know of something when it is asked."""
        every = 0.0 if done.process == asked.process else self.plan.intervals[asked.process]
        return done.order < asked.order and asked.at - done.at >= every

    # Deeds

    async def pass_time(self, deed: Deed) -> None:
        self.clock.now += (0.5, 1, EVERY - 0.1, EVERY, GRACE, GRACE + EVERY)[deed.choice % 6]

    async def log_in(self, deed: Deed) -> None:
        session = await self.processes[deed.process].open({})
        session.mark_accessed()
        await self.begin(session, deed.process, USERS[deed.choice % len(USERS)])

    async def begin(self, session: Session[Any], process: int, user: str) -> None:
        """The response of a login."""
        login = Login(len(self.logins), user, session._state.payload.began(), is_doomed=bool(self.sweeps[user]))
        self.logins.append(login)
        session.subject = user
        session.data["login"] = login.number
        jar: Jar = {}
        await self.processes[process].save(session, jar)
        login.cookies.append(Cookie(login, jar, session.id_hash))

    async def end(self, deed: Deed) -> None:
        cookie = self.choose(deed.choice)
        if cookie is not None:
            cookie.login.is_doomed = True
            await self.processes[deed.process].manager.end(cookie.id_hash)
            cookie.login.ended.append(self.now(deed.process))

    async def end_all(self, deed: Deed) -> None:
        await self.sweep(deed.process, USERS[deed.choice % len(USERS)])

    async def end_everything(self, deed: Deed) -> None:
        await self.sweep(deed.process, *USERS)

    async def sweep(self, process: int, *users: str, own: Login | None = None, except_id: str | None = None) -> None:
        """Ends the sessions of users, but not one's `own`."""
        manager = self.processes[process].manager
        theirs = [login for login in self.logins if login.user in users and login is not own]
        for login in theirs:
            login.is_doomed = True
        concerned = [login for login in theirs if login.began < self.clock.now - TURN / 2]
        self.sweeps.update(users)
        user, *others = users
        if others:
            await manager.end_everything()
        else:
            await manager.end_all(user, except_id=except_id)
        self.sweeps.subtract(users)
        moment = self.now(process)
        for login in concerned:
            login.ended.append(moment)

    async def visit(self, deed: Deed) -> None:
        """A request."""
        cookie = self.choose(deed.choice)
        if cookie is None:
            return
        login, instance, jar = cookie.login, self.processes[deed.process], dict(cookie.jar)
        renews = "renew" in deed.steps
        login.renewals += renews
        login.is_doomed |= renews and login.spared > 0
        session = await self.open(cookie, deed.process)
        if session.data:
            is_read_only = cookie.renewed is not None and self.is_known(cookie.renewed, self.now(deed.process))
            ends, taken = False, []
            for step in deed.steps:
                taken.append(step)
                ends = await self.take(step, session, cookie, deed) or ends
                if step in {"empty", "log in again"}:
                    break
            if "log in again" not in taken:
                login.is_doomed |= ends
                earliest = self.clock.now + self.plan.renew_grace
                lines = await instance.save(session, jar)
                self.claim("an old id saves nothing", holds=ends or not (is_read_only and lines))
                if lines and not ends:
                    self.note(cookie, jar, session, earliest if renews else None, deed.process)
                if ends and ("clear" in taken or lines):
                    login.ended.append(self.now(deed.process))
                if "clear late" in deed.steps:
                    login.is_doomed = True
                    session.clear()
                await instance.manager.save_late(session)
                if "clear late" in deed.steps:
                    login.ended.append(self.now(deed.process))
        login.renewals -= renews

    def note(self, cookie: Cookie, jar: Jar, session: Session[Any], lasts: float | None, process: int) -> None:
        """What a response has set."""
        if lasts is None:
            cookie.jar = jar
        else:
            cookie.renewed, cookie.lasts_until = self.now(process), lasts
            cookie.login.cookies.append(Cookie(cookie.login, jar, session.id_hash))

    async def take(self, step: str, session: Session[Any], cookie: Cookie, deed: Deed) -> bool:
        """One step of a handler. Whether it ends the session."""
        login = cookie.login
        match step:
            case "write":
                session.data["n"] = session.data.get("n", 0) + 1
            case "name":
                session.label = f"label {self.now(0).order}"
            case "renew":
                session.renew()
            case "pause":
                await self.store.turn()
            case "clear":
                session.clear()
                return True
            case "empty":
                session.data.clear()
                session.subject = None
                return True
            case "end others" if session.subject == login.user:
                others = login.renewals - ("renew" in deed.steps)
                login.is_doomed |= others > 0 or cookie is not login.cookies[-1]
                login.spared += 1
                await self.sweep(deed.process, login.user, own=login, except_id=session.id)
                login.spared -= 1
            case "log in again":
                login.is_doomed = True
                await self.sweep(deed.process, login.user)
                session.clear()
                await self.begin(session, deed.process, login.user)
                login.ended.append(self.now(deed.process))
                return True
        return False

    def choose(self, choice: int) -> Cookie | None:
        """Any cookie that has been set."""
        cookies = [cookie for login in self.logins for cookie in login.cookies]
        return cookies[choice % len(cookies)] if cookies else None

    async def open(self, cookie: Cookie, process: int) -> Session[Any]:
        """The session that a cookie gives, if it is as it has to be."""
        login, asked = cookie.login, self.now(process)
        session = await self.processes[process].open(cookie.jar)
        is_live = bool(session.data)
        if any(self.is_known(ended, asked) for ended in login.ended):
            self.claim("what has ended opens nowhere", holds=not is_live)
        if cookie.renewed is not None:
            of_late = EVERY + self.plan.renew_grace
            if asked.at - cookie.renewed.at >= of_late:
                self.claim("an old id dies with its grace", holds=not is_live)
            if self.clock.now < cookie.lasts_until and not login.is_doomed:
                self.claim("an old id lives as long as its grace", holds=is_live)
        elif not login.is_doomed and not login.renewals:
            self.claim("what nobody ends stays", holds=is_live or cookie.renewed is not None)
        self.claim("nobody sees another's session", holds=not is_live or session.data["login"] == login.number)
        return session

    async def judge(self) -> None:
        """What is left when every process has heard of everything."""
        self.clock.now += EVERY + GRACE + 1
        live: dict[str, set[str]] = {user: set() for user in USERS}
        for login in self.logins:
            for cookie in login.cookies:
                for process in range(len(self.processes)):
                    session = await self.open(cookie, process)
                    if session.data:
                        live[login.user].add(cookie.id_hash)
        for user in USERS if self.plan.track else ():
            for instance in self.processes:
                listed = {info.id_hash for info in await instance.manager.sessions(user)}
                self.claim("the list shows what lives", holds=listed == live[user])


STEPS: Final = ("write", "name", "pause", "renew", "clear", "empty", "end others", "clear late", "log in again")
DEEDS: Final = (World.visit, World.visit, World.visit, World.log_in, World.end, World.end_all, World.end_everything)


def plans() -> SearchStrategy[Plan]:
    """Two or three processes, and up to a dozen deeds."""
    deeds = st.builds(
        Deed,
        do=st.sampled_from((*DEEDS, World.pass_time)),
        process=st.integers(0, 1),
        choice=st.integers(0, 11),
        steps=st.lists(st.sampled_from(STEPS), max_size=4),
    )
    first = st.builds(Deed, st.just(World.log_in), st.integers(0, 1), st.integers(0, 1))
    return st.builds(
        Plan,
        deeds=st.builds(lambda first, rest: [first, *rest], first, st.lists(deeds, min_size=2, max_size=12)),
        turns=st.binary(min_size=120, max_size=120),
        intervals=st.lists(st.sampled_from((0.0, float(EVERY))), min_size=2, max_size=2),
        renew_grace=st.sampled_from((GRACE, GRACE, 0)),
        track=st.booleans(),
    )


@given(data=st.data())
@SLICE
def test_processes_keep_every_claim(data: DataObject) -> None:
    """Case F72, and F70 and F71: whoever ends whatever, wherever and in whatever order."""
    world = asyncio.run(World(data.draw(plans())).play())

    assert [] == world.broken


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(data=st.data())
@settings(SLICE, max_examples=20_000, derandomize=False)
def test_many_more_processes_keep_every_claim(data: DataObject) -> None:
    """Others in each run."""
    world = asyncio.run(World(data.draw(plans())).play())

    assert [] == world.broken


# Real ones


SLACK: Final = 0.05  # seconds by which the system may set its clock meanwhile


class Process:
    """A worker, and what it answers."""

    def __init__(self, *options: object) -> None:
        command = (sys.executable, "-W", "error", str(Path(__file__).with_name("revocation_worker.py")))
        self.process = subprocess.Popen(  # noqa: S603  our own script
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tell(*options)

    def tell(self, *command: object) -> None:
        """Has it do something."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What it says next."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def ask(self, *command: object) -> Any:
        """Both."""
        self.tell(*command)
        return self.answer()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server."""
    server = Server(tmp_path_factory.mktemp("redis"))
    with running(server):
        yield server.start()


@pytest.fixture(params=[0.0, 1.0], ids=["every-request", "1s"])
def processes(request: pytest.FixtureRequest, redis: Server) -> Iterator[tuple[float, Process, Process]]:
    """Two on one Redis, of which the second asks it so often."""
    keys = RING.primary.export()
    first, second = Process(redis.url, keys, 0.0), Process(redis.url, keys, request.param)
    try:
        yield request.param, first, second
    finally:
        for each in (first, second):
            each.process.kill()
            each.process.communicate()


@pytest.mark.servers
@needs_a_server
@pytest.mark.parametrize("how", ["id", "logout", "subject", "everything"])
def test_real_processes_notice_within_the_interval(processes: tuple[float, Process, Process], how: str) -> None:
    """Case F71. By the clock of the machine, from when the ending was done until a request began that still saw it."""
    check_every, here, there = processes
    cookie = here.ask("login", f"user of {how}")
    there.tell("watch", cookie, 60)
    assert there.answer() == "watching"

    ended = here.ask("end", how, cookie)
    last_seen, first_gone = there.answer()

    assert last_seen < ended + check_every + SLACK
    assert first_gone > 0
    assert 0.0 == here.ask("watch", cookie, 60)[0]
