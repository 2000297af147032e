"""How a command gets to Redis: what it looks like, that it goes once, and what becomes of its connection."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis_servers import Network, Server, needs_a_server, running

from cookiesession import StoreUnavailable
from cookiesession.stores.redis import RedisStore
from cookiesession.stores.redis.connections import QuickPool, exchange, packed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POOLS: Final = [pytest.param(QuickPool, id="ours"), pytest.param(ConnectionPool, id="of-the-driver")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is well."""
    server = Server(tmp_path)
    with running(server):
        yield server.start()


class WrittenDown(ConnectionPool):
    """A pool of one connection, which writes down what is done with it, and gives one answer."""

    def __init__(self, answer: BaseException | bytes) -> None:
        super().__init__()
        self.answer = answer
        self.done: list[str] = []

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        return self

    async def release(self, connection: Any) -> None:
        self.done.append("release")

    async def send_packed_command(self, command: bytes) -> None:
        self.done.append("send")

    async def read_response(self) -> bytes:
        self.done.append("read")
        if isinstance(self.answer, bytes):
            return self.answer
        raise self.answer

    async def disconnect(self, *_: object, **__: object) -> None:
        self.done.append("disconnect")


# Commands


@given(st.lists(st.binary() | st.text(st.characters(codec="utf-8")) | st.integers() | st.floats(), max_size=7))
def test_command_looks_as_the_driver_would_write_it(parts: list[bytes | str | float]) -> None:
    """Whatever is in it."""
    assert packed("EVALSHA", *parts) == b"".join(Connection().pack_command("EVALSHA", *parts))


# Connections


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        pytest.param(b"value", ["release"], id="value"),
        pytest.param(NoScriptError("no matching script"), ["release"], id="error-of-the-server"),
        pytest.param(RedisConnectionError("closed"), ["disconnect", "release"], id="error-of-the-connection"),
        pytest.param(RuntimeError("what nobody thought of"), ["disconnect", "release"], id="any-other-error"),
        pytest.param(asyncio.CancelledError(), ["disconnect", "release"], id="cancelled"),
    ],
)
def test_connection_that_may_have_an_answer_left_is_closed(answer: BaseException | bytes, then: list[str]) -> None:
    """Before anybody else has it, and whatever the driver does by itself. Cases E63, G84."""
    pool = WrittenDown(answer)

    outcome = asyncio.run(outcome_of(pool))

    assert outcome is answer
    assert pool.done == ["send", "read", *then]


async def outcome_of(pool: ConnectionPool) -> object:
    """What comes back, or is raised."""
    try:
        return await exchange(pool, "GET", "key")
    except BaseException as error:  # noqa: BLE001 - a cancellation is one of them
        return error


@pytest.mark.servers
@needs_a_server
@pytest.mark.parametrize("pool", POOLS)
def test_connection_is_lent_again_unless_it_was_given_up(server: Server, pool: type[ConnectionPool]) -> None:
    """After an error of the server too. After a cancellation it is a new one, and has no answer waiting. Case G84."""

    async def scenario() -> list[Any]:
        async with Network(server.port) as network, aclosing(pool(port=network.port, protocol=2)) as lent:
            first = await exchange(lent, "CLIENT", "ID")
            with pytest.raises(NoScriptError):
                await exchange(lent, "EVALSHA", "0" * 40, 0)
            second = await exchange(lent, "CLIENT", "ID")
            network.delay = 0.05
            call = asyncio.ensure_future(exchange(lent, "ECHO", "of another"))
            await asyncio.sleep(network.delay / 2)
            call.cancel()
            echoed = await exchange(lent, "ECHO", "mine")
            third = await exchange(lent, "CLIENT", "ID")

            assert call.cancelled()
            assert lent.can_get_connection()
            return [first == second, third > second, echoed]

    assert asyncio.run(scenario()) == [True, True, b"mine"]


@pytest.mark.servers
@needs_a_server
def test_connection_that_the_server_has_closed_is_not_used(server: Server) -> None:
    """It is opened again before anything is sent. Case G80."""

    async def scenario() -> bytes:
        async with aclosing(QuickPool(port=server.port, protocol=2)) as pool:
            await exchange(pool, "PING")
            await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.05)
            answer: bytes = await exchange(pool, "ECHO", "mine")
            return answer

    assert asyncio.run(scenario()) == b"mine"


def test_pool_has_room_again_after_a_connection_that_failed() -> None:
    """Nothing listens on port 1."""

    async def scenario() -> None:
        async with aclosing(QuickPool(port=1, max_connections=1, protocol=2)) as pool:
            for _ in range(2):
                with pytest.raises(RedisConnectionError, match="Connect call failed"):
                    await exchange(pool, "PING")

    asyncio.run(scenario())


@pytest.mark.servers
@needs_a_server
def test_nothing_is_tried_twice_with_a_client_that_would(server: Server) -> None:
    """As the driver makes them. A write that was not answered may have had its effect. Case G90."""

    async def scenario() -> int:
        async with Network(server.port) as network, Redis(port=network.port) as client:
            store, key = RedisStore(client), bytes(32)
            await store.load(key)
            network.bytes_until_reset, before = 0, network.requests
            with pytest.raises(StoreUnavailable, match="Connection reset by peer"):
                await store.load(key)
            return network.requests - before

    assert asyncio.run(scenario()) == 1
