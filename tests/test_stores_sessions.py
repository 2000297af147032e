"""Sessions on each store, with real servers: nothing lost, nothing brought back, nobody sees another's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import pickle
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec import Struct
from postgres_server import postgres  # noqa: F401  a fixture
from pydantic import BaseModel
from redis_servers import Server, cluster, needs_a_server, running
from store_site import KEY, NAME, PATIENT, Site, Storage, Visitor, scenario, site_on, somebody, task_name

from cookiesession import Key, KeyRing
from cookiesession.stores.memory import MemoryStore
from cookiesession.stores.url import store_from_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from postgres_server import PostgresServer

    from cookiesession import Session

pytestmark = pytest.mark.servers

BIG: Final = "x" * 9000  # more than cookies hold
GRACE: Final = 10  # seconds, the default of renew_grace
HOUR: Final = 3600
OLD: Final = Key.generate()
PROCESSES: Final = 2


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server."""
    server = Server(tmp_path_factory.mktemp("redis"))
    with running(server):
        yield server.start()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """A cluster of three."""
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def workers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that count."""
    command = (sys.executable, "-W", "error", str(Path(__file__).with_name("store_worker.py")))
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  our own script
        for _ in range(PROCESSES)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _memory(request: pytest.FixtureRequest) -> Storage:
    store = MemoryStore()

    async def dump() -> bytes:
        return b"".join(key + record.value + (record.subject or b"") for key, record in store._records.items())

    return Storage("", store, dump)


def _file(request: pytest.FixtureRequest) -> Storage:
    folder: Path = request.getfixturevalue("tmp_path")

    async def dump() -> bytes:
        return _files_in(folder)

    return Storage(f"file://{folder}/sessions?sync=false", None, dump)


def _sqlite(request: pytest.FixtureRequest) -> Storage:
    folder: Path = request.getfixturevalue("tmp_path")

    async def dump() -> bytes:
        return _files_in(folder)

    return Storage(f"sqlite:///{folder}/sessions.db", None, dump)


def _postgresql(request: pytest.FixtureRequest) -> Storage:
    server: PostgresServer = request.getfixturevalue("postgres")

    async def dump() -> bytes:
        rows = await server.run("SELECT * FROM cookiesession")
        return b"".join(bytes(part) for row in rows for part in row.values() if isinstance(part, bytes))

    return Storage(server.url(), None, dump)


def _redis(request: pytest.FixtureRequest) -> Storage:
    server: Server = request.getfixturevalue("redis")

    async def dump() -> bytes:
        return _all_of(server)

    return Storage(server.url, None, dump)


def _cluster(request: pytest.FixtureRequest) -> Storage:
    nodes: list[Server] = request.getfixturevalue("nodes")

    async def dump() -> bytes:
        return b"".join(map(_all_of, nodes))

    return Storage(f"redis+cluster://127.0.0.1:{nodes[0].port}", None, dump)


def _files_in(folder: Path) -> bytes:
    return b"".join(bytes(path) + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


def _all_of(server: Server) -> bytes:
    with server.admin as admin:
        return b"".join(bytes(name) + (admin.dump(name) or b"") for name in admin.scan_iter("*"))


MEMORY: Final = pytest.param(_memory, id="memory")
SHARED: Final = [  # by several processes
    pytest.param(_file, id="file"),
    pytest.param(_sqlite, id="sqlite"),
    pytest.param(_postgresql, id="postgresql"),
    pytest.param(_redis, id="redis", marks=needs_a_server),
    pytest.param(_cluster, id="cluster", marks=needs_a_server),
]


@pytest.fixture(params=[MEMORY, *SHARED])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Each of the stores."""
    make: Callable[[pytest.FixtureRequest], Storage] = request.param
    return make(request)


# Many at once


