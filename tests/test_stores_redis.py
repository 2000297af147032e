"""The store in Redis: the contract on every kind of server, what lies there, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis as synchronous
import trustme
from harness import START, Clock
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis, RedisCluster
from redis.cluster import LoadBalancingStrategy
from redis_servers import BINARIES, SLOTS, Network, Server, cluster, needs_a_server, running, sentinels, until

from cookiesession import ConfigurationError, StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.redis import RedisStore
from cookiesession.stores.redis.layout import GRACE, entry_of, may_be_in_flight, pack, score_of, start_of, unpack
from cookiesession.testing.contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from cookiesession.stores import Store

pytestmark = [pytest.mark.servers, needs_a_server]

FOREVER: Final = 2**32 - 1
PREFIX: Final = "cookiesession:"
KINDS: Final = [
    pytest.param(name, marks=pytest.mark.skipif(path is None, reason=f"no package with {name} for this Python"))
    for name, path in BINARIES.items()
]


def new_key() -> bytes:
    """Nobody else's."""
    return os.urandom(KEY_LENGTH)


@contextlib.asynccontextmanager
async def store_at(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    """With a deadline that a busy machine keeps, and closed in the end."""
    async with contextlib.aclosing(RedisStore(url, **{"timeout": timedelta(seconds=10), **options})) as store:
        yield store


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of each kind."""
    server = Server(tmp_path_factory.mktemp("server"), binary=BINARIES[request.param])
    with running(server):
        yield server.start()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """A cluster."""
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def by_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of servers behind Sentinels."""
    with sentinels(tmp_path_factory.mktemp("sentinel")) as (_, watching):
        yield f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in watching)}/sessions"


class RedisContract(StoreContract):
    """The contract, at a URL."""

    url: str

    async def open_store(self) -> Store:
        return RedisStore(self.url, timeout=timedelta(seconds=10))


class TestRedisStore(RedisContract):
    """On one server."""

    @pytest.fixture(autouse=True)
    def _url(self, server: Server) -> None:
        self.url = server.url


class TestRedisStoreInCluster(RedisContract):
    """In a cluster, one node of which the URL names wrongly."""

    @pytest.fixture(autouse=True)
    def _url(self, nodes: list[Server]) -> None:
        self.url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[1].port}"


class TestRedisStoreBySentinel(RedisContract):
    """With a primary that Sentinels know."""

    @pytest.fixture(autouse=True)
    def _url(self, by_sentinel: str) -> None:
        self.url = by_sentinel


# What lies there


def test_record_lies_under_the_hash_and_ends_with_it(server: Server) -> None:
    """Under the prefix, with a time to live, and nothing else beside it."""

    async def scenario() -> None:
        key, subject, ends = new_key(), new_key(), int(time.time()) + 600
        async with store_at(server.url, prefix="shop:") as store:
            await store.create(key, Record(b"sealed", 1, ends, subject))

        with server.admin as admin:
            names = set(admin.scan_iter("shop:*"))
            lives = admin.pttl(f"shop:{key.hex()}"), admin.pttl(f"shop:subject:{subject.hex()}")
        assert names == {b"shop:" + key.hex().encode(), b"shop:subject:" + subject.hex().encode()}
        assert 590_000 < lives[0] <= 600_000
        assert 590_000 + GRACE * 1000 < lives[1] <= 600_000 + GRACE * 1000

    asyncio.run(scenario())


def test_server_ends_a_record_in_its_second(server: Server) -> None:
    """By its own clock, and removes it. Case F76."""

    async def scenario() -> None:
        key, ends = new_key(), int(time.time()) + 2
        async with store_at(server.url) as store:
            await store.create(key, Record(b"sealed", 1, ends))
            alive, now = await store.load(key), time.time()
            async with asyncio.timeout(20):
                asked = time.time()
                while await store.load(key) is not None:
                    assert asked < ends + 1
                    await asyncio.sleep(0.01)
                    asked = time.time()

        assert alive is not None or now >= ends
        assert time.time() >= ends
        assert server.ask("EXISTS", PREFIX + key.hex()) == 0

    asyncio.run(scenario())


