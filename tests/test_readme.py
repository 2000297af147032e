"""The README, followed from the top: its Python runs, and the answer that it shows is the answer."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import Browser
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from cookiesession import Key, KeyRing, KeySource, Revocation, Session, SessionManager, SessionMiddleware, get_session
from cookiesession.stores.memory import MemoryStore
from cookiesession.testing import read_session

if TYPE_CHECKING:
    from starlette.requests import Request

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")

KEY_FILE = """
[[keys]]
key = "{}"
added = 2026-01-01T00:00:00Z
activates = 2026-01-01T00:00:00Z
"""


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What is defined once all Python of the README has run, one block after the other."""
    monkeypatch.setenv("SESSION_KEYS", Key.generate().export())
    monkeypatch.setenv("COOKIESESSION_KEYS", Key.generate().export())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.toml").touch(mode=0o600)
    (tmp_path / "keys.toml").write_text(KEY_FILE.format(Key.generate().export()))
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


def test_transactions_and_the_end_of_other_sessions_work_as_shown(
    blocks: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A vote is counted, and a change of password ends the session on the other device."""

    async def login(request: Request) -> Response:
        session = get_session(request)
        session.subject, session.label = "42", request.query_params.get("device", "laptop")
        return Response()

    manager = SessionManager(KeyRing.from_env("SESSION_KEYS"), store=MemoryStore())
    endpoints = (login, blocks["vote"], blocks["change_password"])
    app = Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])
    app.state.sessions = manager
    app.add_middleware(SessionMiddleware, manager)
    laptop, phone = Browser(app), Browser(app)

    for browser in (laptop, phone):
        browser.request(path="/login")
        browser.request(path="/vote")
    laptop.request(path="/change_password")

    assert [1] == [len(asyncio.run(manager.sessions("42")))]
    assert "laptop" in capsys.readouterr().out
    assert None is _session(manager, phone)
    assert {"votes": 1} == getattr(_session(manager, laptop), "data", None)


def test_a_lost_phone_is_signed_out_as_shown(blocks: dict[str, Any]) -> None:
    """With all else that the subject has, and nobody else."""

    async def login(request: Request) -> Response:
        get_session(request).subject = request.path_params["user"]
        return Response()

    # The same with a store that outlives the event loop of one request.
    manager = blocks["sessions"] = blocks["sessions"].with_configuration(revocation=Revocation(MemoryStore()))
    app = Starlette(routes=[Route("/login/{user}", login), Route("/lost_phone", blocks["lost_phone"])])
    app.add_middleware(SessionMiddleware, manager)
    phone, somebody = Browser(app), Browser(app)
    phone.request(path="/login/42")
    somebody.request(path="/login/7")

    somebody.request(path="/lost_phone")

    assert None is _session(manager, phone)
    assert None is not _session(manager, somebody)


def _session(manager: SessionManager[dict[str, Any]], browser: Browser) -> Session[dict[str, Any]] | None:
    return read_session(manager, {name.decode(): value.decode() for name, value in browser.jar.items()})


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


class Vault:
    """A secrets manager, which may be away."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def __call__(self) -> str:
        if self.text is None:
            raise OSError("the secrets manager is away")
        return self.text


def _fetched_at(source: Any, now: float) -> KeyRing:
    """The ring in use once what `now` made due has been done."""
    readers = threading.enumerate()
    source.current(now)
    for thread in set(threading.enumerate()) - set(readers):
        thread.join(30)
    ring: KeyRing = source.current(now)
    return ring


def test_keys_from_elsewhere_are_fetched_every_few_minutes(blocks: dict[str, Any]) -> None:
    """Off the request's path, and no more often than said. The ring stays one object until it changes."""
    old, new = Key.generate(), Key.generate()
    vault = Vault(old.export())
    source = blocks["FetchedKeys"](vault, seconds=300)
    first = _fetched_at(source, 1000)
    vault.text = f"{new.export()} {old.export()}"

    early, due = _fetched_at(source, 1299), _fetched_at(source, 1300)
    vault.text = new.export()
    put_back = _fetched_at(source, 1290)

    assert isinstance(source, KeySource)
    assert first is early
    assert (old,) == first.keys
    assert (new, old) == due.keys
    assert (new,) == put_back.keys


def test_keys_from_elsewhere_are_not_fetched_twice_at_start_up(blocks: dict[str, Any]) -> None:
    """The first request comes soon after, and would race what the second fetches."""
    vault = Vault(Key.generate().export())
    source = blocks["FetchedKeys"](vault)
    vault.text = Key.generate().export()

    assert vault.text != _fetched_at(source, time.time()).primary.export()


def test_keys_from_elsewhere_stay_while_elsewhere_is_away(
    blocks: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Or gives what is no key. It is logged, and the next try is a good one."""
    old, new = Key.generate(), Key.generate()
    vault = Vault(old.export())
    source = blocks["FetchedKeys"](vault, seconds=300)

    rings = []
    for now, text in ((1000, None), (2000, "<html>"), (3000, new.export())):
        vault.text = text
        rings.append(_fetched_at(source, now).keys)

    assert [(old,), (old,), (new,)] == rings
    assert ["the session keys could not be fetched"] * 2 == [record.getMessage() for record in caplog.records]


def test_keys_that_cannot_be_fetched_at_start_up_end_the_process(blocks: dict[str, Any]) -> None:
    """A process without keys has nothing to run for."""
    with pytest.raises(OSError, match="away"):
        blocks["FetchedKeys"](Vault(None))


def test_sessions_live_on_under_keys_from_elsewhere(blocks: dict[str, Any]) -> None:
    """Through a rotation that happens there."""
    old, new = Key.generate(), Key.generate()
    vault = Vault(old.export())
    source = blocks["FetchedKeys"](vault, seconds=300)
    app = Starlette(routes=[Route("/home", blocks["home"])])
    app.add_middleware(SessionMiddleware, keys=source)
    browser = Browser(app)
    browser.request(path="/home")

    for text in (f"{old.export()} {new.export()}", f"{new.export()} {old.export()}", new.export()):
        vault.text = text
        source._asked_at = 0.0
        _fetched_at(source, time.time())
        reply = browser.request(path="/home")

    assert b"view 4" == reply.body
