"""Tests of `fastapi.py`: dependencies, the OpenAPI document, guards, websockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from harness import Browser
from pydantic import BaseModel

from cookiesession import ConfigurationError, Cookie, Key, KeyRing, Session, SessionManager, SessionMiddleware
from cookiesession.fastapi import SessionCookie, SessionDep, require, session
from cookiesession.testing import cookies_for

if TYPE_CHECKING:
    from collections.abc import Mapping

RING = KeyRing(Key.generate())


class Visitor(BaseModel):
    """A session's data."""

    user_id: int | None = None
    cart: list[str] = []


MANAGER = SessionManager(RING, model=Visitor)
SIGNED_IN = cookies_for(MANAGER, Visitor(user_id=42), subject="42")


def _app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, MANAGER)
    return app


def _get(app: FastAPI, path: str = "/", cookies: Mapping[str, str] | None = None) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="https://test", cookies=dict(cookies or {})
        ) as client:
            return await client.get(path)

    return asyncio.run(go())


def _current_user(session: SessionDep[Visitor]) -> int | None:
    return session.data.user_id


def _everywhere() -> FastAPI:
    app = _app()
    router = APIRouter(prefix="/router")

    @app.get("/sync")
    def sync_handler(session: SessionDep[Visitor]) -> int | None:
        return session.data.user_id

    @app.get("/async")
    async def async_handler(session: SessionDep[Visitor]) -> int | None:
        return session.data.user_id

    @app.get("/dependency")
    def sub_dependency(user: Annotated[int | None, Depends(_current_user)]) -> int | None:
        return user

    @router.get("/")
    def in_a_router(session: SessionDep[Visitor]) -> int | None:
        return session.data.user_id

    app.include_router(router)
    return app


@pytest.mark.parametrize("path", ["/sync", "/async", "/dependency", "/router/"])
def test_a_handler_gets_the_typed_session(path: str) -> None:
    """In sync and async handlers, sub-dependencies and routers."""
    assert 42 == _get(_everywhere(), path, SIGNED_IN).json()


def test_changes_in_a_handler_are_saved() -> None:
    """As the README has it."""
    app = _app()

    @app.get("/")
    def add(session: SessionDep[Visitor]) -> list[str]:
        session.data.cart.append("tea")
        return session.data.cart

    browser = Browser(app)

    bodies = [browser.request().body for _ in range(2)]

    assert [b'["tea"]', b'["tea","tea"]'] == bodies


def test_a_websocket_gets_the_typed_session() -> None:
    """Before the accept, so that it can be changed."""
    app = _app()

    @app.websocket("/")
    async def talk(websocket: WebSocket, session: SessionDep[Visitor]) -> None:
        session.data.user_id = 7
        await websocket.accept()
        await websocket.send_json(session.data.user_id)
        await websocket.close()

    reply = Browser(app).request(kind="websocket")

    assert 1 == len(reply.set_cookies)
    assert ["7"] == [message["text"] for message in reply.messages if message["type"] == "websocket.send"]


def test_a_test_may_override_the_session() -> None:
    """By the dependency behind `SessionDep`."""
    app = _everywhere()
    fake = MANAGER.session([])
    fake.data.user_id = 1

    app.dependency_overrides[session] = lambda: fake

    assert 1 == _get(app, "/dependency").json()


# OpenAPI


def test_the_document_shows_the_cookie_and_a_padlock_on_guarded_routes() -> None:
    """Under the cookie's full name."""
    app = _app()
    scheme = SessionCookie(Cookie(name="sid"))

    @app.get("/guarded", dependencies=[require(scheme=scheme)])
    def guarded() -> None: ...

    @app.get("/open")
    def everyone() -> None: ...

    document = app.openapi()

    assert {"session": {"type": "apiKey", "in": "cookie", "name": "__Host-sid"}} == document["components"][
        "securitySchemes"
    ]
    assert [{"session": []}] == document["paths"]["/guarded"]["get"]["security"]
    assert "security" not in document["paths"]["/open"]["get"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Cookie(), "__Host-session"),
        (Cookie(secure=False), "session"),
        (SessionManager(RING, cookie=Cookie(name="sid", path="/app")), "__Secure-sid"),
    ],
    ids=["default", "plain", "manager"],
)
def test_a_scheme_takes_its_name_from_the_cookie_or_the_manager(source: Any, expected: str) -> None:
    """With the prefix that browsers see."""
    scheme = SessionCookie(source)

    assert expected == scheme.model.model_dump()["name"]