GARBAGE: Final = [
    pytest.param(("SET", b""), id="empty"),
    pytest.param(("SET", b"{}"), id="json"),
    pytest.param(("SET", pack(Record(b"", 1, FOREVER), 0)[:-1]), id="too-short"),
    pytest.param(("SET", b"csr\x02" + pack(Record(b"sealed", 1, FOREVER), 0)[4:]), id="of-another-layout"),
    pytest.param(("SET", b"csr\x01" + bytes(8) + pack(Record(b"sealed", 1, FOREVER), 0)[12:]), id="version-0"),
    pytest.param(("SET", pack(Record(b"", 1, FOREVER), 0)[:-1] + b"\x1f" + bytes(40)), id="half-a-subject"),
    pytest.param(("SET", pack(Record(b"", 1, FOREVER, bytes(32)), 0)[:-1]), id="subject-too-short"),
    pytest.param(("RPUSH", b"sealed"), id="list"),
    pytest.param(("HSET", b"value", b"sealed"), id="hash"),
    pytest.param(("ZADD", 1, b"sealed"), id="sorted-set"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_record_is_not_there_and_left_alone(server: Server, garbage: tuple[Any, ...]) -> None:
    """Neither read nor overwritten, by any verb, nor removed by accident: it may be somebody's. Cases F78, G82."""

    async def scenario() -> None:
        key, (command, *words) = new_key(), garbage
        name = PREFIX + key.hex()
        server.ask(command, name, *words)
        before = server.ask("DUMP", name)
        async with store_at(server.url) as store:
            loaded = await store.load(key)
            created = await store.create(key, Record(b"sealed", 1, FOREVER, new_key()))
            replaced = await store.replace(key, Record(b"sealed", 3, FOREVER), 2)

        assert (loaded, created, replaced) == (None, False, False)
        assert server.ask("DUMP", name) == before

    asyncio.run(scenario())


@pytest.mark.parametrize("garbage", [GARBAGE[0], GARBAGE[1], GARBAGE[3], GARBAGE[7]])
def test_what_is_no_record_is_not_removed(server: Server, garbage: tuple[Any, ...]) -> None:
    """Whatever is told from a record by how it starts."""

    async def scenario() -> None:
        key, (command, *words) = new_key(), garbage
        server.ask(command, PREFIX + key.hex(), *words)
        async with store_at(server.url) as store:
            deleted = await store.delete(key)

        assert deleted is False
        assert server.ask("EXISTS", PREFIX + key.hex()) == 1

    asyncio.run(scenario())


def test_what_is_no_index_is_an_error_and_nothing_is_written(server: Server) -> None:
    """Rather than an answer that may not be complete, or a session that is not listed."""

    async def scenario() -> None:
        key, other, subject = new_key(), new_key(), new_key()
        server.ask("SET", f"{PREFIX}subject:{subject.hex()}", "x")
        async with store_at(server.url) as store:
            await store.create(other, Record(b"sealed", 1, FOREVER))
            with pytest.raises(StoreUnavailable, match="in the place of a subject's index in Redis is none"):
                await store.find(subject)
            with pytest.raises(StoreUnavailable, match="in the place of a subject's index in Redis is none"):
                await store.create(key, Record(b"sealed", 1, FOREVER, subject))
            with pytest.raises(StoreUnavailable, match="in the place of a subject's index in Redis is none"):
                await store.replace(other, Record(b"sealed", 2, FOREVER, subject), 1)

            assert await store.load(key) is None
            assert await store.load(other) == Record(b"sealed", 1, FOREVER)

    asyncio.run(scenario())


def test_what_is_no_entry_of_an_index_is_dropped(server: Server) -> None:
    """And does not hide the others."""

    async def scenario() -> None:
        key, subject = new_key(), new_key()
        index = f"{PREFIX}subject:{subject.hex()}"
        async with store_at(server.url) as store:
            await store.create(key, Record(b"sealed", 1, FOREVER, subject))
            server.ask("ZADD", index, 1, b"x", -5, b"", 2**60, new_key(), "inf", bytes(32), "-inf", b"y" * 99)

            found = await store.find(subject)

        assert found == {key: Record(b"sealed", 1, FOREVER, subject)}
        assert server.ask("ZRANGE", index, 0, -1) == [key]

    asyncio.run(scenario())


def test_ten_megabytes_are_a_value(server: Server) -> None:
    """Case G80."""

    async def scenario() -> None:
        key, record = new_key(), Record(os.urandom(10_000_000), 1, FOREVER)
        async with store_at(server.url) as store:
            created = await store.create(key, record)

            assert created is True
            assert await store.load(key) == record
            assert await store.delete(key) is True

    asyncio.run(scenario())


# The index of a subject


def test_dead_entry_is_dropped_once_nobody_can_be_writing_its_record(server: Server) -> None:
    """Before that it may be of a session that is being created."""

    async def scenario() -> None:
        clock, key, subject = Clock(), new_key(), new_key()
        index = f"{PREFIX}subject:{subject.hex()}"
        async with store_at(server.url, clock=clock) as store:
            await store.create(key, Record(b"sealed", 1, FOREVER, subject))
            server.ask("DEL", PREFIX + key.hex())
            entries = []
            for age in (0, GRACE - 1, GRACE):
                clock.now = START + age
                entries.append((await store.find(subject), server.ask("ZCARD", index)))

        assert entries == [({}, 1), ({}, 1), ({}, 0)]

    asyncio.run(scenario())


def test_session_that_is_being_created_is_found_after_that(nodes: list[Server]) -> None:
    """Between the index and the record somebody else looks, and drops nothing."""

    async def scenario() -> None:
        key, subject, record = new_key(), new_key(), Record(b"sealed", 1, FOREVER)
        async with store_at(f"redis+cluster://127.0.0.1:{nodes[0].port}") as store:
            client: RedisCluster = store._client
            entry = {key: score_of(FOREVER, int(time.time()))}
            await client.zadd(f"{PREFIX}subject:{subject.hex()}", entry)  # as the first half of create()
            before = await store.find(subject)
            await client.set(PREFIX + key.hex(), pack(record._replace(subject=subject), int(time.time())))

            assert before == {}
            assert await store.find(subject) == {key: record._replace(subject=subject)}

    asyncio.run(scenario())


def test_entry_that_was_written_anew_is_not_dropped(server: Server) -> None:
    """By somebody who saw the old one."""

    async def scenario() -> None:
        clock, key, subject = Clock(), new_key(), new_key()
        record = Record(b"sealed", 1, FOREVER, subject)
        async with store_at(server.url, clock=clock) as store:
            await store.create(key, record)
            seen = {key: score_of(FOREVER, START)}
            clock.now += 1
            await store.replace(key, record._replace(version=2), 1)
            await store._drop(subject, seen)

            assert list(await store.find(subject)) == [key]

    asyncio.run(scenario())


def test_entry_lives_as_long_as_its_longest_record(server: Server) -> None:
    """A late writer who is refused does not make the others forget a session that lives. In a cluster, that is."""

    async def scenario() -> None:
        now = int(time.time())
        clock, key, subject = Clock(now), new_key(), new_key()
        record = Record(b"sealed", 1, now + 10_000, subject)
        async with store_at(server.url, clock=clock) as store:
            store._apart = True  # as in a cluster
            await store.create(key, record)
            refused = await store.replace(key, record._replace(version=9, expires_at=now + 60), 8)
            clock.now += 5_000  # for the index, not for the server
            await store.create(new_key(), Record(b"sealed", 1, now + 10_000, subject))
            found = await store.find(subject)

        assert refused is False
        assert found[key] == record

    asyncio.run(scenario())


def test_index_does_not_grow_with_sessions_that_are_over(server: Server) -> None:
    """Neither with those that were deleted nor with those that have expired."""

    async def scenario() -> None:
        clock, subject = Clock(int(time.time())), new_key()
        index = f"{PREFIX}subject:{subject.hex()}"
        async with store_at(server.url, clock=clock) as store:
            for _ in range(10):
                key = new_key()
                await store.create(key, Record(b"sealed", 1, FOREVER, subject))
                await store.delete(key)
            deleted = server.ask("ZCARD", index)
            for _ in range(10):
                await store.create(new_key(), Record(b"sealed", 1, int(clock.now) + 60, subject))
            alive = server.ask("ZCARD", index)
            clock.now += 61 + GRACE
            await store.create(new_key(), Record(b"sealed", 1, FOREVER, subject))

        assert (deleted, alive, server.ask("ZCARD", index)) == (0, 10, 1)

    asyncio.run(scenario())


def test_many_sessions_of_a_subject_are_all_found(server: Server, nodes: list[Server]) -> None:
    """More than are asked for at once."""

    async def scenario(url: str) -> None:
        subject, keys = new_key(), {new_key() for _ in range(250)}
        async with store_at(url) as store:
            await asyncio.gather(*(store.create(key, Record(key, 1, FOREVER, subject)) for key in keys))

            found = await store.find(subject)

        assert found == {key: Record(key, 1, FOREVER, subject) for key in keys}

    asyncio.run(scenario(server.url))
    asyncio.run(scenario(f"redis+cluster://127.0.0.1:{nodes[0].port}"))


# What it costs


def test_each_verb_is_one_round_trip(server: Server) -> None:
    """Listing takes a second one for each hundred records, and so does deleting what is listed."""

    async def scenario() -> dict[str, int]:
        key, other, subject = new_key(), new_key(), new_key()
        record, listed = Record(b"sealed", 1, FOREVER), Record(b"sealed", 1, FOREVER, subject)
        costs: dict[str, int] = {}
        async with Network(server.port) as network, store_at(network.url) as store:
            for _ in range(2):  # the first time is for scripts and connections
                verbs: dict[str, Callable[[], Awaitable[object]]] = {
                    "load": lambda: store.load(key),
                    "create": lambda: store.create(key, record),
                    "create, of a subject": lambda: store.create(other, listed),
                    "replace": lambda: store.replace(key, record, 1),
                    "replace, of a subject": lambda: store.replace(other, listed, 1),
                    "find": lambda: store.find(subject),
                    "delete": lambda: store.delete(key),
                    "delete, of a subject": lambda: store.delete(other),
                }
                for name, verb in verbs.items():
                    before = network.requests
                    await verb()
                    costs[name] = network.requests - before
        return costs

    assert asyncio.run(scenario()) == {
        "load": 1,
        "create": 1,
        "create, of a subject": 1,
        "replace": 1,
        "replace, of a subject": 1,
        "find": 2,
        "delete": 1,
        "delete, of a subject": 2,
    }


def test_server_that_forgot_the_scripts_is_told_again(server: Server) -> None:
    """Once."""

    async def scenario() -> list[int]:
        costs = []
        async with Network(server.port) as network, store_at(network.url) as store:
            await store.create(new_key(), Record(b"sealed", 1, FOREVER))
            server.ask("SCRIPT", "FLUSH")
            for _ in range(2):
                before = network.requests
                assert await store.create(new_key(), Record(b"sealed", 1, FOREVER)) is True
                costs.append(network.requests - before)
        return costs

    assert asyncio.run(scenario()) == [2, 1]


# Clients and URLs


def test_client_of_the_caller_stays_open(server: Server) -> None:
    """Whoever opens it closes it."""

    async def scenario() -> None:
        key = new_key()
        async with Redis(port=server.port) as client:
            store = RedisStore(client, timeout=timedelta(seconds=10))
            await store.create(key, Record(b"sealed", 1, FOREVER))
            await store.aclose()

            assert await client.exists(PREFIX + key.hex()) == 1
            assert await store.load(key) == Record(b"sealed", 1, FOREVER)

    asyncio.run(scenario())


def test_cluster_client_of_the_caller_stays_open(nodes: list[Server]) -> None:
    """And is used as one. It may be new, which the driver has trouble with."""

    async def scenario() -> None:
        keys, subject = [new_key() for _ in range(30)], new_key()
        async with contextlib.aclosing(RedisCluster(port=nodes[0].port, host="127.0.0.1")) as client:
            store = RedisStore(client, timeout=timedelta(seconds=10))
            await asyncio.gather(*(store.create(key, Record(key, 1, FOREVER, subject)) for key in keys))
            await store.aclose()

            assert set(await store.find(subject)) == set(keys)

    asyncio.run(scenario())


def test_url_may_name_a_database(server: Server) -> None:
    """Each is a world of its own."""

    async def scenario() -> None:
        key = new_key()
        async with store_at(f"{server.url}/1") as one, store_at(f"{server.url}/2") as two:
            await one.create(key, Record(b"sealed", 1, FOREVER))

            assert await two.load(key) is None
            assert await one.load(key) is not None

    asyncio.run(scenario())


def test_url_may_name_a_socket(tmp_path: Path) -> None:
    """Of the file system."""

    async def scenario(path: Path) -> bool:
        async with store_at(f"unix://{path}") as store:
            return await store.create(new_key(), Record(b"sealed", 1, FOREVER))

    server = Server(tmp_path, "--unixsocket", str(tmp_path / "redis.sock"))
    with running(server):
        server.start()

        assert asyncio.run(scenario(tmp_path / "redis.sock")) is True


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_url_may_ask_for_tls(server: Server, tmp_path: Path, scheme: str) -> None:
    """And a server whose certificate is not trusted is none, nor is one with another's."""

    async def scenario() -> None:
        authority, record = trustme.CA(), Record(b"sealed", 1, FOREVER)
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        async with Network(server.port, tls) as network:
            url = network.url.replace("rediss", scheme)
            trusting = f"{url}?ssl_ca_certs={tmp_path}/authority.pem"
            async with store_at(trusting) as store:
                created = await store.create(new_key(), record)
            for wrong in (url, trusting.replace("127.0.0.1", "localhost")):
                async with store_at(wrong) as store:
                    with pytest.raises(StoreUnavailable, match=r"cannot be reached|closed the connection"):
                        await store.create(new_key(), record)

        assert created is True

    asyncio.run(scenario())


def test_server_of_a_cluster_that_has_all_keys_needs_no_other_url(tmp_path: Path) -> None:
    """Records and indexes are written one after the other then, as they are in different slots. Case G82."""

    async def scenario(server: Server) -> None:
        keys, subject = {new_key(), new_key()}, new_key()
        async with store_at(server.url) as writer, store_at(server.url) as reader:
            for key in keys:
                await writer.create(key, Record(b"sealed", 1, FOREVER, subject))

            assert set(await reader.find(subject)) == keys

    server = Server(tmp_path, "--cluster-enabled", "yes")
    with running(server):
        server.start().ask("CLUSTER", "ADDSLOTS", *range(SLOTS))
        until(lambda: server.ask("CLUSTER INFO")["cluster_state"] == "ok", "the cluster is whole")
        asyncio.run(scenario(server))


def test_server_of_a_cluster_that_has_not_all_keys_says_what_to_do(nodes: list[Server]) -> None:
    """MOVED is no answer. Case G82."""

    async def scenario() -> None:
        async with store_at(nodes[0].url) as store:
            calls = [store.create(new_key(), Record(b"sealed", 1, FOREVER, new_key())) for _ in range(50)]
            loads = [store.load(new_key()) for _ in range(50)]
            outcomes = await asyncio.gather(*calls, *loads, return_exceptions=True)

        said = {str(outcome) for outcome in outcomes if isinstance(outcome, StoreUnavailable)}
        assert said == {"the Redis server is one of a cluster: its URL is redis+cluster://"}
        assert {outcome for outcome in outcomes if not isinstance(outcome, StoreUnavailable)} <= {True, None}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "addresses", "expected"),
    [
        ("redis://", [("localhost", 6379)], {}),
        ("valkey://h", [("h", 6379)], {}),
        ("redis://:p%40ss@h:1/3", [("h", 1)], {"password": "p@ss", "db": 3}),
        ("redis://[::1]:1", [("::1", 1)], {}),
        ("redis://u:p@h?max_connections=7", [("h", 6379)], {"username": "u", "password": "p"}),
        ("redis+sentinel://a,b:1/main", [("a", 26379), ("b", 1)], {}),
        ("valkey+sentinel://u:p@[::1]:1,b/main/2", [("::1", 1), ("b", 26379)], {"username": "u", "db": 2}),
        ("redis+cluster://u:p@a,[::2]:1", [("a", 6379), ("::2", 1)], {"username": "u", "password": "p"}),
        ("rediss+cluster://a", [("a", 6379)], {}),
    ],
)
def test_url_says_where_servers_are(url: str, addresses: list[tuple[str, int]], expected: dict[str, Any]) -> None:
    """Several hosts have commas between them."""
    store = RedisStore(url)

    assert store._made
    assert where(store) == addresses
    assert options_of(store._client).items() >= expected.items()
    assert store._made.max_connections == (7 if "=7" in url else 50)
    assert "p@ss" not in repr(store)


