"""Tests of `middleware.py`: the headers of responses, websockets, late writes, mounted and repeated middleware."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from harness import Browser, exchange, handler
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from cookiesession import (
    ConfigurationError,
    Cookie,
    Key,
    KeyRing,
    Revocation,
    SessionManager,
    SessionMiddleware,
    SessionTooLarge,
    UnencodableData,
    get_session,
)
from cookiesession.events import Event, LateWrite, PublicResponse
from cookiesession.guards import user_agent
from cookiesession.state import State
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from harness import Handler
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

RING = KeyRing(Key.generate())
NAME = b"__Host-session"


class Visitor(msgspec.Struct):
    """A model."""

    user: str = ""


def _store(scope: Any) -> None:
    scope["session"]["user"] = "ada"


def _read(scope: Any) -> None:
    scope["session"].get("user")


def _nothing(_: Any) -> None:
    pass


def _signed_in() -> dict[bytes, bytes]:
    browser = Browser(SessionMiddleware(handler(_store), keys=RING))
    browser.request()
    return browser.jar


def _starlette(*routes: Any, **options: Any) -> Starlette:
    return Starlette(routes=list(routes), middleware=[Middleware(SessionMiddleware, keys=RING, **options)])


# Headers


@pytest.mark.parametrize(
    "touch",
    [
        pytest.param(lambda s: s.get("a"), id="get"),
        pytest.param(lambda s: "a" in s, id="in"),
        pytest.param(len, id="len"),
        pytest.param(list, id="iter"),
        pytest.param(bool, id="bool"),
        pytest.param(lambda s: s == {}, id="equality"),
        pytest.param(lambda s: s.mark_accessed(), id="request.session"),
    ],
)
def test_reading_varies_by_cookie_and_sets_none(touch: Callable[[Any], Any]) -> None:
    """Case E57."""
    browser = Browser(SessionMiddleware(handler(lambda scope: touch(scope["session"])), keys=RING))
    browser.jar = _signed_in()

    reply = browser.request()

    assert [(b"vary", b"Cookie")] == reply.headers


def test_a_request_that_does_not_touch_its_session_is_left_alone() -> None:
    """Case E59: no header, no event, whatever the cookie is."""
    events: list[Event] = []
    browser = Browser(SessionMiddleware(handler(_nothing), keys=RING, on_event=events.append))

    replies = [browser.request(), browser.request(cookie=NAME + b"=garbage")]
    browser.jar = _signed_in()
    replies.append(browser.request())

    assert [[], [], []] == [reply.headers for reply in replies]
    assert [] == events


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        ([], [b"Cookie"]),
        ([b"Accept-Encoding"], [b"Accept-Encoding, Cookie"]),
        ([b"cookie"], [b"cookie"]),
        ([b"Accept, COOKIE"], [b"Accept, COOKIE"]),
        ([b"*"], [b"*"]),
        ([b"Accept", b"Cookie"], [b"Accept", b"Cookie"]),
        ([b"Cookie-Consent"], [b"Cookie-Consent, Cookie"]),
    ],
    ids=str,
)
def test_vary_is_added_to_what_the_application_says(vary: list[bytes], expected: list[bytes]) -> None:
    """Once, and by whole field names."""
    app = handler(_read, headers=[(b"vary", value) for value in vary])

    reply = Browser(SessionMiddleware(app, keys=RING)).request()

    assert expected == reply.values(b"vary")


@pytest.mark.parametrize(
    ("said", "expected", "events"),
    [
        (None, b"no-store", []),
        (b"private, max-age=60", b"private, max-age=60", []),
        (b"Public, max-age=60", b"Public, max-age=60", [PublicResponse()]),
    ],
    ids=str,
)
def test_a_response_with_our_cookie_is_not_for_shared_caches(
    said: bytes | None, expected: bytes, events: list[Event]
) -> None:
    """Case E58: unless the application insists, which is an event."""
    seen: list[Event] = []
    app = handler(_store, headers=[] if said is None else [(b"cache-control", said)])

    reply = Browser(SessionMiddleware(app, keys=RING, on_event=seen.append)).request()

    assert [expected] == reply.values(b"cache-control")
    assert events == [event for event in seen if isinstance(event, PublicResponse)]


def test_a_shared_cache_is_looked_for_in_every_header() -> None:
    """Case E58: the last one does not take back what another says."""
    seen: list[Event] = []
    app = handler(_store, headers=[(b"cache-control", b"public"), (b"cache-control", b"max-age=3")])

    reply = Browser(SessionMiddleware(app, keys=RING, on_event=seen.append)).request()

    assert [b"public", b"max-age=3"] == reply.values(b"cache-control")
    assert [PublicResponse()] == [event for event in seen if isinstance(event, PublicResponse)]


def test_a_response_may_say_that_it_has_no_headers() -> None:
    """By None, as some frameworks do."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        _store(scope)
        await send({"type": "http.response.start", "status": 200, "headers": None})
        await send({"type": "http.response.body"})

    reply = Browser(SessionMiddleware(app, keys=RING)).request()

    assert [b"Cookie"] == reply.values(b"vary")
    assert len(reply.set_cookies) == 1