@scenario
async def test_fifty_requests_at_once_lose_no_field(storage: Storage) -> None:
    """Case F73. Each writes a field of its own and a list that all share: of that, the last writer's is left."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(shared=[])
        numbers: dict[str, int] = {}
        all_have_loaded = asyncio.Barrier(50)

        async def respond(number: int) -> None:
            async def act(session: Session[Any]) -> None:
                session.data[f"own {number}"] = number
                session.data["shared"].append(number)
                numbers[task_name()] = number
                await all_have_loaded.wait()

            await visitor.copy().visit(act, number % 2)

        await asyncio.gather(*(respond(number) for number in range(50)))

        data = await visitor.read()
        writers = {version: name for store in site.stores for version, name in store.writers.items()}
        last = numbers[writers[max(writers)]]
        assert [last] == data.pop("shared")
        assert {f"own {number}": number for number in range(50)} == data


@scenario
async def test_two_hundred_increments_are_two_hundred(storage: Storage) -> None:
    """Case F74. At two instances at once, by transactions; what else each request changes is there as well."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(n=0)

        async def increment(number: int) -> None:
            async def act(session: Session[Any]) -> None:
                session.data[f"seen {number % 4}"] = True
                await session.transact(lambda data: data.update(n=data["n"] + 1))

            await visitor.copy().visit(act, number % 2)

        await asyncio.gather(*(increment(number) for number in range(200)))

        assert {"n": 200, **{f"seen {number}": True for number in range(4)}} == await visitor.read()


@pytest.mark.parametrize("make", SHARED)
@scenario
async def test_increments_of_several_processes_are_all_there(
    make: Callable[[pytest.FixtureRequest], Storage],
    request: pytest.FixtureRequest,
    workers: list[subprocess.Popen[bytes]],
) -> None:
    """Case F74. Real ones, which know nothing of one another."""
    storage = make(request)
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(n=0)
        cookie = (NAME + b"=" + visitor.jar[NAME]).decode()
        order = json.dumps([storage.url, KEY.export(), cookie, 40]).encode() + b"\n"

        counts = await asyncio.to_thread(_in_all, workers, order)

        assert [40] * PROCESSES == counts
        assert {"n": 40 * PROCESSES} == await visitor.read()


def _in_all(workers: list[subprocess.Popen[bytes]], order: bytes) -> list[int]:
    for worker in workers:
        assert worker.stdin
        worker.stdin.write(order)
        worker.stdin.flush()
    return [int(worker.stdout.readline() or -1) for worker in workers if worker.stdout]


@scenario
async def test_hundred_users_at_once_see_their_own(storage: Storage) -> None:
    """Case E67. Over two instances, with every answer of the store delayed."""
    async with site_on(storage) as site:
        for store in site.stores:
            store.delay = 0.02

        async def user(number: int) -> list[dict[str, Any]]:
            visitor = Visitor(site)
            await visitor.login(f"user {number}", instance=number % 2)
            await visitor.put(number % 2, secret=number)
            return [await visitor.read(instance) for instance in (0, 1)]

        seen = await asyncio.gather(*(user(number) for number in range(100)))

        assert [[{"user": f"user {number}", "secret": number}] * 2 for number in range(100)] == seen


@scenario
async def test_use_that_is_noted_beside_a_writer_leaves_its_data(storage: Storage) -> None:
    """Case F75. The reader's write, due since half of the idle timeout has passed, and the writer's: in both orders."""
    async with site_on(storage, idle_timeout=timedelta(minutes=10)) as site:
        for reader_is_last in (True, False):
            visitor = Visitor(site)
            await visitor.put(n=0)
            site.clock.now += 301
            loaded, done = asyncio.Event(), asyncio.Event()

            async def slow(session: Session[Any]) -> None:
                if not reader_is_last:  # noqa: B023  of this very round
                    session.data["n"] = 1
                session.data.get("n")
                loaded.set()  # noqa: B023
                await done.wait()  # noqa: B023

            late = asyncio.ensure_future(visitor.copy().visit(slow, 1))
            await loaded.wait()
            await (visitor.put(n=1) if reader_is_last else visitor.read())
            done.set()
            await late

            assert {"n": 1} == await visitor.read()
            site.clock.now += 301
            assert {"n": 1} == await visitor.read()


