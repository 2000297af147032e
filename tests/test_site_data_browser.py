"""`Clear-Site-Data` in a real Chromium, over TLS: what a logout leaves of the site, and what a failed one does."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import sync_playwright
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cookiesession import Key, KeyRing, SessionMiddleware, get_session
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from starlette.requests import Request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COOKIE = "__Host-session"
START = 30  # seconds that the server may take until it answers
WAIT = 30_000  # milliseconds, for one thing to happen
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason="no chromium, chromium-browser or google-chrome on the PATH (Debian: apt install chromium)",
    ),
]


async def _login(request: Request) -> Response:
    request.session["user"] = "ada"
    response = HTMLResponse("<title>signed in</title>")
    response.set_cookie("theme", "dark", secure=True)
    return response


async def _logout(request: Request) -> Response:
    get_session(request).clear(site_data=True)
    return HTMLResponse("<title>good-bye</title>", status_code=int(request.query_params.get("status", 200)))


async def _leave(request: Request) -> Response:
    get_session(request).clear(site_data=True)
    request.session["message"] = "You are signed out."
    return HTMLResponse("<title>good-bye</title>")


async def _show(request: Request) -> Response:
    return JSONResponse(request.session)


def _app(options: dict[str, Any]) -> Starlette:
    routes = [Route(f"/{act.__name__[1:]}", act) for act in (_login, _logout, _leave, _show)]
    middleware = [Middleware(SessionMiddleware, keys=KeyRing(Key.generate()), **options)]
    return Starlette(routes=routes, middleware=middleware)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, with its key."""
    path: Path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(params=["cookie", "store"])
def url(request: pytest.FixtureRequest, certificate: Path) -> Iterator[str]:
    """Where the site is, with its sessions in cookies or in a store."""
    app = _app({} if request.param == "cookie" else {"store": MemoryStore()})
    server = uvicorn.Server(uvicorn.Config(app, port=0, ssl_certfile=certificate, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + START
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(START)


@pytest.fixture(scope="module")
def browser(certificate: Path) -> Iterator[Browser]:
    """A Chromium that takes the certificate for what it is, and no other that it does not know."""
    assert CHROMIUM, "CI has to install Chromium"
    public_key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    pin = hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    trust = f"--ignore-certificate-errors-spki-list={base64.b64encode(pin).decode()}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SWITCHES, trust], timeout=2 * WAIT)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A browser that has signed in, and in which the site keeps things of its own."""
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.goto(f"{url}/login")
    page.evaluate("localStorage.setItem('draft', 'dear Ada')")
    assert ({COOKIE, "theme"}, "dear Ada", {"user": "ada"}) == (_jar(page), _draft(page), _session(page))
    yield page
    context.close()


def _jar(page: Page) -> set[str | None]:
    """The names of the cookies that the browser holds."""
    return {cookie.get("name") for cookie in page.context.cookies()}


def _draft(page: Page) -> Any:
    """What the site has in the browser's storage."""
    return page.evaluate("localStorage.getItem('draft')")


def _session(page: Page) -> Any:
    """The session, as the server sees it."""
    return page.evaluate("fetch('/show').then(response => response.json())")


@pytest.mark.parametrize("how", ["navigation", "fetch"])
def test_a_logout_leaves_nothing_of_the_site(page: Page, url: str, how: str) -> None:
    """Neither our cookie nor others, and nothing in the storage; whether a page asks for it or a script."""
    if how == "navigation":
        page.goto(f"{url}/logout")
    else:
        page.evaluate("fetch('/logout').then(response => response.text())")

    assert (set(), None, {}) == (_jar(page), _draft(page), _session(page))


def test_a_session_may_begin_anew_after_it(page: Page, url: str) -> None:
    """In the next response."""
    page.goto(f"{url}/logout")

    page.goto(f"{url}/login")

    assert ({COOKIE, "theme"}, {"user": "ada"}) == (_jar(page), _session(page))


def test_what_a_logout_stores_itself_is_forgotten_too(page: Page, url: str) -> None:
    """All cookies go, and with them the one of the same response."""
    page.goto(f"{url}/leave")

    assert (set(), {}) == (_jar(page), _session(page))


def test_a_logout_that_fails_leaves_everything(page: Page, url: str) -> None:
    """The session lives, and so does the rest."""
    page.goto(f"{url}/logout?status=500")

    assert ({COOKIE, "theme"}, "dear Ada", {"user": "ada"}) == (_jar(page), _draft(page), _session(page))