def test_sentinels_may_have_a_password_of_their_own(tmp_path: Path) -> None:
    """It is not the servers'."""
    store = RedisStore("rediss+sentinel://u:p@a/main?sentinel_username=w&sentinel_password=q")

    assert store._made
    asked = options_of(store._made.to_close[1])
    assert (asked["username"], asked["password"]) == ("w", "q")
    assert (options_of(store._client)["username"], options_of(store._client)["password"]) == ("u", "p")


@pytest.mark.parametrize(
    ("url", "waits"),
    [
        pytest.param("redis://a", [(None, 3)], id="one-server"),
        pytest.param("redis://a?socket_timeout=9&socket_connect_timeout=9", [(None, 3)], id="told-otherwise"),
        pytest.param("redis+sentinel://b,c/main", [(None, 1), (1, 1), (1, 1)], id="sentinel"),
        pytest.param("redis+cluster://a", [(1, 1)], id="cluster"),
    ],
)
def test_driver_waits_no_longer_than_the_store(url: str, waits: list[tuple[float | None, float]]) -> None:
    """A third where it may ask another server after that; for commands of one server, the store waits itself."""
    store = RedisStore(url, timeout=timedelta(seconds=3))

    assert store._made
    made = [options_of(client) for client in store._made.to_close]
    assert [(options["socket_timeout"], options["socket_connect_timeout"]) for options in made] == waits


