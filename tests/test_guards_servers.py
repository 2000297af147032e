"""Guards on real servers: each tells the same of a client for a page and for a websocket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from ports import free_port
from websockets.asyncio.client import connect

from cookiesession import Key

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address: 127.0.0.1"),
]

HOME: Final = "127.0.0.1"
AWAY: Final = "127.0.0.2"
V6: Final = "::1"
START: Final = 30  # seconds that a server may take until it answers
WAIT: Final = 20  # seconds for one answer

COMMANDS: Final = {
    "uvicorn": ("uvicorn", "--factory", "guarded_app:create_app", "--host", "{host}", "--port", "{port}"),
    "hypercorn": ("hypercorn", "guarded_app:create_app()", "--bind", "{bracketed}:{port}"),
    "granian": (
        *("granian", "--factory", "--interface", "asgi", "guarded_app:create_app"),
        *("--host", "{host}", "--port", "{port}"),
    ),
}


def _has_ipv6() -> bool:
    try:
        socket.create_server((V6, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Client:
    """A browser of this name at this address, with the cookies of a jar that others may have copied."""

    def __init__(self, port: int, host: str, agent: str, address: str, jar: httpx.Cookies) -> None:
        self._place = f"{_bracketed(host)}:{port}"
        self._agent, self._address, self._jar = agent, address, jar

    def get(self, path: str) -> httpx.Response:
        """A page."""
        transport = httpx.HTTPTransport(local_address=self._address)
        headers = {"user-agent": self._agent}
        with httpx.Client(transport=transport, headers=headers, cookies=self._jar, timeout=WAIT) as client:
            return client.get(f"http://{self._place}{path}")

    def listen(self) -> Any:
        """What a websocket says first."""

        async def go() -> Any:
            cookie = "; ".join(f"{name}={value}" for name, value in self._jar.items())
            options: dict[str, Any] = {"local_addr": (self._address, 0), "proxy": None, "open_timeout": WAIT}
            headers = {"Cookie": cookie}
            async with connect(
                f"ws://{self._place}/socket", user_agent_header=self._agent, additional_headers=headers, **options
            ) as websocket:
                return json.loads(await websocket.recv())

        return asyncio.run(go())


HOSTS: Final = (HOME, V6) if _has_ipv6() else (HOME,)


@pytest.fixture(scope="module", params=[(name, host) for name in COMMANDS for host in HOSTS], ids="-".join)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The port and the address of a server in a process of its own."""
    name, host = request.param
    port = free_port()
    places = {"host": host, "bracketed": _bracketed(host), "port": port}
    arguments = [sys.executable, "-m", *(word.format(**places) for word in COMMANDS[name])]
    environment = {**os.environ, "SESSION_KEYS": Key.generate().export()}
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - this very Python
            arguments,
            cwd=Path(__file__).parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + START
            while True:
                try:
                    Client(port, host, "nobody", host, httpx.Cookies()).get("/show")
                    break
                except httpx.TransportError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        pytest.fail(f"the server does not answer: {log.read_text()}")
                    time.sleep(0.05)
            yield port, host
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_bound_session_is_one_clients_on_every_server(site: tuple[int, str]) -> None:
    """Page after page and on a websocket; not another browser's, nor the same browser's from elsewhere."""
    port, host = site
    jar = httpx.Cookies()
    ada = Client(port, host, "Ada's browser", host, jar)
    jar.update(ada.get("/login").cookies)
    thieves = [Client(port, host, "Eve's browser", host, jar)]
    thieves += [Client(port, host, "Ada's browser", AWAY, jar)] if host == HOME else []

    own = [ada.get("/show").json(), ada.listen(), ada.get("/show").json()]
    stolen = [said for thief in thieves for said in (thief.get("/show").json(), thief.listen())]

    assert ["session"] == list(jar)
    assert [{"user": "ada"}] * 3 == own
    assert [{}] * len(stolen) == stolen