@pytest.mark.parametrize("source", ["sid", None, RING], ids=["name", "none", "ring"])
def test_a_scheme_takes_nothing_else(source: Any) -> None:
    """The name alone would lack the prefix."""
    with pytest.raises(ConfigurationError, match="SessionCookie takes the Cookie or the SessionManager"):
        SessionCookie(source)


def test_a_scheme_is_a_dependency_that_gives_the_session() -> None:
    """And refuses nobody."""
    app = _app()

    @app.get("/")
    def home(session: Annotated[Session[Visitor], Depends(SessionCookie(MANAGER))]) -> bool:
        return session.is_new

    assert [True, False] == [_get(app).json(), _get(app, cookies=SIGNED_IN).json()]


# Guards


def _guarded(*dependencies: Any) -> FastAPI:
    app = _app()

    @app.get("/", dependencies=list(dependencies))
    def guarded() -> str:
        return "in"

    return app


async def _is_42(session: Session[Visitor]) -> bool:
    await asyncio.sleep(0)
    return session.data.user_id == 42


def _forbid(session: Session[Visitor]) -> bool:
    raise LookupError(session.subject)


@pytest.mark.parametrize(
    ("guards", "cookies", "expected"),
    [
        ([require()], {}, (401, "Not authenticated")),
        ([require()], SIGNED_IN, (200, None)),
        ([require(status=403, detail="No")], {}, (401, "No")),
        ([require(lambda s: s.subject == "42")], SIGNED_IN, (200, None)),
        ([require(lambda s: s.subject == "43")], SIGNED_IN, (401, "Not authenticated")),
        ([require(lambda s: s.subject == "43", status=403, detail="No")], SIGNED_IN, (403, "No")),
        ([require(_is_42)], SIGNED_IN, (200, None)),
        ([require(_is_42, lambda _: False)], SIGNED_IN, (401, "Not authenticated")),
        ([require(_is_42), require(lambda _: False, status=402)], SIGNED_IN, (402, "Not authenticated")),
        ([require(_forbid)], {}, (401, "Not authenticated")),
        ([require()], {"__Host-session": "forged"}, (401, "Not authenticated")),
    ],
    ids=[
        "no session",
        "a session",
        "no session, own detail",
        "passes",
        "fails",
        "fails with its own",
        "async",
        "two checks",
        "two guards",
        "checks see no fresh session",
        "forged",
    ],
)
def test_a_guard_passes_or_refuses(guards: list[Any], cookies: dict[str, str], expected: tuple[int, Any]) -> None:
    """401 without a session, else what the checks say."""
    reply = _get(_guarded(*guards), cookies=cookies)

    assert expected[0] == reply.status_code
    if expected[1] is not None:
        assert {"detail": expected[1]} == reply.json()


def test_what_a_check_raises_passes_through() -> None:
    """As an exception of any dependency does."""
    with pytest.raises(LookupError):
        _get(_guarded(require(_forbid)), cookies=SIGNED_IN)


@pytest.mark.parametrize("check", ["root", 403, None], ids=repr)
def test_a_check_is_called(check: Any) -> None:
    """What cannot be is refused before the first request."""
    with pytest.raises(ConfigurationError, match="a check is a function of the session"):
        require(check)


def test_a_guard_may_stand_before_a_router() -> None:
    """And lets no route of it through."""
    app = _app()
    router = APIRouter(prefix="/admin", dependencies=[require(lambda s: s.subject == "root", status=403)])

    @router.get("/")
    def admin() -> str:
        return "in"

    app.include_router(router)

    assert [401, 403] == [_get(app, "/admin/").status_code, _get(app, "/admin/", SIGNED_IN).status_code]


def test_a_guard_refuses_a_websocket_before_its_accept() -> None:
    """With 1008, policy violation."""
    app = _app()

    @app.websocket("/", dependencies=[require()])
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()

    reply = Browser(app).request(kind="websocket")

    assert [("websocket.close", 1008)] == [(message["type"], message["code"]) for message in reply.messages]