@scenario
async def test_removal_of_the_last_field_beside_a_new_one_leaves_that(storage: Storage) -> None:
    """A session that is empty to one request is not to another, which was faster."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(a=1)
        loaded, written = asyncio.Event(), asyncio.Event()

        async def remove(session: Session[Any]) -> None:
            session.data.pop("a")
            loaded.set()
            await written.wait()

        response = asyncio.ensure_future(visitor.copy().visit(remove, 1))
        await loaded.wait()
        await visitor.put(b=2)
        written.set()
        await response

        assert {"b": 2} == await visitor.read()


@scenario
async def test_change_after_the_response_leaves_those_of_others(storage: Storage) -> None:
    """Case E60. In a background task; what others had changed was merged as the response was sent."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(a=1)
        loaded, written = asyncio.Event(), asyncio.Event()

        async def slow(session: Session[Any]) -> None:
            session.data["a"] = 2
            loaded.set()
            await written.wait()

        async def later(session: Session[Any]) -> None:
            session.data["a"] = 3

        response = asyncio.ensure_future(visitor.copy().visit(slow, 1, later))
        await loaded.wait()
        await visitor.put(b=2)
        written.set()
        await response

        assert {"a": 3, "b": 2} == await visitor.read()


# Beginning and ending


@scenario
async def test_logout_wins_over_a_slow_request(storage: Storage) -> None:
    """Case F72. At another instance, while that changes data, renews the session, or is in a transaction."""
    async with site_on(storage) as site:
        for change in ("data", "renew", "transact"):
            visitor = Visitor(site)
            await visitor.login(user := somebody())
            before = visitor.copy()
            loaded, left = asyncio.Event(), asyncio.Event()

            async def slow(session: Session[Any]) -> None:
                session.data["n"] = 1
                loaded.set()  # noqa: B023  of this very round
                await left.wait()  # noqa: B023
                if change == "renew":  # noqa: B023
                    session.renew()
                if change == "transact":  # noqa: B023
                    with pytest.raises(Exception, match="ended"):
                        await session.transact(lambda data: data.update(n=2))

            request = visitor.copy()
            response = asyncio.ensure_future(request.visit(slow, 1))
            await loaded.wait()
            await visitor.logout()
            left.set()
            await response

            assert {} == await before.copy().read()
            assert {} == await request.read()
            assert [] == await site.managers[0].sessions(user)


@scenario
async def test_cookie_that_somebody_kept_opens_nothing_after_logout(storage: Storage) -> None:
    """Case F71. At any instance, and no change of it is saved."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(user="alice")
        kept = visitor.copy()

        await visitor.logout()

        assert {} == visitor.jar
        assert [{}, {}] == [await kept.copy().read(instance) for instance in (0, 1)]
        replayed = kept.copy()
        await replayed.put(user="mallory")
        assert {} == await kept.copy().read()
        assert replayed.jar != kept.jar


@scenario
async def test_login_gives_another_id_and_the_old_one_dies(storage: Storage) -> None:
    """Case F70. After a grace for requests that were under way, and without the user's data even then."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(cart=["tea"])
        old, before = visitor.copy(), await visitor.id()

        await visitor.login("alice")
        under_way = await old.copy().read(1)
        site.clock.now += GRACE - 1
        at_the_end = await old.copy().read()
        site.clock.now += 1
        dead = await old.copy().read()

        assert [{"cart": ["tea"]}] * 2 + [{}] == [under_way, at_the_end, dead]
        assert {"cart": ["tea"], "user": "alice"} == await visitor.read(1)
        assert before != await visitor.id()


@scenario
async def test_renewal_takes_along_what_others_wrote_meanwhile(storage: Storage) -> None:
    """As long as they came first."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(a=1)
        loaded, written = asyncio.Event(), asyncio.Event()

        async def renew(session: Session[Any]) -> None:
            session.renew()
            session.data["c"] = 3
            loaded.set()
            await written.wait()

        renewing = visitor.copy()
        response = asyncio.ensure_future(renewing.visit(renew, 1))
        await loaded.wait()
        await visitor.put(b=2)
        written.set()
        await response

        assert {"a": 1, "b": 2, "c": 3} == await renewing.read()


@scenario
async def test_request_under_way_does_not_take_a_new_cookie_back(storage: Storage) -> None:
    """Case F70. It began before the login and ends after it: the browser keeps the cookie of the login."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(cart=["tea"])
        loaded, renewed = asyncio.Event(), asyncio.Event()

        async def slow(session: Session[Any]) -> None:
            session.data["seen"] = True
            loaded.set()
            await renewed.wait()

        response = asyncio.ensure_future(visitor.visit(slow, 1))
        await loaded.wait()
        await visitor.login("alice")
        id = await visitor.id()
        renewed.set()
        await response

        assert id == await visitor.id()
        site.clock.now += GRACE
        assert "alice" == (await visitor.read()).get("user")


