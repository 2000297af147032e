"""Tests of `sealedcookies.py`: cookies that open for one client alone, in every mode."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from harness import START, Browser, exchange, handler
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from two_modes import MODES, NAME, RING, Site, put, together

from cookiesession import Cookie, Key, KeyRing, SessionManager, SessionMiddleware, envelope, get_session
from cookiesession.events import LOG_INTERVAL, Event, Opened, Rejected, Resealed, Sealed
from cookiesession.fastapi import SessionDep  # noqa: TC001  FastAPI reads it
from cookiesession.guards import client_network, header, user_agent
from cookiesession.payload import PERSISTENT, Payload, pack
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY, OLD = Key.generate(), Key.generate()
ADA, EVE = [(b"user-agent", b"Ada's browser")], [(b"user-agent", b"Eve's browser")]
HOUR = timedelta(hours=1)
IDLE = timedelta(minutes=10)

in_each_mode = pytest.mark.parametrize("mode", MODES)


class Failing:
    """A guard that raises while it is told to, words and all."""

    def __init__(self) -> None:
        self.raises = True
        self.calls = 0

    def __call__(self, connection: HTTPConnection) -> bytes:
        self.calls += 1
        if self.raises:
            raise LookupError(connection.headers["user-agent"])
        return b"known"


def _bound(mode: str, **options: Any) -> Site:
    """A site where Ada has a session."""
    site = Site(mode, bind=user_agent, **options)
    site.visit(put(a=1), headers=ADA)
    site.events.clear()
    site.store.calls.clear()
    return site


# The same client, and another


@in_each_mode
def test_a_bound_session_opens_for_its_client_alone(mode: str) -> None:
    """For another it is a fresh one, with one event; the client is told nothing but to forget the cookie."""
    ada = _bound(mode)
    eve = ada.another(bind=user_agent)

    stolen, own = eve.visit(headers=EVE), ada.visit(headers=ADA)

    assert ({}, True, False) == (stolen.data, stolen.session.is_new, stolen.session.has_expired)
    assert [Rejected(reason="bound")] == eve.events
    assert {} == eve.jar
    assert ({"a": 1}, []) == (own.data, own.lines)


@in_each_mode
def test_a_stolen_cookie_never_reaches_the_store(mode: str) -> None:
    """Whatever the thief does with it: what is stored then is a session of their own."""
    ada = _bound(mode)
    eve = ada.another(bind=user_agent)

    eve.visit(headers=EVE)
    read = list(ada.store.calls)
    eve.jar = dict(ada.jar)
    eve.visit(lambda session: session.clear(), headers=EVE)
    cleared = list(ada.store.calls)
    eve.jar = dict(ada.jar)
    eve.visit(put(a="eve's"), headers=EVE)

    assert ([], []) == (read, cleared)
    assert (["create"] if mode == "store" else []) == ada.store.calls
    assert {"a": 1} == ada.visit(headers=ADA).data
    assert {"a": "eve's"} == eve.visit(headers=EVE).data


@in_each_mode
def test_a_thief_renews_nothing(mode: str) -> None:
    """The id and the subject stay the owner's."""
    ada = Site(mode, bind=user_agent)
    ada.visit(lambda session: setattr(session, "subject", "ada"), headers=ADA)
    eve = ada.another(bind=user_agent)

    stolen = eve.visit(lambda session: session.renew(), headers=EVE).session

    own = ada.visit(headers=ADA).session
    assert "ada" == own.subject
    assert None is stolen.subject
    assert own.id != stolen.id


@pytest.mark.parametrize("algorithm", ["xaes-256-gcm", "aes-256-gcm", "fernet"])
@in_each_mode
def test_every_algorithm_binds(mode: str, algorithm: Any) -> None:
    """Fernet has no associated data, and the hash is inside."""
    keys = KeyRing(Key.generate(algorithm))
    ada = Site(mode, keys, bind=user_agent)
    ada.visit(put(a=1), headers=ADA)
    eve = ada.another(keys, bind=user_agent)

    assert ({"a": 1}, {}) == (ada.visit(headers=ADA).data, eve.visit(headers=EVE).data)


