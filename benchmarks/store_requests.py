"""The requests that sessions in stores are measured with, and what handlers do with a session. Measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from measuring import NAVIGATION, other_cookies, receive, session

if TYPE_CHECKING:
    from measuring import Handler, Headers
    from starlette.types import ASGIApp, Message, Scope, Send
    from store_libraries import Library

OTHERS: Final = 4  # cookies besides the session's


def untouched(scope: Scope) -> None:
    """Leaves the session alone."""


def glance(scope: Scope) -> None:
    """What `request.session.get("views")` does."""
    scope["session"].get("views")


def read(scope: Scope) -> None:
    """What `request.session["views"]` does."""
    scope["session"]["views"]


def write(scope: Scope) -> None:
    """What `request.session["views"] += 1` does."""
    scope["session"]["views"] += 1


def end(scope: Scope) -> None:
    """What `request.session.clear()` does."""
    scope["session"].clear()


def filling(data: dict[str, Any]) -> Handler:
    """What puts `data` into a session."""
    return lambda scope: scope["session"].update(data)


async def expect_ok(message: Message) -> None:
    """Sends nothing anywhere, but minds what a server that fails would make quick."""
    if message.get("status", 200) != 200:
        raise RuntimeError(f"a request was answered with {message['status']}")


async def drive(app: ASGIApp, headers: Headers, send: Send = expect_ok) -> None:
    """One request from its start to its end."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)


async def cookies_of(app: ASGIApp, headers: Headers) -> list[bytes]:
    """The names and values of the cookies that the response to one request sets."""
    lines: list[bytes] = []

    async def keep(message: Message) -> None:
        lines.extend(value for name, value in message.get("headers", ()) if name == b"set-cookie")

    await drive(app, headers, keep)
    return [line.partition(b";")[0] for line in lines]


async def signed_in(library: Library, size: int) -> Headers:
    """The headers of a request whose session has been stored."""
    cookies = await cookies_of(library.behind(filling(session(size))), NAVIGATION)
    headers = [*NAVIGATION, (b"cookie", b"; ".join((*other_cookies(OTHERS), *cookies)))]
    seen: list[object] = []
    await drive(library.behind(lambda scope: seen.append(dict(scope["session"]))), headers)
    if seen != [session(size)]:
        raise RuntimeError(f"{library.name} with {library.store}: the session has not been stored")
    return headers


def without_cookie(headers: Headers) -> Headers:
    """The same request, of somebody who has not been here."""
    return [(name, value) for name, value in headers if name != b"cookie"]


def with_another_id(headers: Headers) -> Headers:
    """The same request, with a session cookie that its sender has made up."""
    name, value = headers[-1]
    cookies, _, token = value.rpartition(b"=")
    return [*headers[:-1], (name, cookies + b"=" + token[8:] + token[:8])]


def as_it_is(headers: Headers) -> Headers:
    """The same request."""
    return headers
