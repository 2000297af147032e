"""A store's server that fails, as the users of an application see it: 503 in time, and then all is as it was."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from outage_app import create_app
from outages import RING, Outage, PostgresOutage, RedisOutage, until, visitor
from postgres_server import postgres  # noqa: F401  a fixture
from redis_servers import Network, Server, needs_a_server, running
from soak import User, load, settle, site_at
from store_site import PATIENT, scenario

from cookiesession.events import StoreFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.applications import Starlette

    from cookiesession.events import Event

pytestmark = pytest.mark.servers

TIMEOUT: Final = timedelta(seconds=2)  # twice the default, which a busy machine keeps where all is well
LATEST: Final = 3 * TIMEOUT.total_seconds() + 1  # seconds that a 503 may take on a busy machine
FAULTS: Final = ("pause", "kill")
LONG: Final = pytest.mark.timeout(3600)  # seconds
GROWTH: Final = 10 * 2**20  # bytes of memory that are no leak
on_linux: Final = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
SOAKED: Final = 0.4  # seconds, of the store behind a server under load, which may refuse whenever it likes
LONGEST: Final = 10.0  # seconds that an answer may take from a server under load
SLACK: Final = 3  # descriptors that chance may add


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps what it has acknowledged."""
    server = Server(tmp_path_factory.mktemp("redis"), *RedisOutage.OPTIONS)
    with running(server):
        yield server.start()


@pytest.fixture(params=[pytest.param("redis", marks=needs_a_server), "postgresql"])
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    """Each of the servers, well before the test and after it."""
    if request.param == "redis":
        outage: Outage = RedisOutage(request.getfixturevalue("redis"))
    else:
        outage = PostgresOutage(request.getfixturevalue("postgres"))
    try:
        yield outage
    finally:
        outage.heal()


class Gate:
    """Holds a request up between its load and its save."""

    def __init__(self, app: Starlette) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()
        self.waiting = 0
        app.state.gate = self

    async def __call__(self) -> None:
        self.entered.set()
        self.waiting += 1
        await self.opened.wait()


async def happen(outage: Outage, what: str) -> None:
    """A fault or its end. The application notices one as it comes, and not with its next request."""
    getattr(outage, what)()
    await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def shop_at(
    outage: Outage, port: int | None = None, deadline: timedelta = TIMEOUT, **options: Any
) -> AsyncIterator[Starlette]:
    """The application, on a store with a short deadline unless the test has none to reach."""
    async with outage.store(deadline, port) as store:
        yield create_app(keys=RING, store=store, **options)


async def refused(client: httpx.AsyncClient, path: str = "/count") -> None:
    """A request is refused: in time, and without a word of why. The browser keeps what it has."""
    before, started = dict(client.cookies), time.monotonic()
    _check_refusal(await client.get(path), started)
    assert before == dict(client.cookies)


def _check_refusal(reply: httpx.Response, started: float) -> None:
    assert time.monotonic() - started < LATEST
    assert (503, "Service Unavailable") == (reply.status_code, reply.text)
    assert "set-cookie" not in reply.headers
    assert {"content-type", "cache-control", "retry-after"} == set(reply.headers)


async def told(client: httpx.AsyncClient, path: str = "/") -> Any:
    """What a request that succeeds gives."""
    reply = await client.get(path)
    assert reply.status_code == 200, reply.text
    return reply.json()


# Before, during and after a request


@pytest.mark.parametrize("fault", FAULTS)
@scenario
async def test_requests_are_refused_until_the_server_is_back(outage: Outage, fault: str) -> None:
    """Cases G80 and G90: one, many at once, with a session and without. The first one after the fault succeeds."""
    async with shop_at(outage) as shop, visitor(shop) as alice, visitor(shop) as bob:
        await told(alice, "/login/alice")
        await told(alice, "/count")

        await happen(outage, fault)
        before, started = dict(alice.cookies), time.monotonic()
        paths = ("/", "/count", "/login/mallory", "/logout") * 8
        for reply in await asyncio.gather(*map(alice.get, paths), bob.get("/count")):
            _check_refusal(reply, started)
        assert (before, {}) == (dict(alice.cookies), dict(bob.cookies))
        await happen(outage, "heal")

        assert {"user": "alice", "n": 2} == await told(alice, "/count")
        assert {"n": 1} == await told(bob, "/count")