@in_each_mode
def test_a_session_of_several_cookies_is_bound(mode: str) -> None:
    """By whatever all of them hold together."""
    ada = Site(mode, bind=user_agent)
    ada.visit(put(text="x" * 5000), headers=ADA)
    eve = ada.another(bind=user_agent)

    assert (1 if mode == "store" else 2) == len(ada.jar)
    assert {} == eve.visit(headers=EVE).data
    assert {} == eve.jar
    assert {"text": "x" * 5000} == ada.visit(headers=ADA).data


def test_a_bound_ticket_is_written_once() -> None:
    """In the store a session changes, and what the browser has of it does not."""
    ada = _bound("store")

    changed, kept = (ada.visit(act, headers=ADA) for act in (put(a=2), lambda s: setattr(s, "persistent", False)))

    assert [] == changed.lines
    assert 1 == len(kept.lines)
    assert b"Max-Age" not in kept.lines[0]
    assert ["load", "replace"] * 2 == ada.store.calls


@in_each_mode
def test_renewal_and_a_new_session_stay_the_clients(mode: str) -> None:
    """As does one that was made after a logout in the same request."""
    ada = _bound(mode)

    for act in (lambda session: session.renew(), together([lambda session: session.clear(), put(a=1)])):
        ada.visit(act, headers=ADA)
        eve = ada.another(bind=user_agent)

        assert {} == eve.visit(headers=EVE).data
        assert {"a": 1} == ada.visit(headers=ADA).data


@in_each_mode
def test_a_rotation_keeps_a_session_bound(mode: str) -> None:
    """Sealed again under another key, for the same client."""
    ada = Site(mode, KeyRing(OLD), bind=user_agent)
    ada.visit(put(a=1), headers=ADA)
    rotated = ada.another(KeyRing(KEY, OLD), bind=user_agent)

    assert {"a": 1} == rotated.visit(headers=ADA).data
    assert [OLD.id] == [event.old_key_id for event in rotated.of(Resealed)]
    assert {} == rotated.another(KeyRing(KEY), bind=user_agent).visit(headers=EVE).data
    assert {"a": 1} == rotated.another(KeyRing(KEY), bind=user_agent).visit(headers=ADA).data


def test_another_clients_cookie_before_ours_is_passed_over() -> None:
    """Of several cookies of our name, the first that opens for this client wins."""
    ada, eve = _bound("cookie"), Site("cookie", bind=user_agent)
    eve.visit(put(a="eve's"), headers=EVE)
    both = [(b"cookie", b"%s=%s" % (NAME, site.jar[NAME])) for site in (eve, ada)]
    ada.jar.clear()

    seen = ada.visit(headers=[*ADA, *both])

    assert {"a": 1} == seen.data
    assert [Rejected(reason="bound")] == ada.of(Rejected)


@in_each_mode
def test_several_guards_all_have_to_agree(mode: str) -> None:
    """One that sees another client is enough."""
    bind = (user_agent, header("x-device"))
    device, other = [(b"x-device", b"7")], [(b"x-device", b"8")]
    site = Site(mode, bind=bind)
    site.visit(put(a=1), headers=[*ADA, *device])

    seen = [
        site.another(bind=bind).visit(headers=headers).data
        for headers in ([*ADA, *device], [*device, *ADA], [*EVE, *device], [*ADA, *other], ADA)
    ]

    assert [{"a": 1}, {"a": 1}, {}, {}, {}] == seen


@pytest.mark.parametrize("bind", [header("x-device"), (user_agent, header("x-device")), (client_network(),)])
@in_each_mode
def test_other_guards_end_what_was_bound_before(mode: str, bind: Any) -> None:
    """One more, one less or another order is another hash: a change of `bind` signs everybody out."""
    site = _bound(mode)

    assert {} == site.another(bind=bind).visit(headers=ADA).data


# Before there was a guard, and after


@in_each_mode
def test_a_session_from_before_is_bound_to_the_first_client_that_uses_it(mode: str) -> None:
    """It opens, is sealed again with that response, and then is that client's alone."""
    before = Site(mode)
    before.visit(put(a=1))
    first = before.another(bind=user_agent)

    opened, again = first.visit(headers=ADA), first.visit(headers=ADA)

    key = RING.primary.id
    assert ({"a": 1}, 1, []) == (opened.data, len(opened.lines), again.lines)
    assert [Opened, Resealed, Opened] == [type(event) for event in first.of(Opened, Resealed, Sealed, Rejected)]
    assert [(key, key)] == [(event.key_id, event.old_key_id) for event in first.of(Resealed)]
    assert {} == first.another(bind=user_agent).visit(headers=EVE).data
    assert {"a": 1} == first.visit(headers=ADA).data