@scenario
async def test_login_with_a_transaction_gives_another_id(storage: Storage) -> None:
    """Case F70. In whatever order."""
    async with site_on(storage) as site:
        for renew_first in (True, False):
            visitor = Visitor(site)
            await visitor.put(n=0)
            old, before = visitor.copy(), await visitor.id()

            async def login(session: Session[Any]) -> None:
                if renew_first:  # noqa: B023  of this very round
                    session.renew()
                await session.transact(lambda data: data.update(n=1))
                if not renew_first:  # noqa: B023
                    session.renew()
                session.data["user"] = "alice"

            await visitor.visit(login)

            assert before != await visitor.id()
            assert {"n": 1, "user": "alice"} == await visitor.read()
            site.clock.now += GRACE
            assert {} == await old.read()


@scenario
async def test_sessions_of_a_user_are_listed_and_ended(storage: Storage) -> None:
    """One of them, all of them but one, and never those of others."""
    async with site_on(storage) as site:
        user, manager = somebody(), site.managers[1]
        devices = {label: Visitor(site) for label in ("phone", "laptop", "tablet")}
        for label, visitor in devices.items():
            await visitor.login(user, label)
            site.clock.now += 1
        stranger = Visitor(site)
        await stranger.login(somebody(), "phone")

        listed = await manager.sessions(user)
        ended = await manager.end(listed[0])
        left = [info.label for info in await manager.sessions(user)]
        others = await manager.end_all(user, except_id=await devices["phone"].id())

        assert ["tablet", "laptop", "phone"] == [info.label for info in listed]
        assert (True, ["laptop", "phone"], 1) == (ended, left, others)
        read = {label: await visitor.read() for label, visitor in devices.items()}
        assert {"phone": {"user": user}, "laptop": {}, "tablet": {}} == read
        assert {} != await stranger.read()
        assert ["phone"] == [info.label for info in await manager.sessions(user)]


# Time


@pytest.mark.parametrize(("seconds", "lives"), [(-HOUR, False), (HOUR - 1, True), (HOUR, False), (HOUR + 1, False)])
@scenario
async def test_session_ends_in_the_second_that_is_sealed(storage: Storage, *, seconds: int, lives: bool) -> None:
    """Case F76. By its lifetime, by its idle timeout, and on a clock that was set back, whatever the browser sends."""
    hour = timedelta(hours=1)
    for options in ({"lifetime": hour}, {"idle_timeout": hour}):
        async with site_on(storage, **options) as site:
            visitor = Visitor(site)
            await visitor.put(a=1)

            site.clock.now += seconds

            assert ({"a": 1} if lives else {}) == await visitor.copy().read()


@scenario
async def test_store_ends_a_session_by_itself(storage: Storage) -> None:
    """Case F76. By its own clock, even where an instance's has stopped."""
    async with site_on(storage, lifetime=timedelta(hours=1)) as site:
        await Visitor(site).put(a=1)  # connects
        ends = int(time.time() + 1.3)  # in 0.3 s or more
        site.clock.now = ends - HOUR
        visitor = Visitor(site)
        await visitor.put(a=1)
        alive, then, deadline = await visitor.copy().read(), time.time(), time.monotonic() + 10

        while await visitor.copy().read():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

        assert {"a": 1} == alive or then > ends - 0.01
        assert time.time() > ends - 0.01


# Cookies and records


