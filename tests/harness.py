"""A browser's half of the conversation, without a socket: a cookie jar in front of an ASGI application."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    Handler = Callable[[MutableMapping[str, Any]], None]

START = 1_800_000_000
"""The second at which the tests' clocks start."""


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    """What an application sent."""

    messages: list[MutableMapping[str, Any]] = field(default_factory=list)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the start or of the accept."""
        return [header for message in self.messages for header in message.get("headers", ())]

    @property
    def status(self) -> int:
        """The status of an HTTP response."""
        return int(next(message["status"] for message in self.messages if message["type"] == "http.response.start"))

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def set_cookies(self) -> list[bytes]:
        """The Set-Cookie lines."""
        return self.values(b"set-cookie")

    def values(self, name: bytes) -> list[bytes]:
        """The values of all headers of a name."""
        return [value for key, value in self.headers if key == name]


class Browser:
    """Keeps cookies as a browser does, as far as names, values and `Max-Age=0` go."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.jar: dict[bytes, bytes] = {}

    def request(
        self,
        *,
        cookie: bytes | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        path: str = "/",
        method: str = "GET",
        kind: str = "http",
    ) -> Reply:
        """Sends the jar, or the `cookie` header given, and takes what comes back into the jar."""
        sent = b"; ".join(name + b"=" + value for name, value in self.jar.items()) if cookie is None else cookie
        all_headers = [*headers, *([(b"cookie", sent)] if sent else [])]
        reply = exchange(self.app, all_headers, path=path, method=method, kind=kind)
        for line in reply.set_cookies:
            name, _, rest = line.partition(b"=")
            if b"; Max-Age=0" in line:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(b";")[0]
        return reply


def exchange(
    app: ASGIApp,
    headers: list[tuple[bytes, bytes]],
    *,
    path: str = "/",
    method: str = "GET",
    kind: str = "http",
) -> Reply:
    """One request and all that the application sends in answer to it."""
    scope: Scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https" if kind == "http" else "wss",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 443),
        "subprotocols": [],
        "state": {},
    }
    inbox: list[Message] = (
        [{"type": "http.request", "body": b"", "more_body": False}]
        if kind == "http"
        else [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    )
    reply = Reply()

    async def receive() -> Message:
        if inbox:
            return inbox.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        reply.messages.append(message)

    asyncio.run(_bounded(app, scope, receive, send))
    return reply


async def _bounded(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.timeout(30):
        await app(scope, receive, send)


def handler(handle: Handler, *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> ASGIApp:
    """A bare ASGI application that calls `handle` with the scope, then answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        handle(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": list(headers)})
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"ok"})

    return app