@in_each_mode
def test_a_session_from_before_that_nobody_touches_stays_unbound(mode: str) -> None:
    """Nothing is written for a request that does not look at its session."""
    before = Site(mode)
    before.visit(put(a=1))
    first = before.another(bind=user_agent)

    answer = first.respond(first.request(ADA))

    assert [] == answer
    assert {"a": 1} == first.another(bind=user_agent).visit(headers=EVE).data


@in_each_mode
def test_binding_extends_nothing(mode: str) -> None:
    """Neither the lifetime nor the idle timeout, and the browser's expiry is what is left."""
    before = Site(mode, lifetime=HOUR, idle_timeout=IDLE)
    before.visit(put(a=1))
    first = before.another(lifetime=9 * HOUR, idle_timeout=9 * IDLE, bind=user_agent)
    first.clock.now += 300

    [line] = first.visit(headers=ADA).lines

    later = first.visit(headers=ADA).session
    assert (START, START + 3600) == (later.created_at.timestamp(), later.expires_at.timestamp())
    assert line.endswith(b"; Max-Age=3300" if mode == "store" else b"; Max-Age=300")
    first.clock.now = START + 599
    assert {"a": 1} == first.request(ADA).data
    first.clock.now = START + 600
    assert {} == first.request(ADA).data


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "store"])
def test_a_guard_that_comes_back_finds_its_sessions_bound(mode: str) -> None:
    """An instance without it opens what it is given, and leaves in the cookie whose it was."""
    bound = _bound(mode)
    without = bound.another()
    without.visit(put(b=2))

    back = without.another(bind=user_agent)

    assert {} == back.another(bind=user_agent).visit(headers=EVE).data
    assert {"a": 1, "b": 2} == back.visit(headers=ADA).data


# Guards that fail


@in_each_mode
def test_a_guard_that_raises_gives_a_fresh_session(mode: str) -> None:
    """Neither an error nor a way around it, and the store hears nothing."""
    guard = Failing()
    guard.raises = False
    site = Site(mode, bind=guard)
    site.visit(put(a=1), headers=ADA)
    site.store.calls.clear()
    guard.raises = True

    seen = site.visit(headers=ADA)

    assert ({}, True) == (seen.data, seen.session.is_new)
    assert [Rejected(reason="bound")] == site.of(Rejected)
    assert [] == site.store.calls


def test_a_guard_that_raises_is_logged_without_values_and_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A client may be what makes it raise, and ten thousand times."""
    guard = Failing()
    guard.raises = False
    site = Site("cookie", bind=guard)
    site.visit(put(a=1), headers=ADA)
    guard.raises = True
    jar = dict(site.jar)
    caplog.set_level(logging.ERROR, "cookiesession")

    for seconds in [0] * 100 + [LOG_INTERVAL]:
        site.clock.now += seconds
        site.jar = dict(jar)
        site.visit(headers=ADA)

    assert [
        "a guard of bind raised LookupError",
        "a guard of bind raised LookupError (and 99 more since the last such record)",
    ] == caplog.messages
    assert not any(record.exc_info for record in caplog.records)
    assert "Ada" not in caplog.text


@in_each_mode
def test_a_guard_that_raises_at_save_leaves_all_as_it_was(mode: str) -> None:
    """A session begins for somebody whom the guard can name, or not at all: no record without a cookie."""
    site = Site(mode, bind=Failing())
    session = site.request(ADA)
    session.data["a"], session.subject = 1, "ada"

    with pytest.raises(LookupError):
        site.respond(session)

    assert [] == site.store.calls
    assert {} == site.jar


@in_each_mode
def test_a_guard_that_raises_leaves_a_session_from_before_as_it_was(mode: str) -> None:
    """Neither changed nor renewed, in the store as in the browser."""
    before = Site(mode)
    before.visit(put(a=1))
    site = before.another(bind=Failing())
    session = site.request(ADA)
    session.renew()
    session.data["a"] = 2
    site.store.calls.clear()

    with pytest.raises(LookupError):
        site.respond(session)

    assert {"load"} >= set(site.store.calls)
    assert {"a": 1} == before.visit().data


@pytest.mark.parametrize("store", [False, True], ids=["cookie", "store"])
def test_a_guard_that_raises_makes_a_new_session_a_500(*, store: bool) -> None:
    """Before anything is sent; a logout and a look need no guard."""
    options: dict[str, Any] = {"store": MemoryStore()} if store else {}
    inner = handler(lambda scope: scope["session"].update(a=1) if scope["path"] == "/" else scope["session"].clear())
    app = SessionMiddleware(inner, keys=RING, bind=Failing(), **options)

    with pytest.raises(LookupError):
        exchange(app, ADA)

    assert 200 == exchange(app, ADA, path="/logout").status


# When guards are asked


class Counting:
    """A guard that counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, connection: HTTPConnection) -> bytes:
        self.calls += 1
        return connection.headers["user-agent"].encode()