@scenario
async def test_store_is_asked_once_to_read_and_once_to_write(storage: Storage) -> None:
    """And not at all without a cookie of ours."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "nothing": visitor.read,
            "create": lambda: visitor.put(a=1),
            "read": visitor.read,
            "write": lambda: visitor.put(a=2),
            "end": visitor.logout,
        }
        seen = {}
        for name, act in acts.items():
            await act()
            seen[name] = site.calls()

        expected = {"nothing": [], "create": ["create"], "read": ["load"], "write": ["load", "replace"]}
        # Where a second passes in between, the record has expired before it is deleted, and is looked for.
        assert {**expected, "end": ["load", "replace", "delete"]} == {name: calls[:3] for name, calls in seen.items()}


@pytest.mark.parametrize("cookie", [b"", b"x", b"a" * 10_000, b"../x", b"\0", b"0" * 32], ids=range(6))
@scenario
async def test_id_that_we_did_not_seal_is_not_looked_up(storage: Storage, cookie: bytes) -> None:
    """Cases F68 and F69. What is stored then is stored under another."""
    async with site_on(storage) as site:
        visitor = Visitor(site, {NAME: cookie})

        await visitor.put(a=1)

        assert ["create"] == site.calls()
        assert {"a": 1} == await visitor.read()
        assert cookie != visitor.jar[NAME]


@scenario
async def test_id_that_has_ended_is_not_used_again(storage: Storage) -> None:
    """Case F68. Though we sealed it once."""
    async with site_on(storage) as site:
        visitor = Visitor(site)
        await visitor.put(a=1)
        again = visitor.copy()
        before = await visitor.key()
        await visitor.logout()

        await again.put(a=2)

        assert before != await again.key()
        assert await site.stores[0].load(before) is None


@pytest.mark.parametrize("damage", ["swapped", "flipped", "cut", "pickled", "empty", "unknown key"])
@scenario
async def test_record_that_was_tampered_with_opens_nothing(storage: Storage, damage: str) -> None:
    """Case F78. It is no session of another user, and no error either."""
    async with site_on(storage) as site:
        visitor, other = Visitor(site), Visitor(site)
        await visitor.put(user="alice")
        await other.put(user="bob")
        stranger = Visitor(Site([each.store for each in site.stores], KeyRing(OLD), site.clock))
        await stranger.put(user="mallory")
        store, key = site.stores[0], await visitor.key()
        records = [await store.load(await each.key()) for each in (visitor, other, stranger)]
        own, bobs, mallorys = [record.value for record in records if record is not None]
        value = {
            "swapped": bobs,
            "flipped": own[:-1] + bytes([own[-1] ^ 1]),
            "cut": own[:-1],
            "pickled": pickle.dumps({"user": "mallory"}),
            "empty": b"",
            "unknown key": mallorys,
        }[damage]
        record = records[0]
        assert record is not None
        assert await store.replace(key, record._replace(value=value, version=record.version + 1), record.version)

        assert {} == await visitor.read()
        assert {"user": "bob"} == await other.read()


@scenario
async def test_stolen_store_gives_neither_ids_nor_data(storage: Storage) -> None:
    """Case F79. And what it has for keys are no cookies."""
    async with site_on(storage) as site:
        visitor, secret = Visitor(site), somebody()
        await visitor.login("a" + secret, "b" + secret)
        await visitor.put(secret="c" + secret)
        id, key = bytes.fromhex(await visitor.id()), await visitor.key()

        stolen = await storage.dump()

        assert any(form in stolen for form in (key, key.hex().encode()))
        for told in (id, id.hex().encode(), base64.urlsafe_b64encode(id)[:20], secret.encode(), visitor.jar[NAME]):
            assert told not in stolen
        for value in (key, key.hex().encode(), base64.urlsafe_b64encode(key).rstrip(b"=")):
            assert {} == await Visitor(site, {NAME: value}).read()


@scenario
async def test_rotation_covers_records(storage: Storage) -> None:
    """One that is written is sealed anew, at every instance, and the old key may go. Ids stay, and so do lifetimes."""
    async with site_on(storage, keys=KeyRing(OLD)) as site:
        visitor = Visitor(site)
        await visitor.put(a=1)
        id = await visitor.id()
        new = Key.generate()

        for ring in (KeyRing(OLD, new), KeyRing(new, OLD)):
            site.use_keys(ring)
            assert {"a": 1} == await visitor.read(1)
        await visitor.put(a=2)
        site.use_keys(KeyRing(new))

        assert {"a": 2} == await visitor.read()
        assert id == await visitor.id(1)


class Cart(Struct):
    """A session's data, by msgspec."""

    user: str = ""
    items: list[str] = []


