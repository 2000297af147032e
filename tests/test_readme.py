"""The README, followed from the top: its Python runs, and the answer that it shows is the answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from harness import Browser
from starlette.applications import Starlette
from starlette.routing import Route

from cookiesession import Key, KeyRing, SessionMiddleware

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is defined once all Python of the README has run, one block after the other."""
    monkeypatch.setenv("SESSION_KEYS", Key.generate().export())
    namespace: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    return namespace


def _app(*endpoints: Any) -> Starlette:
    app = Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])
    app.add_middleware(SessionMiddleware, keys=KeyRing.from_env("SESSION_KEYS"))
    return app


def test_the_first_example_answers_as_shown(blocks: dict[str, Any]) -> None:
    """Header by header, but for the sealed text."""
    browser = Browser(_app(blocks["home"]))
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert shown is not None

    first, second = (browser.request(path="/home") for _ in range(2))

    ours = [f"{name.decode().title()}: {value.decode()}" for name, value in first.headers]
    lines = [re.sub(r"session=[^;]*;", "session=…;", line) for line in ours if not line.startswith("Content-")]
    expected = re.sub(r"session=[^;]*;", "session=…;", shown[1]).splitlines()
    assert sorted(expected) == sorted(lines)
    assert (b"view 1", b"view 2") == (first.body, second.body)


def test_signing_in_and_out_works_as_shown(blocks: dict[str, Any]) -> None:
    """A cookie for the browser's time, then none."""
    browser = Browser(_app(blocks["login"], blocks["logout"], blocks["home"]))

    browser.request(path="/home")
    login = browser.request(path="/login")
    logout = browser.request(path="/logout")

    assert b"Max-Age" not in login.set_cookies[0]
    assert b"Max-Age=0" in logout.set_cookies[0]
    assert {} == browser.jar


def test_the_session_without_a_framework_gives_a_header(blocks: dict[str, Any]) -> None:
    """One, of a whole Set-Cookie line."""
    [(name, line)] = blocks["headers"]

    assert b"set-cookie" == name
    assert line.startswith(b"__Host-session=")


def test_the_size_that_is_promised_fits(blocks: dict[str, Any]) -> None:
    """About 5,400 bytes of data in two cookies."""

    async def fill(request: Any) -> Any:
        request.session["text"] = "x" * 5390
        return await blocks["home"](request)

    browser = Browser(_app(fill))

    reply = browser.request(path="/fill")

    assert 2 == len(reply.set_cookies)
    assert len(json.dumps({"text": "x" * 5390})) > 5400
