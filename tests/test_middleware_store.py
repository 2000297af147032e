"""The middleware with a store: the same to an application, and a 503 where the store fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from harness import Browser, exchange, handler
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from cookiesession import (
    Key,
    KeyRing,
    Revocation,
    Session,
    SessionManager,
    SessionMiddleware,
    StoreUnavailable,
    get_session,
    load_session,
)
from cookiesession.events import Event, LateWrite, StoreFailed
from cookiesession.fastapi import SessionDep, require
from cookiesession.stores.memory import MemoryStore
from cookiesession.testing import cookies_for, read_session

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cookiesession.stores import Record

RING = KeyRing(Key.generate())


class Visitor(BaseModel):
    """A session's data."""

    views: int = 0


class Store(MemoryStore):
    """Counts what it is asked for, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = self.writes = 0
        self.is_away = False

    async def load(self, key: bytes) -> Record | None:
        self.loads += 1
        self._answer()
        return await super().load(key)

    async def create(self, key: bytes, record: Record) -> bool:
        self.writes += 1
        self._answer()
        return await super().create(key, record)

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        self.writes += 1
        self._answer()
        return await super().replace(key, record, expected_version)

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store at 10.0.0.1 is away")


@pytest.fixture
def store() -> Store:
    """An empty one."""
    return Store()


def _count(scope: Scope) -> None:
    scope["session"]["views"] = scope["session"].get("views", 0) + 1


def _visited(app: ASGIApp, store: Store, **options: Any) -> Browser:
    """A browser whose session is in the store."""
    browser = Browser(SessionMiddleware(app, keys=RING, store=store, **options))
    writer = Browser(SessionMiddleware(handler(_count), keys=RING, store=store))
    writer.request()
    browser.jar = writer.jar
    return browser


def test_counter_counts(store: Store) -> None:
    """One load and one write for each view after the first."""
    browser = Browser(SessionMiddleware(handler(_count), keys=RING, store=store))

    replies = [browser.request() for _ in range(3)]

    assert [1, 0, 0] == [len(reply.set_cookies) for reply in replies]
    assert [[b"Cookie"]] * 3 == [reply.values(b"vary") for reply in replies]
    assert (2, 3) == (store.loads, store.writes)


def test_untouched_session_changes_no_response(store: Store) -> None:
    """Case E59, but for the load; lazily not even that."""
    eager = _visited(handler(lambda scope: None), store).request()
    loads = store.loads
    lazy = _visited(handler(lambda scope: None), store, lazy=True).request()

    assert [] == eager.headers == lazy.headers
    assert (1, 1) == (loads, store.loads)


def test_request_without_our_cookie_asks_the_store_for_nothing(store: Store) -> None:
    """Case F77."""
    app = SessionMiddleware(handler(lambda scope: scope["session"].get("a")), keys=RING, store=store)

    for cookie in (b"", b"other=1", b"__Host-session=forged"):
        exchange(app, [(b"cookie", cookie)])

    assert (0, 0) == (store.loads, store.writes)


def test_lazy_session_is_fetched_where_it_is_asked_for(store: Store) -> None:
    """Once, however often."""

    async def read(request: Request) -> Response:
        await load_session(request)
        session = await load_session(request)
        return PlainTextResponse(str(session.data["views"]))

    browser = _visited(Starlette(routes=[Route("/", read)]), store, lazy=True)

    assert b"1" == browser.request().body
    assert 1 == store.loads


def test_lazy_session_that_is_not_fetched_says_what_to_call(store: Store) -> None:
    """To the developer, and at the first try."""
    browser = _visited(handler(_count), store, lazy=True)

    with pytest.raises(RuntimeError, match=r"await load_session\(request\)"):
        browser.request()


@pytest.mark.parametrize("lazy", [False, True])
def test_fastapi_fetches_by_itself(store: Store, *, lazy: bool) -> None:
    """For a parameter and for a guard, in sync and in async handlers."""
    manager = SessionManager(RING, model=Visitor, store=store)
    app = FastAPI()
    app.add_middleware(SessionMiddleware, manager, lazy=lazy)

    @app.get("/sync", dependencies=[require()])
    def sync(session: SessionDep[Visitor]) -> int:
        session.data.views += 1
        return session.data.views

    @app.get("/async")
    async def asynchronous(session: SessionDep[Visitor]) -> int:
        session.data.views += 1
        return session.data.views

    jar = cookies_for(manager, Visitor(views=5), subject="42")
    browser = Browser(app)
    browser.jar = {name.encode(): value.encode() for name, value in jar.items()}

    assert [b"6", b"7"] == [browser.request(path=path).body for path in ("/sync", "/async")]
    session = read_session(manager, jar)
    assert session is not None
    assert (7, "42") == (session.data.views, session.subject)


# A store that fails


@pytest.mark.parametrize("when", ["before", "during"])
def test_store_that_fails_is_a_503_that_says_nothing(store: Store, when: str, caplog: pytest.LogCaptureFixture) -> None:
    """Cases G80 and G81: the cookie is left alone, and the operator is told."""

    def away(scope: Scope) -> None:
        store.is_away = True
        _count(scope)

    browser = _visited(handler(away), store)
    jar = dict(browser.jar)
    store.is_away = when == "before"

    reply = browser.request()

    assert 503 == reply.status
    assert b"Service Unavailable" == reply.body
    assert [] == reply.set_cookies
    assert [b"no-store"] == reply.values(b"cache-control")
    assert jar == browser.jar
    assert ["a request was refused: the store at 10.0.0.1 is away"] == [each.getMessage() for each in caplog.records]


def test_many_refused_requests_are_one_record(caplog: pytest.LogCaptureFixture) -> None:
    """For as long as a store is down, every request is one. Case C32."""
    store = Store()
    browser = _visited(handler(_count), store)
    store.is_away = True

    for _ in range(100):
        assert 503 == browser.request().status

    assert 1 == len(caplog.records)


def test_next_request_after_a_failure_succeeds(store: Store) -> None:
    """Case G90: without a restart."""
    browser = _visited(handler(_count), store)
    store.is_away = True
    browser.request()
    store.is_away = False

    reply = browser.request()

    assert 200 == reply.status
    assert 2 == _views(store, browser)


def _views(store: Store, browser: Browser) -> int:
    jar = {name.decode(): value.decode() for name, value in browser.jar.items()}
    session = read_session(SessionManager(RING, store=store), jar)
    assert session is not None
    return int(session.data["views"])


def test_websocket_is_closed_where_the_store_fails(store: Store) -> None:
    """Try again later: 1013."""
    browser = _visited(handler(_count), store)
    store.is_away = True

    reply = browser.request(kind="websocket")

    assert [{"type": "websocket.close", "code": 1013}] == reply.messages


def test_application_may_go_on_without_sessions(store: Store) -> None:
    """By choice, with an event; the cookie is left alone."""
    events: list[Event] = []
    browser = _visited(handler(_count), store, on_store_error="anonymous", on_event=events.append)
    jar = dict(browser.jar)
    store.is_away = True

    reply = browser.request()

    assert 200 == reply.status
    assert [StoreFailed] == [type(event) for event in events if isinstance(event, StoreFailed)]
    assert jar == browser.jar


def test_failure_of_the_handlers_own_call_is_a_503_too(store: Store) -> None:
    """A transaction, say. But for an application that handles it itself."""

    async def transact(request: Request) -> Response:
        store.is_away = True
        await get_session(request).transact(lambda data: data.update(a=1))
        return Response()

    async def own(request: Request, error: Exception) -> Response:
        return PlainTextResponse("later", status_code=418)

    jar = _visited(handler(_count), store).jar
    statuses = []
    for handlers in ({}, {StoreUnavailable: own}):
        app = Starlette(routes=[Route("/", transact)], exception_handlers=handlers)
        app.add_middleware(SessionMiddleware, keys=RING, store=store)
        store.is_away = False
        browser = Browser(app)
        browser.jar = dict(jar)
        statuses.append(browser.request().status)

    assert [503, 418] == statuses


def test_failure_after_the_start_is_the_servers(store: Store) -> None:
    """The response cannot be taken back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        store.is_away = True
        await get_session(Request(scope)).transact(lambda data: data.update(a=1))

    with pytest.raises(StoreUnavailable):
        _visited(app, store).request()


