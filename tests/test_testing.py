"""Tests of `testing.py`: sessions for tests without logging in, with real test clients."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any
from urllib.request import Request as UrllibRequest

import httpx
import pytest
from harness import START, Clock
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cookiesession import Key, KeyRing, SessionManager, SessionMiddleware, SessionTooLarge, get_session
from cookiesession.guards import client_network, user_agent
from cookiesession.stores.memory import MemoryStore
from cookiesession.testing import cookies_for, read_session

if TYPE_CHECKING:
    from starlette.requests import Request

OLD = Key.generate()
RING = KeyRing(Key.generate(), OLD)


class Visitor(BaseModel):
    """A session's data."""

    user_id: int | None = None


async def _who(request: Request) -> Response:
    return PlainTextResponse(str(get_session(request).subject))


async def _login(request: Request) -> Response:
    get_session(request).data["user_id"] = 7
    return Response()


async def _logout(request: Request) -> Response:
    get_session(request).clear()
    return Response()


def _app(manager: SessionManager[Any]) -> Starlette:
    routes = [Route("/who", _who), Route("/login", _login), Route("/logout", _logout)]
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, manager)])


def _exchange(path: str, cookies: dict[str, str]) -> tuple[httpx.Response, httpx.Cookies]:
    app = _app(SessionManager(RING))

    async def go() -> tuple[httpx.Response, httpx.Cookies]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://test", cookies=cookies) as client:
            return await client.get(path), client.cookies

    return asyncio.run(go())


def test_a_handler_sees_the_session_that_a_test_made() -> None:
    """Without a login."""
    cookies = cookies_for(SessionManager(RING), {"user_id": 42}, subject="42")

    reply, _ = _exchange("/who", cookies)

    assert "42" == reply.text


def test_a_test_reads_what_a_response_wrote() -> None:
    """From the response, or from the client's jar."""
    manager = SessionManager(RING)
    reply, jar = _exchange("/login", {})

    sessions = [read_session(manager, source) for source in (reply, jar, jar.jar, dict(jar))]

    assert [{"user_id": 7}] * 4 == [session and session.data for session in sessions]


def test_a_client_follows_what_responses_write() -> None:
    """The session that the test began with is replaced, and ends with a logout."""
    manager = SessionManager(RING)
    app = _app(manager)

    async def go() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://testserver") as client:
            for name, value in cookies_for(manager, {"user_id": 42}, subject="42").items():
                client.cookies.set(name, value, domain="testserver.local")
            await client.get("/login")
            session = read_session(manager, client.cookies)
            assert session is not None
            return [str(session.data["user_id"]), (await client.get("/logout")).text, (await client.get("/who")).text]

    assert ["7", "", "None"] == asyncio.run(go())


def test_no_session_reads_as_none() -> None:
    """After a logout, from an empty jar, and from one that holds something else."""
    manager = SessionManager(RING)
    reply, _ = _exchange("/logout", cookies_for(manager, {"user_id": 42}))

    assert [None] * 4 == [read_session(manager, source) for source in (reply, {}, CookieJar(), {"a": "b"})]


def test_a_session_may_be_of_any_age_key_subject_and_persistence() -> None:
    """So that expiry and rotation can be tried out."""
    clock = Clock()
    manager = SessionManager(RING, clock=clock, lifetime=timedelta(hours=1), persistent=False)
    data: dict[str, Any] = {"a": 1}

    aged = read_session(manager, cookies_for(manager, data, age=timedelta(minutes=59)))
    expired = read_session(manager, cookies_for(manager, data, age=timedelta(minutes=60)))
    old = read_session(manager, cookies_for(manager, data, key=OLD, subject="42", persistent=True))

    assert aged is not None
    assert START - 59 * 60 == aged.created_at.timestamp()
    assert expired is None
    assert old is not None
    assert ("42", True, OLD) == (old.subject, old.persistent, old._state.key)
    assert START == manager.session([]).created_at.timestamp()


def test_a_typed_session_is_made_of_its_model() -> None:
    """And read as it."""
    manager = SessionManager(RING, model=Visitor)

    session = read_session(manager, cookies_for(manager, Visitor(user_id=42)))

    assert session is not None
    assert Visitor(user_id=42) == session.data


def test_a_large_session_takes_several_cookies() -> None:
    """And one that is too large raises as it would in a handler."""
    manager = SessionManager(RING)

    cookies = cookies_for(manager, {"text": "x" * 5000})

    assert {"__Host-session", "__Host-session.1"} == set(cookies)
    with pytest.raises(SessionTooLarge):
        cookies_for(manager, {"text": "x" * 9000})


def test_the_standard_librarys_jar_is_read() -> None:
    """As it is filled from a response."""
    manager = SessionManager(RING)
    reply, _ = _exchange("/login", {})
    jar = CookieJar()

    httpx.Cookies(jar).extract_cookies(reply)

    session = read_session(manager, jar)
    assert session is not None
    assert UrllibRequest("https://test").host == "test"
    assert {"user_id": 7} == session.data


@pytest.mark.parametrize("store", [False, True], ids=["cookie", "store"])
def test_a_bound_session_is_made_for_the_client_of_its_headers(*, store: bool) -> None:
    """And read as that client, from a jar as from a response."""
    options: dict[str, Any] = {"store": MemoryStore()} if store else {}
    manager = SessionManager(RING, bind=user_agent, **options)
    ada, eve = [(b"user-agent", b"Ada's browser")], [(b"user-agent", b"Eve's browser")]

    cookies = cookies_for(manager, {"user_id": 42}, headers=iter(ada))

    own = read_session(manager, cookies, headers=iter(ada))
    assert {"user_id": 42} == (own and own.data)
    assert [None, None] == [read_session(manager, cookies, headers=headers) for headers in (eve, ())]


def test_a_bound_session_that_was_made_without_headers_is_nobodys() -> None:
    """Of a client that says nothing of itself, that is."""
    manager = SessionManager(RING, bind=user_agent)

    cookies = cookies_for(manager, {"user_id": 42})

    assert None is read_session(manager, cookies, headers=[(b"user-agent", b"Ada's browser")])
    assert None is not read_session(manager, cookies)


@pytest.mark.parametrize("address", ["testclient", "192.0.2.7"])
def test_a_test_clients_own_headers_and_address_open_a_bound_session(address: str) -> None:
    """As a browser would send them. A session of another address does not open."""
    manager = SessionManager(RING, bind=(user_agent, client_network()))
    app = Starlette(routes=[Route("/who", _who)], middleware=[Middleware(SessionMiddleware, manager)])
    sent = [(b"user-agent", b"browser 7")]
    cookies = cookies_for(manager, {}, subject="42", headers=sent, client=address)

    async def go(agent: str, host: str) -> str:
        transport = httpx.ASGITransport(app, client=(host, 50000))
        options: dict[str, Any] = {"base_url": "https://test", "cookies": cookies, "headers": {"user-agent": agent}}
        async with httpx.AsyncClient(transport=transport, **options) as client:
            return (await client.get("/who")).text

    clients = [("browser 7", address), ("browser 8", address), ("browser 7", "198.51.100.7")]
    assert ["42", "None", "None"] == [asyncio.run(go(*client)) for client in clients]
    assert None is not read_session(manager, cookies, headers=sent, client=address)
    assert None is read_session(manager, cookies, headers=sent)