def options_of(client: Any) -> dict[str, Any]:
    """What its connections are made with."""
    return dict(
        client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs
    )


def where(store: RedisStore) -> list[tuple[str, int]]:
    """The servers of which it knows."""
    assert store._made
    if isinstance(store._client, RedisCluster):
        nodes = store._client.nodes_manager.startup_nodes.values()
        return [(node.host, int(node.port)) for node in nodes]
    clients = store._made.to_close[1:] or store._made.to_close
    return [(options.get("host", "localhost"), options.get("port", 6379)) for options in map(options_of, clients)]


@pytest.mark.parametrize(
    "url",
    [
        *("", "h:6379", "http://h", "redis:/h", "rediss+unix://h", "redis+tls://h", "redis+sentinel://h"),
        *("redis+sentinel:///main", "redis+cluster://", "redis+cluster://h/1", "redis://h:port", "redis://a,b"),
        *("redis://u:s3cret@h?no_such_option=1", "redis://u:s3cret@h?socket_timeout=soon", "redis://u:s3cret@h:s3cret"),
        *("redis+cluster://u:s3cret@h?no_such_option=1", "redis+sentinel://u:s3cret@h/main?no_such_option=1"),
        *("redis+cluster://h,", "redis://h?max_connections=0", "redis+cluster://h?max_connections=-1"),
    ],
)
def test_url_that_cannot_work_is_a_configuration_error(
    url: str, everything_said: Callable[[BaseException], str]
) -> None:
    """Which shows how one looks, and no password."""
    with pytest.raises(ConfigurationError, match=r"this is no URL of Redis; one is redis://host") as caught:
        RedisStore(url)

    assert "s3cret" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda: RedisStore(object()), "takes a client of redis.asyncio, or a URL", id="object"),  # type: ignore[arg-type]
        pytest.param(lambda: RedisStore(synchronous.Redis()), "takes a client of redis.asyncio", id="synchronous"),  # type: ignore[arg-type]
        pytest.param(lambda: RedisStore(Redis(decode_responses=True)), "decode_responses=False", id="text"),
        pytest.param(lambda: RedisStore("redis://h?decode_responses=yes"), "decode_responses=False", id="text-by-url"),
        pytest.param(
            lambda: RedisStore(RedisCluster("h", load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)),
            "make the client without them",
            id="replicas",
        ),
        pytest.param(lambda: RedisStore(Redis(), timeout=timedelta(0)), "timeout is a timedelta above zero", id="zero"),
        pytest.param(lambda: RedisStore(Redis(), timeout=1), "timeout is a timedelta above", id="seconds"),  # type: ignore[arg-type]
        pytest.param(lambda: RedisStore(Redis(), prefix=b"x"), "prefix is a str", id="prefix"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_a_configuration_error(make: Callable[[], RedisStore], problem: str) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match=problem):
        make()