# Late changes


def test_change_in_a_background_task_is_saved(store: Store) -> None:
    """Which a cookie could not."""
    events: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = BackgroundTask(_count, scope)
        await PlainTextResponse("x", background=task)(scope, receive, send)

    browser = _visited(app, store, on_event=events.append)
    browser.request()

    assert 2 == _views(store, browser)
    assert [] == [event for event in events if isinstance(event, LateWrite)]


@pytest.mark.parametrize("change", ["unencodable", "away"])
def test_late_change_that_cannot_be_saved_is_reported(store: Store, change: str) -> None:
    """The response has been sent and stays a success."""
    events: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("x")(scope, receive, send)
        scope["session"]["views"] = object() if change == "unencodable" else 5
        store.is_away = change == "away"

    browser = _visited(app, store, on_event=events.append)
    reply = browser.request()

    assert 200 == reply.status
    assert 1 == len([event for event in events if isinstance(event, LateWrite)])
    store.is_away = False
    assert 1 == _views(store, browser)


def test_server_error_saves_nothing(store: Store) -> None:
    """Neither in time nor late."""
    browser = _visited(handler(_count, status=500), store)

    assert 500 == browser.request().status
    assert 1 == _views(store, browser)


def test_websocket_is_saved_when_it_is_accepted_and_when_it_ends(store: Store) -> None:
    """The cookie rides on the accept; what comes later is in the record."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        _count(scope)
        await send({"type": "websocket.accept"})
        _count(scope)
        await send({"type": "websocket.close"})

    browser = _visited(app, store)
    browser.request(kind="websocket")

    assert 3 == _views(store, browser)


def test_mounted_middleware_leaves_the_session_to_the_outer_one(store: Store) -> None:
    """One cookie, one load, one write. Case E64."""
    inner = SessionMiddleware(handler(_count), keys=RING, store=store)
    browser = _visited(Starlette(routes=[Mount("/", inner)]), store)

    reply = browser.request()

    assert 200 == reply.status
    assert (1, 2) == (store.loads, store.writes)


def test_hundred_users_at_once_see_their_own(store: Store) -> None:
    """Case E67: over one application, with every answer delayed."""

    async def who(request: Request) -> Response:
        session: Session[Any] = get_session(request)
        session.data["views"] = session.data.get("views", 0) + 1
        await asyncio.sleep(0.01)
        return PlainTextResponse(f"{session.id} {session.data['views']}")

    app = SessionMiddleware(Starlette(routes=[Route("/", who)]), keys=RING, store=store)

    async def user() -> list[str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
            return [(await client.get("/")).text for _ in range(3)]

    async def go() -> list[list[str]]:
        return await asyncio.gather(*(user() for _ in range(100)))

    answers = asyncio.run(go())

    ids = [{answer.split()[0] for answer in each} for each in answers]
    assert [1] * 100 == [len(each) for each in ids]
    assert 100 == len(set.union(*ids))
    assert [["1", "2", "3"]] * 100 == [[answer.split()[1] for answer in each] for each in answers]


class Checked(Store):
    """A store that looks at its server when the application starts."""

    async def check(self) -> None:
        self.loads += 1
        self._answer()


@pytest.mark.parametrize("of_revocation", [False, True], ids=["store", "revocation"])
@pytest.mark.parametrize("is_away", [False, True], ids=["up", "away"])
def test_store_is_checked_when_the_application_starts(
    *, is_away: bool, of_revocation: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Case G85: what is wrong is said then. A store that is not up yet keeps nobody from starting."""
    store = Checked()
    store.is_away = is_away
    manager: SessionManager[Any] = (
        SessionManager(RING, revocation=Revocation(store)) if of_revocation else SessionManager(RING, store=store)
    )
    app = Starlette()
    app.add_middleware(SessionMiddleware, manager)
    sent: list[Any] = []

    async def start() -> None:
        inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> Any:
            return inbox.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan", "state": {}}, receive, send)

    asyncio.run(start())

    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent
    assert 1 == store.loads
    words = ["the session store could not be checked: the store at 10.0.0.1 is away"] if is_away else []
    assert words == [record.getMessage() for record in caplog.records]


