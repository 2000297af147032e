"""`session.clear(site_data=True)`: the browser is asked to forget the site, once, and only where the session ends."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

import pytest
from harness import Browser, Clock, Reply, exchange, handler
from msgspec import Struct
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from two_modes import MODES, RING, Books, Site, put

from cookiesession import SessionManager, SessionMiddleware, StoreUnavailable, get_session
from cookiesession.events import LateWrite
from cookiesession.revocation import Revocation
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cookiesession import Session

HEADER: Final = (b"clear-site-data", b'"cache", "cookies", "storage"')
EVERYTHING: Final = HEADER[1]

in_each_mode = pytest.mark.parametrize("mode", MODES)


def _forget(session: Session[Any]) -> None:
    session.clear(site_data=True)


def _options(mode: str) -> dict[str, Any]:
    store = MemoryStore()
    if mode == "revocable":
        return {"revocation": Revocation(store)}
    return {} if mode == "cookie" else {"store": store, "overflow": mode == "overflow"}


def _app(mode: str, *, status: int = 200, headers: Any = (), events: list[Any] | None = None) -> ASGIApp:
    """Signs in at /, and forgets the site at /logout, with any status."""

    def act(scope: Any) -> None:
        session = get_session(HTTPConnection(scope))
        if scope["path"] == "/logout":
            session.clear(site_data=True)
        else:
            session.data["user"] = "ada"

    inner = {path: handler(act, status=code, headers=headers) for path, code in (("/", 200), ("/logout", status))}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner[scope["path"]](scope, receive, send)

    on_event = None if events is None else events.append
    return SessionMiddleware(app, keys=RING, on_event=on_event, **_options(mode))


def _asked(reply: Reply) -> list[bytes]:
    return reply.values(b"clear-site-data")


@in_each_mode
def test_a_browser_is_asked_to_forget_the_site(mode: str) -> None:
    """One header beside the deletion of our cookie, which is there for browsers that do not know it."""
    site = Site(mode)
    site.visit(put(a=1))

    visit = site.visit(_forget)

    assert HEADER == visit.headers[-1]
    assert [b"clear-site-data"] == [name for name, _ in visit.headers if name != b"set-cookie"]
    assert [True] == [b"; Max-Age=0" in line for line in visit.lines]
    assert ({}, {}) == (site.jar, site.request().data)


@in_each_mode
def test_nobody_is_asked_unless_told_so(mode: str) -> None:
    """A logout ends one session, and the rest of the site stays."""
    site = Site(mode)
    seen = [site.visit(act).headers for act in (put(a=1), put(a=2), lambda s: s.renew(), lambda s: s.clear())]

    assert b"clear-site-data" not in dict(itertools.chain(*seen))


@in_each_mode
def test_who_has_no_session_is_asked_too(mode: str) -> None:
    """There may be more of the site than a session."""
    visit = Site(mode).visit(_forget)

    assert [HEADER] == visit.headers


@in_each_mode
def test_two_calls_are_one_header(mode: str) -> None:
    """In either order with a plain `clear()`, which takes nothing back."""
    for acts in ((_forget, _forget), (_forget, lambda s: s.clear()), (lambda s: s.clear(), _forget)):
        site = Site(mode)
        site.visit(put(a=1))
        session = site.request()
        for act in acts:
            act(session)

        assert 1 == site.respond(session).count(HEADER)
        assert [] == site.respond(session)


@in_each_mode
def test_the_next_request_is_not_asked_again(mode: str) -> None:
    """It was about one response."""
    site = Site(mode)
    site.visit(put(a=1))
    site.visit(_forget)

    assert b"clear-site-data" not in dict(site.visit(put(b=2)).headers)


@in_each_mode
def test_a_session_with_a_model_is_forgotten_too(mode: str) -> None:
    """It has a default in its place."""

    class Visitor(Struct):
        user: str = ""

    site = Site(mode, model=Visitor)
    session = site.request()
    session.data.user = "ada"
    site.respond(session)
    session = site.request()

    _forget(session)

    assert HEADER == site.respond(session)[-1]
    assert "" == site.request().data.user


# In applications


@in_each_mode
def test_a_logout_is_answered_with_the_header_and_never_cached(mode: str) -> None:
    """Also where no cookie came. That is no late write."""
    for signed_in in (True, False):
        events: list[Any] = []
        browser = Browser(_app(mode, events=events))
        if signed_in:
            browser.request()

        reply = browser.request(path="/logout")

        assert [EVERYTHING] == _asked(reply)
        assert [b"no-store"] == reply.values(b"cache-control")
        assert [b"Cookie"] == reply.values(b"vary")
        assert {} == browser.jar
        assert LateWrite() not in events


@pytest.mark.parametrize("status", [204, 303, 404, 499])
@in_each_mode
def test_every_answer_below_500_asks(mode: str, status: int) -> None:
    """A redirect to the page for signing in, above all."""
    browser = Browser(_app(mode, status=status))
    browser.request()

    assert [EVERYTHING] == _asked(browser.request(path="/logout"))


@pytest.mark.parametrize("status", [500, 503, 599])
@in_each_mode
def test_a_server_error_asks_for_nothing(mode: str, status: int) -> None:
    """The session lives, and so does the rest."""
    browser = Browser(_app(mode, status=status))
    browser.request()
    jar = dict(browser.jar)

    reply = browser.request(path="/logout")

    assert ([], []) == (_asked(reply), reply.set_cookies)
    assert jar == browser.jar


@in_each_mode
def test_a_websocket_asks_with_its_accept(mode: str) -> None:
    """Where the cookies ride, too."""
    browser = Browser(_app(mode))
    browser.request()

    reply = browser.request(path="/logout", kind="websocket")

    assert [EVERYTHING] == _asked(reply)
    assert [b"clear-site-data"] == [
        name for message in reply.messages if message["type"] == "websocket.accept" for name, _ in message["headers"]
    ][-1:]


@in_each_mode
def test_the_applications_own_header_stays(mode: str) -> None:
    """A browser takes both."""
    browser = Browser(_app(mode, headers=[(b"clear-site-data", b'"executionContexts"')]))

    assert [b'"executionContexts"', EVERYTHING] == _asked(browser.request(path="/logout"))


class _Down(Books):
    """A store that is there, until it is not."""

    is_down = False

    async def load(self, key: bytes) -> Any:
        if self.is_down:
            raise StoreUnavailable("away")
        return await super().load(key)


@pytest.mark.parametrize(
    ("mode", "options"), [("store", {"on_store_error": "anonymous"}), ("revocable", {})], ids=["store", "revocable"]
)
def test_a_logout_without_a_store_that_answers_asks_all_the_same(mode: str, options: dict[str, Any]) -> None:
    """What the browser has is its own affair, where the application goes on without."""
    clock = Clock()
    store = _Down(clock)
    site = Site(mode, clock=clock, store=store, **options)
    site.visit(put(a=1))
    clock.now += 60  # what is known of endings is asked for again
    store.is_down = True

    visit = site.visit(_forget)

    assert {} == visit.data
    assert [False, True] == [header == HEADER for header in visit.headers]
    assert {} == site.jar


@pytest.mark.parametrize("brought", [True, False], ids=["session", "none"])
@in_each_mode
def test_a_logout_after_the_response_has_started_is_reported(mode: str, *, brought: bool) -> None:
    """The browser cannot be asked any more: never dropped in silence."""
    events: list[Any] = []
    manager = SessionManager(RING, on_event=events.append, **_options(mode))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(Request(scope))
        if scope["path"] == "/":
            session.data["user"] = "ada"
        session.mark_accessed()
        await Response()(scope, receive, send)
        if scope["path"] == "/late":
            session.clear(site_data=True)

    browser = Browser(SessionMiddleware(app, manager))
    if brought:
        browser.request()

    reply = browser.request(path="/late")

    assert [] == _asked(reply)
    assert [LateWrite()] == [event for event in events if isinstance(event, LateWrite)]


def test_a_manager_without_asgi_gives_the_header_with_the_others() -> None:
    """For whoever writes them into a response of another framework."""
    session = SessionManager(RING).session([])
    session.clear(site_data=True)

    assert [HEADER] == asyncio.run(SessionManager(RING).save(session))


def test_a_request_with_nothing_to_forget_costs_no_header() -> None:
    """As any other."""
    assert [] == _asked(exchange(SessionMiddleware(handler(lambda scope: scope["session"].get("a")), keys=RING), []))