# What an application puts in the place of its session


class _OfAnother(dict[str, Any]):
    """The session of another middleware, such as Starlette's own."""


@pytest.mark.parametrize("store", [False, True], ids=["cookie", "store"])
@pytest.mark.parametrize(
    ("replacement", "expected"),
    [
        ({"user": "eve"}, {"user": "eve"}),
        ({}, None),
        (None, None),
        (object, None),
        (_OfAnother(user="eve"), {"user": "ada"}),
    ],
    ids=["data", "no-data", "none", "marker", "another"],
)
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_what_replaces_a_session_is_saved(replacement: Any, expected: Any, *, store: bool, lazy: bool) -> None:
    """As data, or as the end of the session, though nobody has touched it: some frameworks do so at a logout."""
    options: Any = {"store": MemoryStore(), "lazy": lazy} if store else {}
    manager = SessionMiddleware(handler(_store), keys=RING, **options).manager
    browser = Browser(SessionMiddleware(handler(_store), manager))
    browser.request()
    browser.app = SessionMiddleware(handler(lambda scope: scope.update(session=replacement)), manager, lazy=lazy)

    browser.request()

    seen: list[Any] = []
    browser.app = SessionMiddleware(handler(lambda scope: seen.append(dict(scope["session"]))), manager)
    browser.request()
    assert [expected or {}] == seen
    assert bool(browser.jar) == bool(expected)


def test_a_typed_session_is_replaced_by_its_model_alone() -> None:
    """What is no data of its type ends it."""
    manager = SessionManager(RING, model=Visitor)
    browser = Browser(SessionMiddleware(handler(lambda scope: scope.update(session=Visitor(user="ada"))), manager))

    browser.request()

    [(name, value)] = browser.jar.items()
    assert "ada" == manager.session([(b"cookie", name + b"=" + value)]).data.user
    browser.app = SessionMiddleware(handler(lambda scope: scope.update(session={"user": "eve"})), manager)
    browser.request()
    assert {} == browser.jar


def test_two_sessions_in_one_cookie_are_refused_at_start_up() -> None:
    """They would write over each other."""
    app = Starlette(middleware=[Middleware(SessionMiddleware, keys=RING)])
    app.add_middleware(SessionMiddleware, keys=RING, scope_key="admin")

    with pytest.raises(ConfigurationError, match=r"^two sessions need two cookies"):
        exchange(app, [])


def test_an_application_that_is_its_own_inner_one_is_no_trouble() -> None:
    """No stack is looked through for ever."""
    app: Any = handler(_nothing)
    app.app = app

    assert 200 == exchange(SessionMiddleware(app, keys=RING), []).status


def test_the_applications_own_cookies_are_kept() -> None:
    """Case C43: ours is a line of its own, after theirs."""
    app = handler(_store, headers=[(b"set-cookie", b"theme=dark"), (b"set-cookie", b"lang=en")])

    reply = Browser(SessionMiddleware(app, keys=RING)).request()

    assert [b"theme=dark", b"lang=en"] == reply.set_cookies[:2]
    assert 3 == len(reply.set_cookies)


def test_what_the_application_sends_is_never_written_into() -> None:
    """A message or a header list that it sends every time does not collect the cookies of others."""
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        _store(scope)
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    exchange(SessionMiddleware(app, keys=RING), [])

    assert {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]} == start