def test_store_without_a_check_starts_too(store: Store) -> None:
    """It is not asked."""
    reply = exchange(SessionMiddleware(handler(lambda scope: None), keys=RING, store=store), [], kind="http")

    assert 200 == reply.status


@pytest.mark.parametrize(("others", "status"), [(0, 503), (1, 500)], ids=["alone", "among others"])
def test_failure_in_a_task_group_is_a_503_too(store: Store, others: int, status: int) -> None:
    """Two transactions at once, say. But not where something else has gone wrong as well."""

    async def transact(request: Request) -> Response:
        store.is_away = True
        async with asyncio.TaskGroup() as group, asyncio.TaskGroup() as inner:
            for each in (group, inner):
                each.create_task(_awaited(get_session(request).transact(lambda data: data.update(a=1))))
            for _ in range(others):
                group.create_task(_broken())
        return Response()

    app = Starlette(routes=[Route("/", transact)])
    app.add_middleware(SessionMiddleware, keys=RING, store=store)
    browser = Browser(app)
    browser.jar = _visited(handler(_count), store).jar

    if status == 503:
        assert 503 == browser.request().status
    else:
        with pytest.raises(ExceptionGroup):
            browser.request()


async def _awaited(awaitable: Any) -> None:
    await awaitable


async def _broken() -> None:
    raise LookupError