def test_check_is_silent_about_servers_that_evict_nothing(
    server: Server, nodes: list[Server], caplog: pytest.LogCaptureFixture
) -> None:
    """One, or many."""

    async def scenario(url: str) -> None:
        async with store_at(url) as store:
            await store.check()

    asyncio.run(scenario(server.url))
    asyncio.run(scenario(f"redis+cluster://127.0.0.1:{nodes[0].port}"))

    assert caplog.text == ""


def test_check_asks_every_server_of_a_cluster(nodes: list[Server], caplog: pytest.LogCaptureFixture) -> None:
    """One that evicts is enough. Case G85."""

    async def scenario() -> None:
        async with store_at(f"redis+cluster://127.0.0.1:{nodes[0].port}") as store:
            await store.check()

    nodes[2].ask("CONFIG", "SET", "maxmemory", 10**9, "maxmemory-policy", "volatile-ttl")
    try:
        asyncio.run(scenario())
    finally:
        nodes[2].ask("CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")

    assert "its maxmemory-policy is volatile-ttl" in caplog.text


def test_check_takes_a_server_that_may_not_be_asked_for_a_good_one(server: Server) -> None:
    """Managed ones give no right to INFO."""

    async def scenario() -> None:
        async with store_at(server.url.replace("://", "://reader:x@")) as store:
            await store.check()

    server.ask("ACL", "SETUSER", "reader", "on", ">x", "~*", "+mget")
    asyncio.run(scenario())


