"""A server process under load: what it holds of memory, descriptors and connections, and users who check answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import pytest
from ports import free_port

from cookiesession import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from outages import Outage

NAME: Final = "session"
START: Final = 30  # seconds that a server may take until it answers
WAIT: Final = 20  # seconds for one answer
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Holdings(NamedTuple):
    """What a process holds, and its connections at the store's server."""

    memory: int  # bytes
    descriptors: int
    connections: int

    @property
    def others(self) -> int:
        """Descriptors that are no connection to the store."""
        return self.descriptors - self.connections


class Site:
    """The application of `outage_app.py` behind uvicorn, in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def client(self) -> httpx.AsyncClient:
        """A client that keeps no cookies: users do, and one who has none yet is not to be sent with another's."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # No connection is used again that the server, which waits 5 s for more, may be about to close.
            limits=httpx.Limits(max_connections=20, keepalive_expiry=1),
            timeout=WAIT,
            trust_env=False,
        )

    async def holdings(self, outage: Outage) -> Holdings:
        """Now."""
        folder = Path(f"/proc/{self.process.pid}")
        memory = int((folder / "statm").read_text().split()[1]) * PAGE
        return Holdings(memory, sum(1 for _ in (folder / "fd").iterdir()), await outage.connections())


@contextlib.asynccontextmanager
async def site_at(outage: Outage, deadline: float, folder: Path) -> AsyncIterator[Site]:
    """Such a process, whose store has `deadline` seconds for a call. In its log is nothing but refusals."""
    port = free_port()
    command = ("-m", "uvicorn", "--factory", "outage_app:from_environment", "--host", "127.0.0.1", "--port", str(port))
    environment = {
        **os.environ,
        "SESSION_KEYS": Key.generate().export(),
        "SESSION_STORE": outage.url(),
        "SESSION_TIMEOUT": str(deadline),
    }
    log = folder / "uvicorn.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  at once, and this very Python
            (sys.executable, *command, "--log-level", "warning"),
            cwd=Path(__file__).parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        site = Site(process, port, log)
        await _wait_for(site)
        yield site
    finally:
        process.kill()
        process.wait(WAIT)
    lines = [line for line in log.read_text().splitlines() if not line.startswith("a request was refused: ")]
    assert lines == []


async def _wait_for(site: Site) -> None:
    deadline = time.monotonic() + START
    async with site.client() as client:
        while time.monotonic() < deadline and site.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                (await client.get("/")).raise_for_status()
                return
            await asyncio.sleep(0.05)
    pytest.fail(f"the server does not answer: {site.log.read_text()}")


class User:
    """Somebody who signs in, counts, and knows what there should be."""

    def __init__(self, site: Site, name: str, longest: float) -> None:
        self.site = site
        self.name = name
        self.longest = longest  # seconds that an answer may take
        self.cookie = ""
        self.count = 0
        self.doubtful = 0  # increments that were refused, and may have been made
        self.answers = self.refusals = 0
        self.complaints: list[str] = []

    async def ask(self, client: httpx.AsyncClient, path: str) -> dict[str, object] | None:
        """What there is; None where the request is refused. Anything else is a complaint."""
        started = time.monotonic()
        reply = await client.get(path, headers={"cookie": f"{NAME}={self.cookie}"} if self.cookie else {})
        took = time.monotonic() - started
        if took > self.longest:
            self.complaints.append(f"{path} took {took:.1f} s")
        if reply.status_code == 503:
            self.refusals += 1
            if "set-cookie" in reply.headers or reply.text != "Service Unavailable":
                self.complaints.append(f"{path} was refused with more than that")
            return None
        if reply.status_code != 200:
            self.complaints.append(f"{path} got {reply.status_code}")
            return None
        self.answers += 1
        self.cookie = reply.cookies.get(NAME) or self.cookie
        answer: dict[str, object] = reply.json()
        return answer

    async def visit(self, client: httpx.AsyncClient, path: str) -> None:
        """A request whose answer has to be this user's, with nothing lost and nothing twice."""
        answer = await self.ask(client, path)
        counting = path == "/count"
        if answer is None:
            self.doubtful += counting
            return
        count = answer.get("n")
        least = self.count + counting
        if answer.get("user") != self.name or not isinstance(count, int) or not least <= count <= least + self.doubtful:
            self.complaints.append(f"{path} of {self.name} after {self.count} (and {self.doubtful}) gave {answer}")
        if isinstance(count, int):
            self.doubtful = 0 if counting else self.doubtful - max(count - self.count, 0)
            self.count = count

    async def go_on(self, client: httpx.AsyncClient, until: float) -> None:
        """Visits until a time of `time.monotonic()`."""
        while not self.cookie and time.monotonic() < until:
            await self.ask(client, f"/login/{self.name}")
        while time.monotonic() < until:
            await self.visit(client, random.choice(("/", "/count", "/count")))  # noqa: S311  for no secret
            await asyncio.sleep(0.01)


async def load(users: list[User], seconds: float, trouble: Callable[[float], Awaitable[None]]) -> None:
    """All users at once, from one pool of connections, and something that goes wrong meanwhile."""
    until = time.monotonic() + seconds
    async with users[0].site.client() as client:
        await asyncio.gather(trouble(until), *(user.go_on(client, until) for user in users))


async def settle(site: Site, outage: Outage, others: float = float("inf")) -> Holdings:
    """What is held once the load is over: for half a second the same, and as soon as it is no more than `others`."""
    deadline = time.monotonic() + WAIT
    held, since = await site.holdings(outage), time.monotonic()
    while time.monotonic() < (deadline if held.others > others else min(since + 0.5, deadline)):
        await asyncio.sleep(0.05)
        now = await site.holdings(outage)
        if now[1:] != held[1:]:
            held, since = now, time.monotonic()
    return held