def test_a_start_without_headers_gets_ours() -> None:
    """ASGI lets an application leave them out."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        _store(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    reply = exchange(SessionMiddleware(app, keys=RING), [])

    assert 1 == len(reply.set_cookies)


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("HEAD", lambda: Response("x")),
        ("GET", lambda: Response(status_code=204)),
        ("GET", lambda: Response(status_code=304)),
        ("POST", lambda: RedirectResponse("/", 303)),
        ("GET", lambda: PlainTextResponse("no", 404)),
    ],
    ids=["HEAD", "204", "304", "303", "404"],
)
def test_every_response_below_500_carries_one_cookie(method: str, response: Callable[[], Response]) -> None:
    """Case E64."""

    async def endpoint(request: Request) -> Response:
        request.session["user"] = "ada"
        return response()

    reply = Browser(_starlette(Route("/", endpoint, methods=["GET", "POST"]))).request(method=method)

    assert 1 == len(reply.set_cookies)


# What is saved, and what is not


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_saves_nothing(status: int) -> None:
    """Though it varies by cookie, since the session was looked at."""
    browser = Browser(SessionMiddleware(handler(_store, status=status), keys=RING))

    reply = browser.request()

    assert [(b"vary", b"Cookie")] == reply.headers


def test_a_handler_that_raises_saves_nothing() -> None:
    """Case E62: the exception passes through, and the 500 in its place carries no cookie."""

    def endpoint(request: Request) -> Response:
        request.session["user"] = "ada"
        raise ZeroDivisionError

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(_starlette(Route("/", endpoint)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
            return await client.get("/")

    reply = asyncio.run(go())

    assert 500 == reply.status_code
    assert "set-cookie" not in reply.headers


def test_an_http_exception_below_500_saves() -> None:
    """It is a response like another: a failed sign-in may count itself."""

    def endpoint(request: Request) -> Response:
        request.session["failures"] = 1
        raise HTTPException(403)

    reply = Browser(_starlette(Route("/", endpoint))).request()

    assert 403 == reply.status
    assert 1 == len(reply.set_cookies)


@pytest.mark.parametrize(
    ("value", "error"), [("x" * 9000, SessionTooLarge), (object(), UnencodableData)], ids=["too large", "unencodable"]
)
def test_what_cannot_be_saved_raises_before_anything_is_sent(value: object, error: type[Exception]) -> None:
    """Cases C40 and D54: the application, or the server, answers 500, and the browser keeps what it had."""
    browser = Browser(SessionMiddleware(handler(lambda scope: scope["session"].update(value=value)), keys=RING))
    browser.jar = jar = _signed_in()

    with pytest.raises(error):
        browser.request()

    assert jar == browser.jar


def test_an_application_may_answer_500_after_a_session_that_cannot_be_saved() -> None:
    """The error reaches whoever sends the response, and a second one may start."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["session"]["value"] = object()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except UnencodableData:
            await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body"})

    reply = exchange(SessionMiddleware(app, keys=RING), [])

    assert 500 == reply.status
    assert [] == reply.set_cookies


@pytest.mark.parametrize("store", [False, True], ids=["cookie", "store"])
def test_an_application_may_mend_a_session_that_cannot_be_saved(*, store: bool) -> None:
    """What was not sent is no response: the next one saves the session, and nothing is late."""
    events: list[Event] = []
    options: Any = {"store": MemoryStore()} if store else {}

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["session"]["value"] = object()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except UnencodableData:
            scope["session"]["value"] = None
            await send({"type": "http.response.start", "status": 422, "headers": []})
        await send({"type": "http.response.body"})

    reply = exchange(SessionMiddleware(app, keys=RING, on_event=events.append, **options), [])

    assert 422 == reply.status
    assert [b"Cookie"] == reply.values(b"vary")
    assert 1 == len(reply.set_cookies)
    assert not any(isinstance(event, LateWrite) for event in events)


# Late writes