def test_rights_that_are_documented_are_enough(server: Server, nodes: list[Server]) -> None:
    """For every verb, on a server that does not know the scripts yet, and in a cluster. SECURITY.md has them."""
    text = " ".join((Path(__file__).parent.parent / "SECURITY.md").read_text("utf-8").split())
    found = re.search("The store's user needs `([A-Z ]+)` on `(.+?)`, and `INFO` .* in a cluster also (.+?)\\.", text)
    assert found is not None
    alone = [*found[1].split(), "INFO"]
    in_a_cluster = [*alone, *(name.replace(" ", "|") for name in re.findall("`(.+?)`", found[3]))]

    async def scenario(url: str) -> None:
        key, subject = new_key(), new_key()
        first, second = (Record(b"%d" % version, version, int(time.time()) + 600, subject) for version in (1, 2))
        async with store_at(url.replace("://", "://worker:x@")) as store:
            await store.check()
            assert await store.create(key, first)
            assert await store.replace(key, second, 1)
            assert second == await store.load(key)
            assert {key: second} == await store.find(subject)
            assert await store.delete(key)

    for each, rights in ((server, alone), *((node, in_a_cluster) for node in nodes)):
        each.ask("ACL", "SETUSER", "worker", "reset", "on", ">x", f"~{found[2]}", *(f"+{name}" for name in rights))
        each.ask("SCRIPT", "FLUSH")
    asyncio.run(scenario(server.url))
    asyncio.run(scenario(f"redis+cluster://127.0.0.1:{nodes[0].port}"))