@in_each_mode
def test_a_guard_is_asked_once_a_request_and_only_if_it_matters(mode: str) -> None:
    """Not where the session is left alone, nor where there is none to open or to write."""
    guard = Counting()
    site = Site(mode, bind=guard)
    asked = {}

    def count(name: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        asked[name] = guard.calls
        guard.calls = 0

    count("nothing", site.respond(site.request(ADA)))
    count("look", site.visit(headers=ADA).headers)
    count("begin", site.visit(put(a=1), headers=ADA).headers)
    count("change", site.visit(put(a=2), headers=ADA).headers)
    site.respond(site.manager.session([*ADA, (b"cookie", b"%s=%s" % (NAME, site.jar[NAME]))]))
    count("untouched", [])
    count("end", site.visit(lambda session: session.clear(), headers=ADA).headers)

    assert {"nothing": 0, "look": 0, "begin": 1, "change": 1, "untouched": 0, "end": 1} == asked


@in_each_mode
def test_headers_that_can_be_read_once_are_read_by_cookies_and_guards(mode: str) -> None:
    """The headers of a request are any iterable."""
    site = _bound(mode)
    cookie = (b"cookie", b"%s=%s" % (NAME, site.jar[NAME]))

    def read(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        session = site.manager.session(iter([cookie, *headers]))
        asyncio.run(site.manager.load(session))
        return dict(session.data)

    assert ({"a": 1}, {}) == (read(ADA), read(EVE))


@in_each_mode
def test_a_scope_tells_guards_where_a_client_is(mode: str) -> None:
    """What headers do not show."""
    home, away = ({"type": "http", "headers": [], "client": (host, 1)} for host in ("192.0.2.1", "198.51.100.1"))
    site = Site(mode, bind=client_network())
    site.visit(put(a=1), scope=home)

    seen = [site.another(bind=client_network()).visit(scope=scope).data for scope in (home, away, None)]

    assert [{"a": 1}, {}, {}] == seen


# In applications


@pytest.mark.parametrize("store", [False, True], ids=["cookie", "store"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_every_kind_of_connection_is_asked(kind: str, *, store: bool) -> None:
    """A session that a page began opens for a websocket of the same client, and for no other's."""
    seen: list[Any] = []
    options: dict[str, Any] = {"store": MemoryStore()} if store else {}

    def handle(scope: Any) -> None:
        seen.append(scope["session"].get("user"))
        scope["session"]["user"] = "ada"

    browser = Browser(SessionMiddleware(handler(handle), keys=RING, bind=(user_agent, client_network()), **options))
    for headers in (ADA, ADA, EVE):
        browser.request(headers=headers, kind=kind)

    assert [None, "ada", None] == seen


def _sync(request: Request) -> Response:
    return PlainTextResponse(str(request.session.get("user")))


def test_a_sync_handlers_session_is_bound() -> None:
    """The guard runs in its thread."""
    api = FastAPI()

    @api.get("/")
    def look(session: SessionDep[dict[str, Any]]) -> str:
        return str(session.data.get("user"))

    manager = SessionManager(RING, bind=user_agent)
    plain = Starlette(routes=[Route("/", _sync)], middleware=[Middleware(SessionMiddleware, manager)])
    api.add_middleware(SessionMiddleware, manager)
    session = manager.session(ADA)
    session.data["user"] = "ada"
    [(_, line)] = asyncio.run(manager.save(session))

    def get(app: Any, agent: str) -> str:
        async def go() -> str:
            headers = {"user-agent": agent, "cookie": line.decode().partition(";")[0]}
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
                return (await client.get("/", headers=headers)).text

        return asyncio.run(go())

    assert [("ada", '"ada"'), ("None", '"None"')] == [
        (get(plain, agent), get(api, agent)) for agent in ("Ada's browser", "Eve's browser")
    ]


def test_two_middlewares_have_their_own_guards() -> None:
    """One session may be bound while the other goes wherever it is taken."""
    seen: list[tuple[Any, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        both = [get_session(request, name).data for name in ("session", "admin")]
        seen.append((both[0].get("n"), both[1].get("n")))
        for data in both:
            data["n"] = 1
        await Response()(scope, receive, send)

    inner = SessionMiddleware(app, keys=RING, cookie=Cookie(name="admin"), scope_key="admin", bind=user_agent)
    browser = Browser(SessionMiddleware(inner, keys=RING))

    for headers in (ADA, ADA, EVE):
        browser.request(headers=headers)

    assert [(None, None), (1, 1), (1, None)] == seen


# Sizes


def test_what_is_said_to_fit_is_written() -> None:
    """Case D55 with guards: compressed lengths depend on the hash, and no session is refused after it was let in."""
    site = Site("overflow", bind=user_agent, compress=True)
    noise = random.Random(7)  # noqa: S311 - the same in every run
    text = "".join(noise.choices("abcdefghijklmnopqrstuvwxyz0123456789ABCDEF", k=9000))
    edge = _largest(site, text)

    for length in range(edge - 40, edge + 40):
        for number in range(6):
            agent = [(b"user-agent", b"browser %d" % number)]
            visitor = site.another(bind=user_agent, compress=True)
            visitor.visit(put(text=text[:length]), headers=agent)
            assert {"text": text[:length]} == visitor.visit(headers=agent).data


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compress"])
def test_a_bound_session_that_flows_over_stays_bound(*, compress: bool) -> None:
    """What is too large for cookies is in the store, and its ticket as good as its cookie was; and back again."""
    options: dict[str, Any] = {"bind": user_agent, "compress": compress}
    ada = Site("overflow", **options)

    for size in (10, 300_000, 10):
        text = random.Random(size).randbytes(size // 2).hex()  # noqa: S311 - the same in every run
        ada.visit(put(text=text), headers=ADA)
        ada.store.calls.clear()
        eve = ada.another(**options)

        assert {} == eve.visit(headers=EVE).data
        assert [] == ada.store.calls
        assert {"text": text} == ada.visit(headers=ADA).data


def _largest(site: Site, text: str) -> int:
    """The length of the longest text that goes into cookies, by halves."""
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        visitor = site.another(bind=user_agent, compress=True)
        visitor.visit(put(text=text[:middle]), headers=ADA)
        low, high = (middle, high) if not visitor.store.calls else (low, middle)
        visitor.store.calls.clear()
    return low


# Saved more than once


@pytest.mark.parametrize("bind", [(), user_agent], ids=["for-all", "bound"])
@in_each_mode
def test_a_request_may_save_twice(mode: str, bind: Any) -> None:
    """The second answer goes by what the browser has after the first: no stale chunk, and no needless line."""
    site = Site(mode, bind=bind)
    session = site.request(ADA)
    session.data["text"] = "x" * 5000
    first = site.respond(session)
    session.data["text"] = "short"

    second = site.respond(session)

    lines = {"store": (1, 0)}.get(mode, (2, 2))
    assert lines == (len(first), len(second))
    assert {NAME} == set(site.jar)
    assert {"text": "short"} == site.visit(headers=ADA).data


@in_each_mode
def test_what_was_sealed_again_is_not_sealed_again(mode: str) -> None:
    """By the same request, whose first answer the browser has."""
    site = Site(mode, KeyRing(OLD))
    site.visit(put(a=1))
    rotated = site.another(KeyRing(KEY, OLD))
    session = rotated.request()
    session.mark_accessed()
    first = rotated.respond(session)
    session.subject = "ada"

    second = rotated.respond(session)

    assert (1, 0 if mode == "store" else 1) == (len(first), len(second))
    assert [OLD.id] == [event.old_key_id for event in rotated.of(Resealed)]
    assert "ada" == rotated.request().subject


@in_each_mode
def test_what_was_deleted_is_not_deleted_again(mode: str) -> None:
    """By the same request."""
    site = _bound(mode)
    session = site.request(ADA)
    answers = []
    for _ in range(2):
        session.clear()
        answers.append(len(site.respond(session)))

    assert [1, 0] == answers
    assert {} == site.jar


# As many cookies as there may be, and fewer


@pytest.mark.parametrize("count", range(1, 10))
def test_a_session_of_any_number_of_cookies_is_written_and_read(count: int) -> None:
    """Twice: what is remembered opens as well."""
    site = Site("cookie", cookie=Cookie(max_chunks=9))
    text = "x" * (2780 * count - 1000)
    site.visit(put(a=text))

    for _ in range(2):
        assert {"a": text} == site.visit().data
    assert count == len(site.jar)


@pytest.mark.parametrize("stray", [1, 8])
def test_a_chunk_of_no_session_is_deleted_by_what_is_written(stray: int) -> None:
    """Though as many cookies are written as came."""
    site = Site("cookie")
    site.jar[b"%s.%d" % (NAME, stray)] = b"x"

    site.visit(put(a=1))

    assert [NAME] == list(site.jar)


# Expired beside live


def test_a_session_beside_an_expired_one_has_not_expired() -> None:
    """Nor has what takes its place once it is cleared."""
    site = Site("cookie", lifetime=HOUR)
    site.visit(put(a="old"))
    old = site.jar.pop(NAME)
    site.clock.now += 3600
    site.visit(put(a="new"))
    cookie = b"%s=%s; %s=%s" % (NAME, old, NAME, site.jar.pop(NAME))

    session = site.request([(b"cookie", cookie)])
    opened = dict(session.data), session.has_expired
    session.clear()

    assert ({"a": "new"}, False) == opened
    assert session.is_new
    assert not session.has_expired


@pytest.mark.parametrize(
    "header", [b"%(name)b=%(old)b; %(name)b=none", b"%(name)b=none; %(name)b=%(old)b"], ids=["before", "after"]
)
def test_what_expired_has_expired_whatever_else_is_no_session(header: bytes) -> None:
    """A visitor is told so, though somebody has set another cookie of the name."""
    site = Site("cookie", lifetime=HOUR)
    site.visit(put(a="old"))
    old = site.jar.pop(NAME)
    site.clock.now += 3600

    session = site.request([(b"cookie", header % {b"name": NAME, b"old": old})])

    assert session.has_expired


# Anything at all


def _sealed(bound: bytes | None) -> bytes:
    payload = Payload(
        PERSISTENT, START, START, START + 3600, 0, bytes(16), None, msgspec.msgpack.encode({"a": 1}), bound=bound
    )
    return envelope.seal(pack(payload), RING.primary, envelope.bind("cookie", NAME), now=START)


@given(
    bound=st.none() | st.binary(max_size=40),
    headers=st.lists(st.tuples(st.sampled_from([b"user-agent", b"x"]) | st.binary(), st.binary()), max_size=4),
)
def test_any_hash_and_any_headers_give_a_session(bound: bytes | None, headers: list[tuple[bytes, bytes]]) -> None:
    """The sealed one, or a fresh one; never an error."""
    events: list[Event] = []
    manager = SessionManager(RING, bind=(user_agent, header("x")), on_event=events.append, clock=lambda: START)
    guards = manager.configuration.guards
    sent = [*headers, (b"cookie", b"%s=%s" % (NAME, _sealed(bound)))]

    session = manager.session(sent)

    assert guards is not None
    lives = bound is None or bound == guards.hash(None, sent)
    assert ({"a": 1} if lives else {}) == session.data
    assert lives == (Rejected(reason="bound") not in events)
    assert 1 == len(asyncio.run(manager.save(session))) or bound is not None