async def _late_in_body(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    scope["session"]["user"] = "ada"
    await send({"type": "http.response.body"})


async def _late_after_touch(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["session"]["user"] = "ada"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
    scope["session"]["user"] = "bob"


async def _late_unencodable(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
    scope["session"]["user"] = object()


async def _late_renewal(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["session"]["user"] = "ada"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
    get_session(Request(scope)).renew()


async def _late_logout(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["session"]["user"] = "ada"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
    get_session(Request(scope)).clear()


async def _late_stream(scope: Scope, receive: Receive, send: Send) -> None:
    async def body() -> AsyncIterator[str]:
        yield "a"
        scope["session"]["user"] = "ada"
        yield "b"

    await StreamingResponse(body())(scope, receive, send)


async def _late_background(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("x", background=BackgroundTask(_store, scope))(scope, receive, send)


async def _late_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    scope["session"]["user"] = "ada"
    await send({"type": "websocket.close"})


LATE = [
    _late_in_body,
    _late_after_touch,
    _late_unencodable,
    _late_renewal,
    _late_logout,
    _late_stream,
    _late_background,
    _late_websocket,
]


@pytest.mark.parametrize("app", LATE, ids=lambda app: app.__name__.removeprefix("_late_"))
def test_a_change_after_the_response_has_started_is_reported(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Cases E60 and E61: as an event and as a warning, never dropped in silence."""
    events: list[Event] = []
    kind = "websocket" if app is _late_websocket else "http"

    exchange(SessionMiddleware(app, keys=RING, on_event=events.append), [], kind=kind)

    assert [LateWrite()] == [event for event in events if isinstance(event, LateWrite)]
    assert ["WARNING"] == [record.levelname for record in caplog.records]


async def _reads_late(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
    scope["session"].get("user")


async def _takes_back(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["session"]["user"] = "ada"
    del scope["session"]["user"]
    get_session(Request(scope)).renew()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def _fails_after_change(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["session"]["user"] = "ada"
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("app", [_reads_late, _takes_back, _fails_after_change], ids=lambda app: app.__name__)
def test_what_is_no_late_write_is_not_reported(app: Any) -> None:
    """Reading late, a change that was taken back in time, and one that a 500 drops by rule."""
    events: list[Event] = []

    exchange(SessionMiddleware(app, keys=RING, on_event=events.append), [])

    assert [] == [event for event in events if isinstance(event, LateWrite)]


# Websockets


def test_a_websocket_gets_its_cookie_on_the_accept() -> None:
    """Case E61."""
    reply = Browser(SessionMiddleware(handler(_store), keys=RING)).request(kind="websocket")

    accept = next(message for message in reply.messages if message["type"] == "websocket.accept")
    assert 1 == sum(name == b"set-cookie" for name, _ in accept["headers"])


def test_a_websocket_reads_the_session_that_a_page_wrote() -> None:
    """Through Starlette's own WebSocket."""
    seen = []

    async def endpoint(websocket: WebSocket) -> None:
        seen.append(dict(websocket.session))
        await websocket.accept()
        await websocket.close()

    browser = Browser(_starlette(WebSocketRoute("/", endpoint)))
    browser.jar = _signed_in()

    browser.request(kind="websocket")

    assert [{"user": "ada"}] == seen


def test_a_websocket_that_is_denied_with_a_response_saves() -> None:
    """As any response does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["session"]["denied"] = 1
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body"})

    reply = exchange(SessionMiddleware(app, keys=RING), [], kind="websocket")

    assert 1 == len(reply.set_cookies)


def test_a_websocket_that_is_closed_before_its_accept_writes_nothing() -> None:
    """There is no header to write into, which is an event."""
    events: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["session"]["denied"] = 1
        await send({"type": "websocket.close", "code": 1008})

    reply = exchange(SessionMiddleware(app, keys=RING, on_event=events.append), [], kind="websocket")

    assert [] == reply.set_cookies
    assert [LateWrite()] == events


def test_other_kinds_of_connection_pass_through() -> None:
    """Such as the lifespan, which has no headers."""
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(dict(scope))
        await asyncio.sleep(0)

    async def unused() -> Any:
        raise AssertionError

    asyncio.run(SessionMiddleware(app, keys=RING)({"type": "lifespan"}, unused, unused))  # type: ignore[arg-type]

    assert [{"type": "lifespan"}] == seen


# More than one


def test_a_mounted_application_shares_the_session() -> None:
    """Under any root path."""

    async def endpoint(request: Request) -> Response:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse(str(request.session["visits"]))

    browser = Browser(_starlette(Mount("/shop", routes=[Route("/", endpoint)]), Route("/", endpoint)))

    bodies = [browser.request(path=path).body for path in ("/", "/shop/", "/")]

    assert [b"1", b"2", b"3"] == bodies


def test_the_same_middleware_twice_sets_one_cookie() -> None:
    """Case E64: the outer one serves, and a mounted application may bring its own."""
    app = SessionMiddleware(SessionMiddleware(handler(_store), keys=RING), keys=RING)

    reply = Browser(app).request()

    assert 1 == len(reply.set_cookies)


def test_the_same_cookie_with_another_model_is_refused() -> None:
    """The inner application would get data that it does not expect."""

    class Visitor(msgspec.Struct):
        name: str = ""

    app = SessionMiddleware(SessionMiddleware(handler(_store), keys=RING, model=Visitor), keys=RING)

    with pytest.raises(ConfigurationError, match="one model"):
        Browser(app).request()


@pytest.mark.parametrize(
    "options",
    [{"store": MemoryStore()}, {"revocation": Revocation(MemoryStore())}, {"bind": user_agent}],
    ids=["store", "revocation", "bind"],
)
def test_the_same_cookie_is_refused_where_the_outer_one_protects_less(options: Any) -> None:
    """A logout would not be final, or another client let in, without a word. The other way round nothing is lost."""
    lesser, more = SessionManager(RING), SessionManager(RING, **options)

    with pytest.raises(ConfigurationError, match="and lacks the store=, revocation= or bind= of the inner one"):
        Browser(SessionMiddleware(SessionMiddleware(handler(_store), more), lesser)).request()

    for inner in (lesser, more):
        assert 1 == len(
            Browser(SessionMiddleware(SessionMiddleware(handler(_store), inner), more)).request().set_cookies
        )


def test_an_exception_leaves_the_outer_session_in_its_place() -> None:
    """For whoever handles it."""

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    inner = SessionMiddleware(handler(fail), keys=RING, cookie=Cookie(name="inner"))
    seen = []

    async def outside(scope: Scope, receive: Receive, send: Send) -> None:
        outer = scope["session"]
        try:
            await inner(scope, receive, send)
        finally:
            seen.append(scope["session"] is outer)

    with pytest.raises(ZeroDivisionError):
        Browser(SessionMiddleware(outside, keys=RING)).request()

    assert [True] == seen


def test_two_cookies_under_two_scope_keys_live_side_by_side() -> None:
    """Each with its own data, ring and attributes."""
    other = Cookie(name="admin", path="/", samesite="strict")

    def both(scope: Any) -> None:
        scope["session"]["user"] = "ada"
        scope["admin"]["role"] = "root"

    inner = SessionMiddleware(handler(both), keys=KeyRing(Key.generate()), cookie=other, scope_key="admin")
    browser = Browser(SessionMiddleware(inner, keys=RING))

    reply = browser.request()

    assert {NAME, b"__Host-admin"} == set(browser.jar)
    assert [(b"vary", b"Cookie")] == [header for header in reply.headers if header[0] == b"vary"]


def test_an_inner_session_hides_the_outer_one_only_inside() -> None:
    """Two cookies under one scope key, as when an administration is mounted with sessions of its own."""
    seen = []

    def inside(scope: Any) -> None:
        scope["session"]["where"] = "inside"

    inner = SessionMiddleware(handler(inside), keys=RING, cookie=Cookie(name="inner"))

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        outer = scope["session"]
        await inner(scope, receive, send)
        seen.append(scope["session"] is outer)

    browser = Browser(SessionMiddleware(between, keys=RING))

    browser.request()

    assert [True] == seen
    assert {b"__Host-inner"} == set(browser.jar)


def test_somebody_elses_session_is_put_back() -> None:
    """What another middleware had put into the scope."""
    theirs: dict[str, Any] = {}
    seen = []

    async def theirs_outside(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"] = theirs
        await SessionMiddleware(handler(_store), keys=RING)(scope, receive, send)
        seen.append(scope["session"] is theirs)

    reply = exchange(theirs_outside, [])

    assert [True] == seen
    assert 1 == len(reply.set_cookies)


def test_get_session_finds_a_session_by_its_scope_key() -> None:
    """The second of two."""
    seen = []

    async def endpoint(request: Request) -> Response:
        get_session(request, "admin").data["role"] = "root"
        seen.append(request.scope["admin"])
        return Response()

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[
            Middleware(SessionMiddleware, keys=RING),
            Middleware(SessionMiddleware, keys=RING, cookie=Cookie(name="admin"), scope_key="admin"),
        ],
    )

    Browser(app).request()

    assert [{"role": "root"}] == seen


# Concurrency


def test_sync_handlers_in_the_thread_pool_have_their_session() -> None:
    """Starlette runs them in threads."""
    threads = set()

    def endpoint(request: Request) -> Response:
        threads.add(threading.current_thread())
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse(str(request.session["visits"]))

    browser = Browser(_starlette(Route("/", endpoint)))

    bodies = [browser.request().body for _ in range(3)]

    assert [b"1", b"2", b"3"] == bodies
    assert threading.main_thread() not in threads


def test_a_hundred_users_at_once_each_read_their_own_session() -> None:
    """Case E67: interleaved on one loop."""

    async def endpoint(request: Request) -> Response:
        name = request.query_params["name"]
        request.session.setdefault("name", name)
        await asyncio.sleep(0)
        return PlainTextResponse(request.session["name"])

    async def user(client: httpx.AsyncClient, name: str) -> list[str]:
        first = await client.get("/", params={"name": name})
        cookie = first.headers["set-cookie"].partition(";")[0]
        later = [await client.get("/", params={"name": "x"}, headers={"cookie": cookie}) for _ in range(3)]
        return [reply.text for reply in later]

    async def go() -> list[list[str]]:
        transport = httpx.ASGITransport(_starlette(Route("/", endpoint)))

        def fresh() -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=transport, base_url="http://test")

        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(fresh()) for _ in range(100)]
            return await asyncio.gather(*(user(client, f"u{i}") for i, client in enumerate(clients)))

    seen = asyncio.run(go())

    assert [[f"u{i}"] * 3 for i in range(100)] == seen


def test_a_request_that_is_cancelled_writes_nothing_and_harms_no_other() -> None:
    """Case E63, where nothing is stored on the server."""

    async def slow(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["session"]["user"] = "ada"
        await asyncio.sleep(3600)

    middleware = SessionMiddleware(slow, keys=RING)
    sent: list[Message] = []

    async def go() -> None:
        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await middleware({"type": "http", "headers": []}, receive, send)

    asyncio.run(go())
    middleware.app = handler(_store)
    reply = exchange(middleware, [])

    assert [] == sent
    assert 1 == len(reply.set_cookies)


@pytest.mark.parametrize("header", [b"host", b"x-forwarded-proto", b"x-forwarded-host"])
def test_no_header_of_the_request_changes_the_cookies_attributes(header: bytes) -> None:
    """Cases E65 and E66: neither the host nor the scheme that somebody claims."""
    app = SessionMiddleware(handler(_store), keys=RING)

    plain = exchange(app, []).set_cookies[0].partition(b";")[2]
    hostile = exchange(app, [(header, b"http://evil.example/../\r\nx")]).set_cookies[0].partition(b";")[2]

    assert plain == hostile


# Configuration


def test_a_manager_can_be_shared() -> None:
    """By the middleware, a job and a test."""
    manager = SessionManager(RING)
    browser = Browser(SessionMiddleware(handler(_store), manager))

    browser.request()
    session = manager.session([(b"cookie", NAME + b"=" + browser.jar[NAME])])

    assert {"user": "ada"} == session.data


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"manager": SessionManager(RING), "keys": RING},
        {"manager": SessionManager(RING), "compress": True},
        {"manager": RING},
    ],
    ids=["neither", "manager and keys", "manager and options", "keys in its place"],
)
def test_a_manager_and_its_options_exclude_each_other(options: dict[str, Any]) -> None:
    """Whichever would be left out would be missed in silence."""
    with pytest.raises(ConfigurationError, match="either a manager"):
        SessionMiddleware(handler(_nothing), **options)


@pytest.mark.parametrize("scope_key", [None, b"session", ["session"]], ids=repr)
def test_scope_key_is_a_name(scope_key: Any) -> None:
    """A list would be a TypeError of each request."""
    with pytest.raises(ConfigurationError, match="scope_key is a str"):
        SessionMiddleware(handler(_nothing), keys=RING, scope_key=scope_key)


@pytest.mark.parametrize("lazy", ["no", None, 0], ids=repr)
def test_lazy_is_true_or_false(lazy: Any) -> None:
    """A "no" from the environment would be true."""
    with pytest.raises(ConfigurationError, match="lazy is True or False"):
        SessionMiddleware(handler(_nothing), keys=RING, lazy=lazy)


@pytest.mark.parametrize("bind", [(), user_agent], ids=["unbound", "bound"])
@pytest.mark.parametrize("handle", [_nothing, _store], ids=["untouched", "touched"])
def test_a_request_leaves_nothing_to_the_garbage_collector(handle: Handler, bind: Any) -> None:
    """No ring of references: what a session knows of its scope is not the scope that it is in."""
    app = SessionMiddleware(handler(handle), keys=RING, bind=bind)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            _run(app, {"type": "http", "headers": []})
        left = [each for each in gc.get_objects() if isinstance(each, State) and each.owner is app.manager.mode]
    finally:
        gc.enable()

    assert [] == left


def _run(app: ASGIApp, scope: Scope) -> None:
    # Without an event loop, which has rings of its own.
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None: ...

    coroutine: Any = app(scope, receive, send)
    with contextlib.suppress(StopIteration):
        coroutine.send(None)