@pytest.mark.parametrize("fault", FAULTS)
@scenario
async def test_fault_between_load_and_save_writes_once_or_not_at_all(outage: Outage, fault: str) -> None:
    """Cases G80, G81 and G90: handlers have succeeded, and clients are told that their requests have not.

    One goes on with a session, one begins one, and one signs in, whose old session goes on as that of a stranger.
    """
    async with shop_at(outage) as shop, visitor(shop) as alice, visitor(shop) as bob, visitor(shop) as carol:
        await told(alice, "/login/alice")
        await told(alice, "/count")
        await told(carol, "/count")
        gate = Gate(shop)

        requests = asyncio.gather(refused(alice), refused(bob), refused(carol, "/login/carol"))
        await until(lambda: gate.waiting == 3, "all should have been loaded")
        await happen(outage, fault)
        gate.opened.set()
        await requests
        await happen(outage, "heal")

        data = await told(alice)
        assert data in ({"user": "alice", "n": 1}, {"user": "alice", "n": 2})
        assert data["n"] + 1 == (await told(alice, "/count"))["n"]
        assert {} == dict(bob.cookies)
        assert {"n": 1} == await told(bob, "/count")
        assert {"n": 1} == await told(carol)
        assert {"user": "carol", "n": 0} == await told(carol, "/login/carol")
        assert {"user": "carol", "n": 1} == await told(carol, "/count")


@scenario
async def test_transactions_of_one_session_are_refused_together(outage: Outage) -> None:
    """Case G80: they wait for one another, but not for the deadline of each in turn."""
    async with shop_at(outage) as shop, visitor(shop) as alice:
        await told(alice, "/login/alice")
        gate = Gate(shop)

        requests = [asyncio.ensure_future(alice.get("/add")) for _ in range(10)]
        await until(lambda: gate.waiting == 10, "all requests should have been loaded")
        await happen(outage, "pause")
        started = time.monotonic()
        gate.opened.set()
        for request in requests:
            _check_refusal(await request, started)
        await happen(outage, "heal")

        assert (await told(alice, "/add"))["n"] in {1, 2}


@pytest.mark.parametrize("fault", FAULTS)
@scenario
async def test_fault_between_requests_is_not_noticed(outage: Outage, fault: str) -> None:
    """Case G90: though all connections are gone, however many there were."""
    async with shop_at(outage, deadline=PATIENT) as shop, visitor(shop) as alice:
        await told(alice, "/login/alice")
        await asyncio.gather(*(told(alice) for _ in range(30)))

        await happen(outage, fault)
        await happen(outage, "heal")

        replies = await asyncio.gather(*(told(alice) for _ in range(30)))
        assert [{"user": "alice", "n": 0}] * 30 == replies
        assert {"user": "alice", "n": 1} == await told(alice, "/count")


@scenario
async def test_server_that_has_lost_all_begins_anew(outage: Outage) -> None:
    """Under other ids: those that it had are not taken up again. Also where it happens during a request."""
    async with shop_at(outage, deadline=PATIENT) as shop, visitor(shop) as alice, visitor(shop) as bob:
        await told(alice, "/login/alice")
        await told(bob, "/login/bob")
        before = dict(alice.cookies)
        gate = Gate(shop)

        request = asyncio.ensure_future(bob.get("/count"))
        await gate.entered.wait()
        await outage.empty()
        gate.opened.set()
        reply = await request

        assert 200 == reply.status_code  # his session has ended, as by a logout
        assert {} == await told(bob)
        assert {"n": 1} == await told(alice, "/count")
        assert before != dict(alice.cookies)


