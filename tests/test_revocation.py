"""Sessions in cookies that can be ended: what counts when, by every rule that a session lives by; and the option."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from harness import START, Browser
from revocable_site import EVERY, Instance, Jar
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from test_servermode import GRACE, HOUR, RING, scenario

from cookiesession import ConfigurationError, SessionManager, SessionMiddleware, get_session
from cookiesession.events import StoreFailed
from cookiesession.revocation import Revocation
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from starlette.requests import Request

DAY: Final = 24 * HOUR
LIFETIME: Final = 14 * DAY
TICK: Final = 1 / 1024  # seconds that a clock adds up exactly


# The option


@pytest.mark.parametrize(
    "store", [None, "redis://localhost", {}, MemoryStore], ids=["none", "a-url", "a-dict", "a-class"]
)
def test_store_is_one(store: Any) -> None:
    """A URL is for `store_from_url()`, and for the settings."""
    with pytest.raises(ConfigurationError, match="a revocation's store is a Store"):
        Revocation(store)


@pytest.mark.parametrize(
    "interval", [5, None, timedelta(seconds=-1), timedelta(days=1, seconds=1)], ids=["int", "none", "negative", "long"]
)
def test_interval_is_a_timedelta_of_a_day_at_most(interval: Any) -> None:
    """0 is one, for every request."""
    Revocation(MemoryStore(), check_every=timedelta(0))
    Revocation(MemoryStore(), check_every=timedelta(days=1))

    with pytest.raises(ConfigurationError, match="check_every is a timedelta of at most one day"):
        Revocation(MemoryStore(), check_every=interval)


@pytest.mark.parametrize("option", ["fail_open", "track"])
@pytest.mark.parametrize("value", ["no", None, 0], ids=repr)
def test_what_is_neither_true_nor_false_is_refused(option: str, value: Any) -> None:
    """A "no" from the environment would open what fails."""
    options: Any = {option: value}

    with pytest.raises(ConfigurationError, match=f"^{option} is True or False$"):
        Revocation(MemoryStore(), **options)


def test_revocation_is_for_sessions_in_cookies() -> None:
    """Those in a store end there. Overflow is no way around it, for it needs that store."""
    revocation = Revocation(MemoryStore())
    no_revocation: Any = {"revocation": MemoryStore()}

    with pytest.raises(ConfigurationError, match="end there without it"):
        SessionManager(RING, store=MemoryStore(), revocation=revocation)
    with pytest.raises(ConfigurationError, match="overflow needs a store"):
        SessionManager(RING, revocation=revocation, overflow=True)
    with pytest.raises(ConfigurationError, match="Revocation"):
        SessionManager[Any](RING, **no_revocation)


# What counts when


class Case(NamedTuple):
    """What happens to a session before its first cookie is used again."""

    idle_timeout: int | None
    elapsed: int
    """Seconds, after which it has ended by itself, or not."""
    persistent: bool
    renewed: str
    revoked: str
    store: str

    @property
    def is_expired(self) -> bool:
        """As the sealed times say."""
        return self.elapsed >= (LIFETIME if self.idle_timeout is None else self.idle_timeout)

    @property
    def opens(self) -> bool:
        """Whether the first cookie gives the session."""
        if self.is_expired or self.store == "closed":
            return False
        return self.store == "open" or (self.revoked == "no" and self.renewed != "grace over")

    @property
    def is_left_alone(self) -> bool:
        """Whether the browser keeps what it has, though it does not count: it may again, or be newer."""
        if self.opens:
            return True
        return not self.is_expired and (self.store == "closed" or self.renewed != "no")


CASES: Final = [
    Case(*case)
    for case in product(
        (None, HOUR),
        (1, HOUR - 1, HOUR, LIFETIME - 1, LIFETIME),
        (True, False),
        ("no", "in grace", "grace over"),
        ("no", "by id", "by clear", "by subject", "all"),
        ("up", "closed", "open"),
    )
]


async def revoke(instance: Instance, how: str, jar: Jar) -> None:
    """Ends what these cookies open."""
    match how:
        case "by id":
            await instance.manager.end(await instance.hash(jar))
        case "by clear":
            await instance.logout(dict(jar))
        case "by subject":
            await instance.manager.end_all("ada")
        case "all":
            await instance.manager.end_everything()


async def play(case: Case) -> tuple[Instance, Jar]:
    """Another process, and the session's first cookie, after all of it."""
    idle = None if case.idle_timeout is None else timedelta(seconds=case.idle_timeout)
    first = Instance(idle_timeout=idle, persistent=case.persistent, fail_open=case.store == "open")
    jar = await first.login("ada")
    old = dict(jar)
    first.clock.now += max(case.elapsed - (GRACE if case.renewed == "grace over" else 1), 0)
    if case.renewed != "no":
        await first.renew(jar)
    first.clock.now += min(case.elapsed, 1)
    await revoke(first, case.revoked, jar)
    first.clock.now = START + case.elapsed
    other = first.another()
    other.store.failing = set() if case.store == "up" else {"load", "create", "replace"}
    return other, old