class Basket(BaseModel):
    """The same, by pydantic."""

    user: str = ""
    items: list[str] = []


@pytest.mark.parametrize("model", [Cart, Basket])
@scenario
async def test_typed_sessions_are_merged_by_field(storage: Storage, model: Any) -> None:
    """Nested changes of one request, an assignment of another, and a transaction of a third."""
    async with site_on(storage, model=model) as site:
        visitor = Visitor(site)

        async def begin(session: Session[Any]) -> None:
            session.data.items.append("tea")

        async def slow(session: Session[Any]) -> None:
            session.data.items.append("milk")
            loaded.set()
            await written.wait()

        async def login(session: Session[Any]) -> None:
            session.data.user = "alice"

        async def again(session: Session[Any]) -> None:
            await session.transact(lambda data: data.items.append("sugar"))

        async def show(session: Session[Any]) -> Any:
            return [session.data.user, session.data.items]

        await visitor.visit(begin)
        loaded, written = asyncio.Event(), asyncio.Event()
        response = asyncio.ensure_future(visitor.copy().visit(slow, 1))
        await loaded.wait()
        await visitor.visit(login)
        written.set()
        await response
        await visitor.visit(again, 1)

        assert ["alice", ["tea", "milk", "sugar"]] == await visitor.visit(show)


@scenario
async def test_session_moves_to_the_store_and_back(storage: Storage) -> None:
    """With overflow: as it outgrows its cookies, as it fits again, and at once back, unseen by handlers."""
    async with site_on(storage, overflow=True) as site:
        visitor = Visitor(site)
        stored = []
        for number, text in enumerate(["", "small", BIG, BIG + "more", "small", "small again", BIG]):
            await visitor.put(number % 2, text=text, n=number)
            site.calls()
            assert {"text": text, "n": number} == await visitor.read(1 - number % 2)
            stored.append(site.calls() == ["load"])

        assert [False, False, True, True, False, False, True] == stored
        await visitor.logout()
        assert {} == visitor.jar == await visitor.read()


@pytest.mark.parametrize("other", ["logout", "change"])
@scenario
async def test_move_to_the_cookie_respects_what_others_did(storage: Storage, other: str) -> None:
    """With overflow. Case F72: a slow request that makes a session small revives none, and loses no change."""
    async with site_on(storage, overflow=True) as site:
        visitor = Visitor(site)
        await visitor.put(text=BIG, user="alice")
        loaded, done = asyncio.Event(), asyncio.Event()

        async def shrink(session: Session[Any]) -> None:
            session.data["text"] = "small"
            loaded.set()
            await done.wait()

        slow = visitor.copy()
        response = asyncio.ensure_future(slow.visit(shrink, 1))
        await loaded.wait()
        await (visitor.logout() if other == "logout" else visitor.put(b=2))
        done.set()
        await response

        expected = {} if other == "logout" else {"text": "small", "user": "alice", "b": 2}
        assert expected == await slow.read()


@needs_a_server
@scenario
async def test_visitors_without_cookies_cost_the_server_nothing(redis: Server) -> None:
    """Case F77. By the server's own count, after ten thousand of them, who look into their sessions."""
    store = store_from_url(redis.url, timeout=PATIENT)
    async with contextlib.aclosing(store):
        site = Site([store])
        await Visitor(site).put(a=1)
        before = _commands(redis)
        site.calls()

        for _ in range(10_000):
            await Visitor(site).read()

        assert [] == site.calls()
        assert before == _commands(redis)


def _commands(server: Server) -> dict[str, int]:
    told = server.ask("INFO", "commandstats")
    return {
        name: stats["calls"] for name, stats in told.items() if not name.startswith(("cmdstat_client", "cmdstat_info"))
    }
