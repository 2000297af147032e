"""The demonstration in a real Chromium, over TLS, so that `__Host-` and `Secure` are more than words."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COOKIE = "__Host-demo_session"
LIMIT = 900  # seconds, for all of this file on a busy machine
WAIT = 30_000  # milliseconds, for one thing to appear
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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, with its key."""
    path: Path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def url(certificate: Path) -> Iterator[str]:
    """Where the demonstration is, as a process of its own."""
    python = (sys.executable, "-W", "error")
    command = (*python, "-m", "cookiesession", "demo", "--port", "0", "--certfile", str(certificate))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own command
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        try:
            assert process.stdout
            yield "".join(re.findall(r"https://127\.0\.0\.1:\d+", process.stdout.readline()))
        finally:
            limit.cancel()
            process.kill()


@pytest.fixture(scope="module")
def browser(certificate: Path) -> Iterator[Browser]:
    """A Chromium that takes the certificate for what it is, and no other that it does not know."""
    assert CHROMIUM, "CI has to install Chromium"
    public_key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    pin = hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    expect.set_options(timeout=WAIT)
    trust = f"--ignore-certificate-errors-spki-list={base64.b64encode(pin).decode()}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SWITCHES, trust], timeout=2 * WAIT)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page in a browser that has no cookies yet. Whatever its script stumbles over fails the test."""
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    page = context.new_page()
    stumbled: list[str] = []
    page.on("pageerror", lambda error: stumbled.append(str(error)))
    page.on("console", lambda message: stumbled.append(message.text) if "status of 413" not in message.text else None)
    page.goto(url)
    expect(page.get_by_role("status")).to_contain_text("your browser gets its first sealed cookie")
    yield page
    context.close()
    assert stumbled == []


def jar(page: Page) -> set[str | None]:
    """The names of the cookies that the browser holds."""
    return {cookie.get("name") for cookie in page.context.cookies()}


def click(page: Page, button: str, *, then: str) -> None:
    """Presses a button and waits for what the page says then."""
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("status")).to_contain_text(then)


def put(page: Page, name: str, value: str) -> None:
    """Sets a field."""
    page.get_by_label("Name of the field").fill(name)
    page.get_by_label("Value of the field").fill(value)
    click(page, "Set", then=f"{name} is set.")


def kilobytes(count: int) -> re.Pattern[str]:
    """How the page shows a filler of so many."""
    return re.compile(f"^{1024 * count:,} characters")


def grow(page: Page, times: int) -> None:
    """Makes the session so many kilobytes larger."""
    for count in range(1, times + 1):
        page.get_by_role("button", name="+1 KB").click()
        expect(page.get_by_label("filler", exact=True)).to_have_value(kilobytes(count))


def test_chunked_session_of_7_kb_survives_a_reload(page: Page) -> None:
    """Two cookies hold it, and the browser sends both."""
    put(page, "tea", "oolong")
    grow(page, times=5)

    page.reload()

    expect(page.get_by_label("tea", exact=True)).to_have_value("oolong")
    expect(page.get_by_label("filler", exact=True)).to_have_value(kilobytes(5))
    expect(page.locator("#size")).to_have_text(re.compile(r"^(6,9\d\d|7,\d\d\d) bytes of text in 2 cookies$"))
    assert jar(page) == {COOKIE, f"{COOKIE}.1"}
    assert sum(len(cookie.get("value", "")) for cookie in page.context.cookies()) > 6900


def test_shrunk_session_leaves_no_stale_chunk(page: Page) -> None:
    """The browser's jar loses the second cookie, and the session still opens."""
    put(page, "tea", "oolong")
    grow(page, times=5)
    chunked = jar(page)
    for count in range(4, 0, -1):
        page.get_by_role("button", name="\N{MINUS SIGN}1 KB").click()
        expect(page.get_by_label("filler", exact=True)).to_have_value(kilobytes(count))

    page.reload()

    expect(page.get_by_label("tea", exact=True)).to_have_value("oolong")
    assert chunked == {COOKIE, f"{COOKIE}.1"}
    assert jar(page) == {COOKIE}


def test_cleared_session_leaves_no_cookie(page: Page) -> None:
    """Both chunks are gone from the jar, and a reload finds an empty session."""
    grow(page, times=5)

    click(page, "Clear", then="Cleared")

    assert jar(page) == set()
    page.reload()
    expect(page.get_by_text("Nothing in it yet")).to_be_visible()
    expect(page.locator("#size")).to_have_text("No cookie")


