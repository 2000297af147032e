"""Rotation as a whole: a key file changes under an application, and what becomes of the sessions of its visitors."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from harness import START, Browser, Clock, handler
from key_readers import FileReader, replace

from cookiesession import Key, KeyFile, KeyRing, SessionManager, SessionMiddleware, base64url
from cookiesession.events import Event, Opened, Rejected, Resealed, Sealed
from cookiesession.keys import ALGORITHMS
from cookiesession.schedule import Schedule, moment
from cookiesession.testing import cookies_for

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

    from cookiesession.aead import Algorithm

NAME: Final = b"__Host-session"
DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
RULES: Final = {"every": DAY, "lifetime": 3 * DAY, "propagation": HOUR}


class Site:
    """An application with a key file, which is read whenever it changes, and a visitor."""

    def __init__(self, path: Path, *keys: Key) -> None:
        self.clock = Clock()
        self.schedule = Schedule()
        for key in keys:
            self.schedule = self.schedule.add(key, moment(START), timedelta(0))
        self.file = FileReader(path, self.schedule, self.clock)
        self.events: list[Event] = []
        self.sessions: list[dict[str, Any]] = []
        manager: SessionManager[Any] = SessionManager(
            self.file, lifetime=3 * DAY, clock=self.clock, on_event=self.events.append
        )
        self.browser = Browser(SessionMiddleware(handler(self.handle), manager))

    def handle(self, scope: MutableMapping[str, Any]) -> None:
        """Counts, and keeps what a visitor would be shown."""
        session = scope["session"]
        self.sessions.append(dict(session))
        if scope["method"] == "POST":
            session["count"] = session.get("count", 0) + 1

    def read(self, schedule: Schedule) -> None:
        """The file changes, and is read."""
        self.schedule = schedule
        self.file.read(schedule)

    def rotate(self, algorithm: Algorithm | None = None) -> None:
        """What is due, by the rules above."""
        self.read(self.schedule.rotate(moment(self.clock.now), algorithm=algorithm, **RULES))

    def wait(self, time: timedelta) -> None:
        """Lets time pass."""
        self.clock.now += time.total_seconds()

    @property
    def token(self) -> bytes:
        """What the visitor's cookie holds."""
        return self.browser.jar[NAME]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the key file is."""
    return tmp_path / "keys.json"


# Keys that come and go


@pytest.mark.parametrize(("before", "after"), list(permutations(ALGORITHMS, 2)))
def test_algorithm_changes_and_changes_back_under_a_live_session(
    path: Path, before: Algorithm, after: Algorithm
) -> None:
    """A change of algorithm is a rotation: the session goes on, in tokens of the other kind."""
    site = Site(path, Key.generate(before))
    site.browser.request(method="POST")
    seals = []

    for algorithm in (after, before):
        site.wait(DAY)
        site.rotate(algorithm)
        site.wait(HOUR)
        site.browser.request()
        seals.append(site.file.current(site.clock()).primary.algorithm)

    assert [{}, {"count": 1}, {"count": 1}] == site.sessions
    assert [after, before] == seals
    assert [Sealed, Opened, Resealed, Opened, Resealed] == [type(event) for event in site.events]
    assert (b"gAAAA" == site.token[:5]) == (before == "fernet")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_fifty_rotations_of_a_file_grow_neither_cookie_nor_file(path: Path, algorithm: Algorithm) -> None:
    """The visitor comes daily, with a new session each time, under a new key. Case B23, rails#39964."""
    site = Site(path, Key.generate(algorithm))
    sizes, keys, primaries = set(), set(), set()

    for _ in range(50):
        site.browser.request(method="POST")
        site.wait(DAY)
        site.rotate()
        site.wait(HOUR)
        reply = site.browser.request()
        sizes.add(len(reply.set_cookies[0]))
        keys.add(len(site.schedule.keys))
        primaries.add(site.file.current(site.clock()).primary.id)
        site.browser.jar.clear()

    assert 1 == len(sizes)
    assert 4 == max(keys)
    assert 50 == len(primaries)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_key_retired_at_once_ends_its_sessions_as_soon_as_the_file_is_read(path: Path, algorithm: Algorithm) -> None:
    """An empty session, a deleted cookie and a 200, and the next session is under the other key. Cases B21 and B26."""
    leaked, other = Key.generate(algorithm), Key.generate(algorithm)
    site = Site(path, leaked)
    site.browser.request(method="POST")
    stolen = NAME + b"=" + site.token
    site.wait(HOUR)
    site.read(site.schedule.add(other, moment(site.clock.now), timedelta(0)))
    site.browser.request(cookie=stolen)

    site.read(site.schedule.retire(leaked.id, moment(site.clock.now)))
    replies = [site.browser.request(cookie=stolen) for _ in range(2)]
    site.browser.request(method="POST")

    assert [{}, {"count": 1}, {}, {}, {}] == site.sessions
    assert [200, 200] == [reply.status for reply in replies]
    assert [[NAME], [NAME]] == [[line.partition(b"=")[0] for line in reply.set_cookies] for reply in replies]
    assert all(line.endswith(b"; Max-Age=0") for reply in replies for line in reply.set_cookies)
    assert other.id == [event.key_id for event in site.events if isinstance(event, Sealed)][-1]
    assert 2 == sum(isinstance(event, Rejected) for event in site.events)