# Logging out


@pytest.mark.parametrize("fault", FAULTS)
@scenario
async def test_logout_wins_through_an_outage(outage: Outage, fault: str) -> None:
    """Cases F72, G80 and G81: one that fails says so and keeps its cookie, and the next one counts.

    One that succeeded is not undone by a request beside it, which saves while the server is away.
    """
    async with shop_at(outage) as shop, visitor(shop) as alice, visitor(shop) as bob:
        await told(alice, "/login/alice")
        await told(bob, "/login/bob")
        kept, kept_of_bob = httpx.Cookies(alice.cookies), httpx.Cookies(bob.cookies)

        async with (
            visitor(shop, kept_of_bob) as slow,
            visitor(shop, kept) as thief,
            visitor(shop, kept_of_bob) as other,
        ):
            gate = Gate(shop)
            requests = asyncio.gather(refused(alice, "/logout"), refused(slow))
            await until(lambda: gate.waiting == 2, "both should have been loaded")
            shop.state.gate = None
            assert 204 == (await bob.get("/logout")).status_code
            await happen(outage, fault)
            gate.opened.set()
            await requests
            await happen(outage, "heal")

            assert 204 == (await alice.get("/logout")).status_code
            assert [{}, {}, {}] == [await told(each) for each in (thief, slow, other)]


# Without sessions, by choice


@pytest.mark.parametrize("fault", FAULTS)
@scenario
async def test_application_goes_on_without_sessions(outage: Outage, fault: str) -> None:
    """Where it chose to: 200, no user, no cookie written or taken away. Afterwards all is there.

    Where only the save fails, the answer tells of what was then lost.
    """
    events: list[Event] = []
    options: dict[str, Any] = {"on_store_error": "anonymous", "on_event": events.append}
    async with shop_at(outage, **options) as shop, visitor(shop) as alice, visitor(shop) as bob:
        await told(alice, "/login/alice")
        await told(bob, "/login/bob")
        before, gate = (dict(alice.cookies), dict(bob.cookies)), Gate(shop)

        late = asyncio.ensure_future(bob.get("/count"))
        await gate.entered.wait()
        await happen(outage, fault)
        gate.opened.set()
        started = time.monotonic()
        replies = await asyncio.gather(alice.get("/"), alice.get("/count"), late)
        took = time.monotonic() - started
        await happen(outage, "heal")

        assert [200] * 3 == [reply.status_code for reply in replies]
        assert [{}, {"n": 1}, {"user": "bob", "n": 1}] == [reply.json() for reply in replies]
        assert took < LATEST
        assert before == (dict(alice.cookies), dict(bob.cookies))
        assert 3 <= sum(isinstance(event, StoreFailed) for event in events) <= 4  # the save may be tried once more
        assert {"user": "alice", "n": 1} == await told(alice, "/count")
        assert (await told(bob))["n"] in {0, 1}


# Networks


@pytest.mark.parametrize("trouble", ["latency", "reset", "half open"])
@scenario
async def test_network_that_fails_is_a_503_in_time(outage: Outage, trouble: str) -> None:
    """Cases G80 and G90: 30 seconds of latency, an RST in the middle of an answer, connections nobody knows of."""
    async with Network(outage.port) as network, shop_at(outage, network.port) as shop, visitor(shop) as alice:
        await told(alice, "/login/alice")

        if trouble == "half open":
            network.lose()
        network.delay = 30.0 if trouble == "latency" else 0.0
        network.bytes_until_reset = 3 if trouble == "reset" else None
        await refused(alice)
        network.delay, network.bytes_until_reset = 0.0, None

        # One that was held up by the network may still arrive.
        assert (await told(alice, "/count"))["n"] in {1, 2}