def test_scripts_see_no_cookie(page: Page) -> None:
    """`document.cookie` is empty, as each chunk is HttpOnly; each is Secure and Lax as well, and this host's alone."""
    grow(page, times=4)

    assert page.evaluate("document.cookie") == ""
    cookies = page.context.cookies()
    assert len(cookies) == 2
    for cookie in cookies:
        flags = {name: cookie.get(name) for name in ("httpOnly", "secure", "sameSite", "path", "domain")}
        assert flags == {"httpOnly": True, "secure": True, "sameSite": "Lax", "path": "/", "domain": "127.0.0.1"}


def test_rotation_reseals_on_the_next_request(page: Page) -> None:
    """Until then the page shows the old key; then the event, the new key, and the same data."""
    put(page, "tea", "oolong")
    sealed_by = page.locator("#sealed-by")
    before = (sealed_by.text_content() or "").split()[2]

    click(page, "Rotate", then="A new key is primary")
    expect(sealed_by).to_have_text(f"sealed by {before} (old)")
    click(page, "Send the next request", then="Resealed")

    primary = page.get_by_role("list", name="Keys, the primary first").get_by_role("listitem").first
    after = (primary.text_content() or "").split()[0]
    assert after != before
    expect(sealed_by).to_have_text(f"sealed by {after}")
    expect(page.locator("#events")).to_contain_text(f"key {before} gave way to {after}")
    expect(page.get_by_label("tea", exact=True)).to_have_value("oolong")


def test_session_that_does_not_fit_is_refused_and_stays(page: Page) -> None:
    """The page says by how much, and the browser keeps the session it had."""
    grow(page, times=5)
    before = page.context.cookies()

    click(page, "+1 KB", then="Your session is as it was")

    expect(page.get_by_role("status")).to_have_text(re.compile(r"Refused: the session takes \d+ bytes.* \d+ fit"))
    expect(page.locator("#events")).to_contain_text("too large")
    assert page.context.cookies() == before
    page.reload()
    expect(page.get_by_label("filler", exact=True)).to_have_value(kilobytes(5))


def test_changed_character_is_rejected(page: Page) -> None:
    """The next request finds a fresh session, says why, and leaves no cookie."""
    put(page, "tea", "oolong")

    click(page, "Change one character", then="One character of your cookie is now another")
    damaged = jar(page)
    click(page, "Send the next request", then="Rejected: forged")

    expect(page.get_by_text("Nothing in it yet")).to_be_visible()
    expect(page.locator("#events")).to_contain_text("forged: the visitor starts afresh")
    assert damaged == {COOKIE}
    assert jar(page) == set()


def test_fields_are_edited_where_they_stand(page: Page) -> None:
    """Enter saves a changed value, the keyboard stays where it was, and a field can go."""
    put(page, "tea", "oolong")
    put(page, "cup", "blue")

    field = page.get_by_label("tea", exact=True)
    field.fill("sencha")
    field.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("tea is changed.")
    expect(field).to_be_focused()
    click(page, "Remove cup", then="cup is removed.")

    page.reload()
    expect(field).to_have_value("sencha")
    expect(page.get_by_label("cup", exact=True)).to_have_count(0)


def test_session_may_end_with_the_browser(page: Page) -> None:
    """Unticked, the cookie has no expiry in the jar."""
    put(page, "tea", "oolong")
    [kept] = page.context.cookies()

    page.get_by_label("Keep it when the browser closes").uncheck()
    expect(page.get_by_role("status")).to_contain_text("ends with the browser")

    [dropped] = page.context.cookies()
    assert kept.get("expires", -1) > 0
    assert dropped.get("expires") == -1


def test_renewed_session_is_another_with_the_same_data(page: Page) -> None:
    """The cookie changes, the fields do not."""
    put(page, "tea", "oolong")
    [before] = page.context.cookies()

    click(page, "Renew", then="Renewed")

    [after] = page.context.cookies()
    assert after.get("value") != before.get("value")
    expect(page.get_by_label("tea", exact=True)).to_have_value("oolong")


def test_page_fits_its_window(page: Page) -> None:
    """No width from a small phone to a desktop scrolls sideways."""
    put(page, "a name that is rather longer than usual", "and a value to go with it, for good measure")
    grow(page, times=5)

    taken = {}
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        taken[width] = page.evaluate("document.documentElement.scrollWidth")

    assert {width: min(width, each) for width, each in taken.items()} == taken