# Many keys


class Counted:
    """An algorithm's seal and open that counts what it is asked to open."""

    def __init__(self, key: Key, trials: list[str]) -> None:
        self._key, self._aead, self._trials = key, key.aead, trials

    def open(self, sealed: bytes, associated_data: bytes, *, now: int) -> bytes:
        self._trials.append(self._key.algorithm)
        return self._aead.open(sealed, associated_data, now=now)


@pytest.mark.parametrize(
    ("forged", "expected"),
    [
        pytest.param(lambda ring: b"\x01" + ring.keys[3].fingerprint + bytes(120), ["xaes-256-gcm"], id="named"),
        pytest.param(lambda _: b"\x01" + bytes(124), [], id="unknown"),
        pytest.param(lambda _: b"\x80" + bytes(120), ["fernet"] * 5, id="fernet"),
        pytest.param(lambda _: b"\x02" + bytes(124), [], id="of-no-version"),
    ],
)
def test_garbage_costs_one_trial_under_fifty_keys(forged: Any, expected: list[str]) -> None:
    """Whatever the ring's length. A Fernet token names no key: it costs as many as there are Fernet keys. Case B25."""
    trials: list[str] = []
    ring = KeyRing(*(Key.generate("fernet" if number % 10 == 9 else "xaes-256-gcm") for number in range(50)))
    for key in ring.keys:
        object.__setattr__(key, "aead", Counted(key, trials))
    refused: list[Event] = []
    manager: SessionManager[Any] = SessionManager(ring, on_event=refused.append)
    token = base64url.encode(forged(ring))
    token += b"=" * (-len(token) % 4 if token.startswith(b"gAAAA") else 0)

    manager.session([(b"cookie", NAME + b"=" + token)]).mark_accessed()

    assert expected == trials
    assert [Rejected] == [type(event) for event in refused]


# A change in the middle of requests


REQUESTS: Final = 1000
RELOADS: Final = 8


def test_a_thousand_requests_in_flight_see_no_mixed_state(path: Path) -> None:
    """The file changes eight times under them: each seals what it opened with the primary key of its moment.

    Case B24.
    """
    random, clock = Random(24), Clock()  # noqa: S311 - it is to be repeatable
    schedule = Schedule().add(Key.generate(), moment(START) - DAY, timedelta(0))
    replace(path, schedule)
    file = KeyFile(path, clock=clock)
    sealed: list[tuple[str, str]] = []
    others: list[Event] = []

    def note(event: Event) -> None:
        if isinstance(event, Sealed):
            sealed.append((event.key_id, file.current(clock()).primary.id))
        elif not isinstance(event, Opened):
            others.append(event)

    manager: SessionManager[Any] = SessionManager(file, clock=clock, on_event=note)
    gates = [asyncio.Event() for _ in range(RELOADS + 1)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begin, end = sorted(random.choices(gates, k=2), key=gates.index)
        await begin.wait()
        number = scope["session"]["number"]
        await end.wait()
        scope["session"]["answer"] = number
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def request(number: int) -> dict[str, Any]:
        """What the session holds that comes back for this number."""
        replies: list[Message] = []

        async def send(message: Message) -> None:
            replies.append(message)

        headers = [(b"cookie", cookie_of(manager, {"number": number}))]
        await SessionMiddleware(app, manager)({"type": "http", "headers": headers}, nothing, send)
        [answer] = replies
        [cookie] = [value for name, value in answer["headers"] if name == b"set-cookie"]
        return dict(manager.session([(b"cookie", cookie.partition(b";")[0])]).data)

    async def all_at_once() -> list[dict[str, Any]]:
        nonlocal schedule
        tasks = [asyncio.create_task(request(number)) for number in range(REQUESTS)]
        for gate in gates:
            await asyncio.sleep(0)
            gate.set()
            await asyncio.sleep(0)
            schedule = schedule.add(Key.generate(), moment(clock()), timedelta(0))
            replace(path, schedule)
            clock.now += 1
            file.refresh(clock())
            file._reader.join(30)
        async with asyncio.timeout(30):
            return await asyncio.gather(*tasks)

    answers = asyncio.run(all_at_once())

    assert [{"number": number, "answer": number} for number in range(REQUESTS)] == answers
    assert [] == others
    assert all(key_id == primary for key_id, primary in sealed)
    assert RELOADS < len({key_id for key_id, _ in sealed})


async def nothing() -> Message:
    """What an application that reads no request never asks for."""
    raise AssertionError


def cookie_of(manager: SessionManager[Any], data: dict[str, Any]) -> bytes:
    """The cookie of a new session."""
    [(name, value)] = cookies_for(manager, data).items()
    return f"{name}={value}".encode()