# The layout


@given(
    st.binary(),
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**33),
    st.none() | st.binary(min_size=32, max_size=32),
    st.integers(0, 2**33),
)
def test_layout_comes_back(value: bytes, version: int, expires_at: int, subject: bytes | None, now: int) -> None:
    """Every field, and the version from how it starts."""
    record = Record(value, version, expires_at, subject)

    text = pack(record, now)

    assert unpack(text) == record
    assert text.startswith(start_of(version))
    assert not text.startswith(start_of(version - 1))
    assert entry_of(text) == (None if subject is None else (subject, score_of(expires_at, now)))


@given(st.binary() | st.binary().map(lambda tail: b"csr\x01" + tail))
def test_any_bytes_are_a_record_or_none(text: bytes) -> None:
    """And what is one is what would have been written."""
    record = unpack(text)

    assert record is None or pack(record, int.from_bytes(text[20:24], "big")) == text


@given(st.integers(0, 2**33 - 1), st.integers(0, 2**33), st.integers(0, 2**33))
def test_score_is_a_double_that_tells_expiry_and_age(expires_at: int, written: int, age: int) -> None:
    """Exactly, and by expiry first."""
    score = score_of(expires_at, written)

    assert int(float(score)) == score
    assert score_of(expires_at + 1, 0) > score or expires_at == 2**33 - 1
    assert may_be_in_flight(float(score), written)
    assert may_be_in_flight(float(score), written + age) == (not GRACE <= age % 2**20 < 2**20 - GRACE)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(Record(b"", 0, FOREVER), id="version"),
        pytest.param(Record(b"", 1, FOREVER, b"42"), id="subject"),
        pytest.param(Record(b"", 1, FOREVER, b""), id="empty-subject"),
    ],
)
def test_record_that_could_not_be_read_is_not_written(record: Record) -> None:
    """It breaks the protocol: the caller's mistake."""
    with pytest.raises(ValueError, match="a record's version is at least 1, and its subject of 32 bytes or None"):
        pack(record, 0)
