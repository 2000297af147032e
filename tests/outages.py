"""Stores on real servers that a test may pause, kill and start again, with what they hold or without."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import httpx

from cookiesession import Key, KeyRing
from cookiesession.stores.redis.clients import MAX_CONNECTIONS
from cookiesession.stores.sql.engine import POOL_SIZE
from cookiesession.stores.url import store_from_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta

    from postgres_server import PostgresServer
    from redis_servers import Server

    from cookiesession.stores import Store

RING: Final = KeyRing(Key.generate())
PATIENCE: Final = 20  # seconds that anything may take on a busy machine


class Outage(ABC):
    """A server, and what may happen to it."""

    port: int
    pool: int
    """Connections that one process opens at most."""

    @abstractmethod
    def url(self, port: int | None = None) -> str:
        """Where it is, or where something in front of it is."""

    @abstractmethod
    def pause(self) -> None:
        """SIGSTOP."""

    @abstractmethod
    def kill(self) -> None:
        """It ends, and so do all connections."""

    @abstractmethod
    def heal(self) -> None:
        """It goes on, or starts again with what it had. Nothing where it is well."""

    @abstractmethod
    async def empty(self) -> None:
        """It loses all that it holds."""

    @abstractmethod
    async def connections(self) -> int:
        """How many clients are connected, besides the one who asks."""

    @contextlib.asynccontextmanager
    async def store(self, deadline: timedelta, port: int | None = None) -> AsyncIterator[Store]:
        """A store there with a deadline for each call, closed in the end."""
        async with contextlib.aclosing(store_from_url(self.url(port), timeout=deadline)) as store:
            yield store


class RedisOutage(Outage):
    """Of a Redis that has written what it has acknowledged."""

    pool = MAX_CONNECTIONS
    OPTIONS: Final = ("--appendonly", "yes", "--appendfsync", "always")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = server.port

    def url(self, port: int | None = None) -> str:
        return f"redis://127.0.0.1:{port or self.port}"

    def pause(self) -> None:
        self.server.pause()

    def kill(self) -> None:
        self.server.kill()

    def heal(self) -> None:
        self.server.resume()
        if not self.server.well:
            self.server.start()

    async def empty(self) -> None:
        self.kill()
        shutil.rmtree(self.server.folder / "appendonlydir")
        self.heal()
        await asyncio.sleep(0.01)  # clients learn of it

    async def connections(self) -> int:
        with self.server.admin as admin:
            return len(admin.client_list()) - 1


class PostgresOutage(Outage):
    """Of a PostgreSQL."""

    pool = POOL_SIZE["postgresql"]
    CLIENTS: Final = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.port = server.port

    def url(self, port: int | None = None) -> str:
        return self.server.url(port=port)

    def pause(self) -> None:
        self.server.freeze()

    def kill(self) -> None:
        self.server.stop()

    def heal(self) -> None:
        if self.server.process is None:
            self.server.start()
        else:
            self.server.thaw()

    async def empty(self) -> None:
        self.kill()
        self.heal()
        await asyncio.sleep(0.01)  # clients learn of it
        await self.server.run("TRUNCATE cookiesession")

    async def connections(self) -> int:
        return int((await self.server.run(self.CLIENTS))[0][0])


def visitor(app: object, cookies: httpx.Cookies | None = None) -> httpx.AsyncClient:
    """A browser before an application of this process."""
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # an ASGI application
    return httpx.AsyncClient(transport=transport, base_url="https://shop", cookies=cookies)


async def until(condition: Callable[[], object], what: str) -> None:
    """Returns once it is so; fails if it never is. A coroutine function is asked as well."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, f"{what}, and it never was"
        await asyncio.sleep(0.02)
