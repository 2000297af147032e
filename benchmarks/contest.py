"""A contest: one case, and the applications that take it in turn, round by round, in one process.

Nothing here waits for anything outside the process: there are no sockets and no server. A request is one call of an
ASGI application within a running event loop. Time is the process's CPU time, threads included, so that other processes
disturb little; the garbage collector is off within a block and runs between rounds.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from measuring import ignore, receive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from measuring import Headers
    from starlette.types import ASGIApp, Message, Send

BLOCK: Final = 50
"""Requests that are timed together. A fifth as many run before them, or who comes after the largest pays for caches."""

# What uvicorn gives besides the headers.
SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 40000),
    "server": ("127.0.0.1", 443),
}


@dataclass
class Contender:
    """An application, the request that it gets, and the microseconds that a request took in each round."""

    name: str
    app: ASGIApp
    headers: Headers
    bare: Contender | None = None
    """The same application without sessions; None for that itself."""
    times: list[float] = field(default_factory=list)

    def added(self) -> list[float]:
        """What the session added to a request, round by round."""
        if self.bare is None:
            return self.times
        return [mine - bare for mine, bare in zip(self.times, self.bare.times, strict=True)]


async def drive(app: ASGIApp, headers: Headers, send: Send = ignore) -> None:
    """One request from its start to its end."""
    await app({**SCOPE, "headers": headers, "state": {}}, receive, send)


async def block(app: ASGIApp, headers: Headers, count: int) -> None:
    """Requests one after the other."""
    for _ in range(count):
        await app({**SCOPE, "headers": headers, "state": {}}, receive, ignore)


async def cookie_lines(app: ASGIApp, headers: Headers) -> list[bytes]:
    """The Set-Cookie lines of the response to one request."""
    lines: list[bytes] = []

    async def keep(message: Message) -> None:
        lines.extend(value for name, value in message.get("headers", ()) if name.lower() == b"set-cookie")

    await drive(app, headers, keep)
    return lines


def shares(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The quotients of two costs, round by round."""
    return [a / b for a, b in zip(mine, theirs, strict=True)]


async def measure(contests: Sequence[Sequence[Contender]], rounds: int, requests: int = BLOCK) -> None:
    """Runs every contender in every round, in an order that turns, with blocks of so many requests."""
    gc.disable()
    for turn in range(rounds):
        for contest in contests:
            for index in range(len(contest)):
                contender = contest[(turn + index) % len(contest)]
                await block(contender.app, contender.headers, requests // 5)
                start = time.process_time_ns()
                await block(contender.app, contender.headers, requests)
                contender.times.append((time.process_time_ns() - start) / requests / 1000)
        gc.collect()
    gc.enable()