def test_table_of_all_that_a_session_lives_by() -> None:
    """Cases F70, F71 and F76: idle, absolute, persistent, renewed, revoked, and with the store down."""
    wrong = []
    for case in CASES:
        if case.renewed == "grace over" and case.elapsed < GRACE:
            continue  # not yet
        other, old = asyncio.run(play(case))
        jar = dict(old)

        session = asyncio.run(other.open(jar))
        opens = session.data.get("user") == "ada"
        asyncio.run(other.save(session, jar))

        failed = len(other.of(StoreFailed)) if not case.is_expired and case.store != "up" else 1
        if (opens, bool(jar), bool(failed)) != (case.opens, case.is_left_alone, True):
            wrong.append((case, opens, bool(jar), failed))

    assert [] == wrong


# Through the middleware


async def show(request: Request) -> Response:
    """Whose session it is."""
    return Response(request.session.get("user", "nobody"))


async def login(request: Request) -> Response:
    """Begins one."""
    get_session(request).renew()
    request.session["user"] = "ada"
    return Response()


async def logout(request: Request) -> Response:
    """Ends it."""
    get_session(request).clear()
    return Response()


async def health(request: Request) -> Response:
    """Looks at no session."""
    return Response()


def browser_of(instance: Instance, *, lazy: bool = False) -> Browser:
    """A browser before an application of this process."""
    routes = [Route("/", show), Route("/login", login), Route("/logout", logout), Route("/health", health)]
    middleware = [Middleware(SessionMiddleware, manager=instance.manager, lazy=lazy)]
    return Browser(Starlette(routes=routes, middleware=middleware))


def test_application_sees_no_ended_session() -> None:
    """Cases F70 and F71: by the old cookie after the login, and by a copy after the logout."""
    instance = Instance(check_every=0)
    browser = browser_of(instance)
    first = browser.request(path="/login")
    fixed = dict(browser.jar)
    browser.request(path="/login")
    copy = dict(browser.jar)
    before = browser.request()
    instance.clock.now += GRACE
    browser.jar = dict(fixed)
    after_login = browser.request()
    browser.jar = dict(copy)
    browser.request(path="/logout")
    browser.jar = dict(copy)

    after_logout = browser.request()

    assert 1 == len(first.set_cookies)
    assert (b"ada", b"nobody", b"nobody") == (before.body, after_login.body, after_logout.body)
    assert [] == after_login.set_cookies


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "open"])
def test_application_goes_on_or_refuses_when_the_store_is_down(fail_open: bool) -> None:
    """Cases F71 and G80: nobody is signed in where it is closed, and each session counts where it is open."""
    instance = Instance(check_every=0, fail_open=fail_open)
    browser = browser_of(instance)
    browser.request(path="/login")
    jar = dict(browser.jar)
    instance.store.failing = {"load", "create", "replace", "delete"}

    shown = browser.request()
    kept = dict(browser.jar)
    anonymous = browser_of(instance).request(path="/login")
    left = browser.request(path="/logout")
    instance.store.failing = set()
    browser.jar = dict(jar)

    assert (b"ada" if fail_open else b"nobody", 200) == (shown.body, shown.status)
    assert jar == kept
    assert (200, 200) == (anonymous.status, left.status)
    assert b"Max-Age=0" in left.set_cookies[0]
    assert b"ada" == browser.request().body


def test_response_whose_session_cannot_be_ended_is_a_503() -> None:
    """The store went down after the request had begun: the cookie stays, and the next logout counts."""
    instance = Instance()
    browser = browser_of(instance)
    browser.request(path="/login")
    browser.request()  # the answer of the store is known for a while
    jar = dict(browser.jar)
    instance.store.failing = {"load", "create"}

    replies = [browser.request(path=path) for path in ("/logout", "/login")]
    kept = dict(browser.jar)
    instance.store.failing = set()
    again = browser.request(path="/logout")
    browser.jar = dict(jar)

    assert [503, 503] == [reply.status for reply in replies]
    assert [[], []] == [reply.set_cookies for reply in replies]
    assert (jar, 200) == (kept, again.status)
    assert b"nobody" == browser.request().body


def test_lazy_application_asks_only_where_it_loads() -> None:
    """A route without a session costs no call, and one that forgets to load says so."""
    instance = Instance()
    browser = browser_of(instance, lazy=True)
    browser.jar = asyncio.run(instance.login("ada"))

    browser.request(path="/health")

    assert [] == instance.calls()
    with pytest.raises(RuntimeError, match="load_session"):
        browser.request()


# The worst delay


@pytest.mark.parametrize("end", ["by id", "by clear", "by subject", "all"])
@pytest.mark.parametrize("check_every", [0, 0.5, EVERY, DAY], ids=["none", "500ms", "5s", "a-day"])
@scenario
async def test_other_processes_notice_within_the_interval(check_every: float, end: str) -> None:
    """Whatever is ended after they have asked; and not before they have to ask again."""
    here = Instance(check_every=0)
    there = here.another(check_every=check_every)
    jar = await here.login("ada")
    here.clock.now += TICK
    asked = here.clock.now
    seen = [await there.read(jar)]
    here.clock.now += check_every / 4
    await revoke(here, end, jar)

    here.clock.now = max(asked + check_every - TICK, asked)
    seen.append(await there.read(jar))
    here.clock.now = asked + check_every
    seen.append(await there.read(jar))

    assert {} == await here.read(jar)
    assert [{"user": "ada"}, {"user": "ada"} if check_every else {}, {}] == seen