@scenario
async def test_requests_that_are_given_up_leave_nothing_half_done(outage: Outage) -> None:
    """Case E63: cancelled at any moment of load and save. No half write, no connection lost, nobody else's answer."""
    async with Network(outage.port) as network:
        async with shop_at(outage, network.port, PATIENT) as shop, visitor(shop) as alice, visitor(shop) as bob:
            await told(alice, "/pair/0")
            await told(bob, "/login/bob")
            network.delay = 0.01  # each way
            for number in range(1, 26):
                request = asyncio.ensure_future(alice.get(f"/pair/{number}"))
                await asyncio.sleep(0.003 * number)
                request.cancel()
                await asyncio.wait({request})
                seen = await told(bob)
                assert {"user": "bob", "n": 0} == seen

            data = await told(alice)
            replies = await asyncio.gather(*(told(alice) for _ in range(50)))

            assert data["left"] == data["right"]
            assert [data] * 50 == replies
            assert {"left": 99, "right": 99} == await told(alice, "/pair/99")
        await until(lambda: network.connections == 0, "all connections should have been closed")


# Behind a real server


@on_linux
@scenario
async def test_clients_that_hang_up_cost_nothing(outage: Outage, tmp_path: Path) -> None:
    """Case E63: forty of them, while the store is paused: all that they held is given back, and others are served."""
    async with site_at(outage, SOAKED, tmp_path) as site:
        users = [User(site, f"user {number}", LONGEST) for number in range(4)]
        await load(users, 0.5, _nothing)
        before = await settle(site, outage)

        await happen(outage, "pause")
        for number in range(40):
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            cookie = users[number % 4].cookie
            writer.write(f"GET /pair/{number} HTTP/1.1\r\nhost: shop\r\ncookie: session={cookie}\r\n\r\n".encode())
            await asyncio.sleep(0.01)
            writer.transport.abort()
        await happen(outage, "heal")
        await load(users, 0.5, _nothing)
        after = await settle(site, outage, before.others + SLACK)
        assert [] == [complaint for user in users for complaint in user.complaints]
        assert after.others <= before.others + SLACK
        assert after.connections <= outage.pool


@on_linux
@needs_a_server
@pytest.mark.parametrize(
    "seconds",
    [pytest.param(8, id="slice"), pytest.param(1800, id="half an hour", marks=[pytest.mark.slow, LONG])],
)
def test_nothing_grows_while_faults_come_and_go(redis: Server, tmp_path: Path, seconds: int) -> None:
    """Case H96: Redis is paused, briefly and past the deadline, and killed, under load over uvicorn.

    Nobody gets another's answer, no count is lost or made twice, and what the process holds stays what it was.
    """

    async def scenario() -> None:
        outage = RedisOutage(redis)

        async def trouble(until: float) -> None:
            for fault, lasts in itertools.cycle((("pause", 0.8), ("kill", 0.3), ("pause", 0.1))):
                await asyncio.sleep(0.5)
                if time.monotonic() > until - 2.0:  # so that all is well in the end
                    return
                getattr(outage, fault)()
                await asyncio.sleep(lasts)
                await asyncio.to_thread(outage.heal)

        async with site_at(outage, SOAKED, tmp_path) as site:
            users = [User(site, f"user {number}", LONGEST) for number in range(20)]
            await load(users, max(seconds / 3, 4), trouble)
            before = await settle(site, outage)
            answers, refusals = (sum(each) for each in zip(*((u.answers, u.refusals) for u in users), strict=True))

            await load(users, seconds * 2 / 3, trouble)
            after = await settle(site, outage, before.others + SLACK)

            assert [] == [complaint for user in users for complaint in user.complaints]
            assert sum(user.answers for user in users) > answers + 5 * seconds  # a busy machine manages no more
            assert sum(user.refusals for user in users) > refusals
            assert after.memory < before.memory + GROWTH
            assert after.others <= before.others + SLACK
            assert after.connections <= len(users)

    asyncio.run(scenario())


async def _nothing(until: float) -> None:
    """All is well."""
