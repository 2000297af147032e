"""A site of two instances on one store, the browsers before it, and an account of what the store was asked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from harness import Clock, Reply
from starlette.requests import HTTPConnection

from cookiesession import Key, KeyRing, SessionManager, SessionMiddleware, get_session
from cookiesession.stores.url import store_from_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from starlette.types import Message, Receive, Scope, Send

    from cookiesession import Session
    from cookiesession.stores import Record, Store
    from cookiesession.stores.memory import MemoryStore

    Act = Callable[[Session[Any]], Awaitable[object]]

PATIENT: Final = timedelta(seconds=20)  # for tests of what is done, and not of when, on a busy machine
LIMIT: Final = 60  # seconds, for one test
NAME: Final = b"__Host-session"
KEY: Final = Key.generate()
RING: Final = KeyRing(KEY)


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that awaits, and not for ever."""

    async def bounded(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(LIMIT):
            await test(*args, **kwargs)

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(bounded(*args, **kwargs))

    return run


@dataclass(frozen=True)
class Storage:
    """Where records are: at a URL, or in the memory of this process."""

    url: str
    memory: MemoryStore | None
    dump: Callable[[], Awaitable[bytes]]
    """All that somebody has who has stolen it."""

    def open(self) -> Store:
        """A store as another process would open it, as far as there can be one."""
        return store_from_url(self.url, timeout=PATIENT) if self.memory is None else self.memory


class Watched:
    """A store that notes what it was asked, and who wrote last. It may take its time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.delay = 0.0  # seconds, before each call and after it
        self.calls: list[str] = []
        self.writers: dict[int, str] = {}  # tasks by the version of the record that they wrote

    async def load(self, key: bytes) -> Record | None:
        async with self._noted("load"):
            return await self.store.load(key)

    async def create(self, key: bytes, record: Record) -> bool:
        async with self._noted("create"):
            return await self.store.create(key, record)

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        async with self._noted("replace"):
            replaced = await self.store.replace(key, record, expected_version)
        if replaced:
            self.writers[record.version] = task_name()
        return replaced

    async def delete(self, key: bytes) -> bool:
        async with self._noted("delete"):
            return await self.store.delete(key)

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        async with self._noted("find"):
            return await self.store.find(subject)

    async def aclose(self) -> None:
        await self.store.aclose()

    @contextlib.asynccontextmanager
    async def _noted(self, call: str) -> AsyncIterator[None]:
        self.calls.append(call)
        if self.delay:
            await asyncio.sleep(self.delay)
        yield
        if self.delay:
            await asyncio.sleep(self.delay)


def task_name() -> str:
    """The name of the task that asks."""
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


class Site:
    """Two instances of one application, with a manager and a store each, as two processes have them."""

    def __init__(self, stores: Iterable[Store], keys: Any = RING, clock: Clock | None = None, **options: Any) -> None:
        self.clock = clock or Clock(int(time.time()))
        self.stores = [Watched(store) for store in stores]
        self.options = options
        self.use_keys(keys)

    def use_keys(self, keys: Any) -> None:
        """Deploys anew, with other keys."""
        self.managers: list[SessionManager[Any]] = []
        for store in self.stores:
            options: dict[str, Any] = {"store": store, "clock": self.clock, **self.options}
            self.managers.append(SessionManager(keys, **options))
        self.apps = [SessionMiddleware(_answer, manager) for manager in self.managers]

    def calls(self) -> list[str]:
        """What the stores were asked since the last time."""
        calls = [call for store in self.stores for call in store.calls]
        for store in self.stores:
            store.calls = []
        return calls


@contextlib.asynccontextmanager
async def site_on(storage: Storage, **options: Any) -> AsyncIterator[Site]:
    """A site, whose stores are closed in the end."""
    async with contextlib.AsyncExitStack() as stack:
        stores = [storage.open() for _ in range(2)]
        for store in stores:
            stack.push_async_callback(store.aclose)
        yield Site(stores, **options)


class Visitor:
    """Somebody with a browser, which keeps cookies as far as names, values and `Max-Age=0` go."""

    def __init__(self, site: Site, jar: dict[bytes, bytes] | None = None) -> None:
        self.site = site
        self.jar = dict(jar or {})

    def copy(self) -> Visitor:
        """Somebody with a copy of the cookies."""
        return Visitor(self.site, self.jar)

    async def visit(self, act: Act, instance: int = 0, later: Act | None = None) -> Any:
        """What `act` gave, done to the session by an instance; `later` is done once the response has been sent."""
        cookie = b"; ".join(b"%s=%s" % pair for pair in self.jar.items())
        headers = [(b"cookie", cookie)] if cookie else []
        reply = await exchange(self.site.apps[instance], headers, act, later)
        for line in reply.set_cookies:
            name, _, rest = line.partition(b"=")
            self.jar[name] = rest.partition(b";")[0]
            if b"; Max-Age=0" in line:
                del self.jar[name]
        assert reply.status == 200, reply.status
        return json.loads(reply.body)

    async def put(self, instance: int = 0, **data: Any) -> None:
        """Changes these entries."""

        async def update(session: Session[Any]) -> None:
            session.data.update(data)

        await self.visit(update, instance)

    async def read(self, instance: int = 0) -> Any:
        """All entries."""
        return await self.visit(_show, instance)

    async def id(self, instance: int = 0) -> str:
        """That of the session."""
        return str(await self.visit(_tell_id, instance))

    async def logout(self, instance: int = 0) -> None:
        """Ends the session."""
        await self.visit(_clear, instance)

    async def login(self, user: str, label: str | None = None, instance: int = 0) -> None:
        """Begins a session of a user."""

        async def begin(session: Session[Any]) -> None:
            session.renew()
            session.subject = user
            session.label = label
            session.data["user"] = user

        await self.visit(begin, instance)

    async def key(self, instance: int = 0) -> bytes:
        """What the store has the session's record under."""
        return bytes.fromhex(await self.visit(_tell_hash, instance))


async def exchange(app: Any, headers: list[tuple[bytes, bytes]], act: Act, later: Act | None) -> Reply:
    """One request and all that the application sends in answer to it."""
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "act": act, "later": later}
    reply = Reply()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        reply.messages.append(message)

    await app(scope, receive, send)
    return reply


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    session = get_session(HTTPConnection(scope))
    result = await scope["act"](session)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(result).encode()})
    if scope["later"] is not None:
        await scope["later"](session)


async def _show(session: Session[Any]) -> Any:
    return session.data


async def _tell_id(session: Session[Any]) -> str:
    return session.id


async def _tell_hash(session: Session[Any]) -> str:
    return session.id_hash


async def _clear(session: Session[Any]) -> None:
    session.clear()


def somebody() -> str:
    """A user whom no other test has."""
    return os.urandom(8).hex()
