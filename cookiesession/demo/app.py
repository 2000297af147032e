"""The demonstration's application: plain Starlette, and of this library only what its users have.

The page acts by POST and then looks: `GET /session` says what that request brought, `GET /server` what the process
knows. An action cannot tell by itself what becomes of the cookie, as the session is saved when its response starts.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cookiesession import (
    Cookie,
    Key,
    KeyRing,
    SessionMiddleware,
    SessionTooLarge,
    UnencodableData,
    get_session,
)
from cookiesession.events import Opened

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cookiesession import Session
    from cookiesession.events import Event

KILOBYTE: Final = "tea " * 256
"""What the session is grown by."""

_KEYS: Final = 4  # a session still opens after three rotations
_EVENTS: Final = 60
_BODY_LIMIT: Final = 64 * 1024  # bytes: far more than a session holds
_SEALED: Final = re.compile(r"[\w.-]+", re.ASCII)
_PAGE: Final = Path(__file__).with_name("page.html").read_text("utf-8")


class RotatingRing:
    """A ring of throw-away keys that a button rotates. It gives a ring, and so it is a `KeySource`."""

    def __init__(self) -> None:
        self._ring = KeyRing(Key.generate())

    def current(self, now: float) -> KeyRing:
        """The ring as the last rotation left it."""
        return self._ring

    def rotate(self) -> None:
        """Puts a new key in front. What the old ones sealed still opens, until they fall off the end."""
        self._ring = KeyRing(Key.generate(), *self._ring.keys[: _KEYS - 1])

    def describe(self) -> list[dict[str, str]]:
        """The ids and algorithms of the keys, the primary first. Never a secret."""
        return [{"id": key.id, "algorithm": key.algorithm} for key in self._ring.keys]


class EventLog:
    """The last events of the process: what `on_event=` is given to call."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._entries: deque[tuple[int, datetime, Event]] = deque(maxlen=_EVENTS)

    def __call__(self, event: Event) -> None:
        """Notes an event."""
        self._entries.append((next(self._numbers), datetime.now(UTC), event))

    def last(self) -> Event:
        """The newest event; there is one after any session was opened."""
        return self._entries[-1][2]

    def describe(self) -> list[dict[str, Any]]:
        """The events, the newest first."""
        return [
            {"number": number, "at": at.isoformat(), "event": type(event).__name__, **asdict(event)}
            for number, at, event in reversed(self._entries)
        ]


class ExplainRefusals:
    """Answers with the reason where a session cannot be saved. The browser keeps the session it had.

    It stands around `SessionMiddleware`: the session is saved after the handler is done, too late for the
    application's own exception handlers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        try:
            await self.app(scope, receive, send)
        except SessionTooLarge as error:
            await PlainTextResponse(str(error), 413)(scope, receive, send)
        except UnencodableData as error:
            await PlainTextResponse(str(error), 422)(scope, receive, send)


def create_app(*, secure: bool = True) -> Starlette:
    """The application, with a ring of its own that ends with it.

    `secure` says that it is served over TLS. Over plain http Safari refuses `Secure` cookies, even from this machine.
    """
    # A name of its own: cookies know no ports, and another application on this machine may well have a "session".
    cookie = Cookie(name="demo_session", secure=secure)
    ring, log = RotatingRing(), EventLog()
    app = Starlette(
        routes=[
            Route("/", show_page),
            Route("/session", show_session),
            Route("/server", show_server),
            Route("/set", set_field, methods=["POST"]),
            Route("/remove", remove_field, methods=["POST"]),
            Route("/grow", grow, methods=["POST"]),
            Route("/shrink", shrink, methods=["POST"]),
            Route("/persistent", toggle_persistent, methods=["POST"]),
            Route("/renew", renew, methods=["POST"]),
            Route("/clear", clear, methods=["POST"]),
            Route("/rotate", rotate, methods=["POST"]),
            Route("/tamper", tamper, methods=["POST"]),
        ]
    )
    app.add_middleware(SessionMiddleware, keys=ring, cookie=cookie, on_event=log)
    app.add_middleware(ExplainRefusals)
    app.state.cookie, app.state.ring, app.state.log = cookie, ring, log
    return app


async def show_page(request: Request) -> Response:
    """The page. It never touches the session, and so costs and writes nothing."""
    return HTMLResponse(_PAGE, headers=_page_headers())


async def show_session(request: Request) -> Response:
    """The session that this request brought, and the cookies that held it."""
    session = get_session(request)
    # Touching the session is what opens it, and reports so: the newest event is this session's.
    event = None if session.is_new else request.app.state.log.last()
    return JSONResponse(
        {
            "fields": session.data,
            "is_new": session.is_new,
            "persistent": session.persistent,
            "created_at": session.created_at.isoformat(),
            "expires_at": session.expires_at.isoformat(),
            "key_id": event.key_id if isinstance(event, Opened) else None,
            "size": event.size if isinstance(event, Opened) else 0,
            "cookies": _lines(request, session),
        }
    )


async def show_server(request: Request) -> Response:
    """What the process knows: its ring, and what happened last. Touches no session, so looking changes nothing."""
    state = request.app.state
    return JSONResponse({"ring": state.ring.describe(), "events": state.log.describe()})


async def set_field(request: Request) -> Response:
    """Adds or changes a field."""
    name, value = await _texts(request, "name", "value")
    request.session[name] = value
    return Response(status_code=204)


async def remove_field(request: Request) -> Response:
    """Removes a field."""
    [name] = await _texts(request, "name")
    request.session.pop(name, None)
    return Response(status_code=204)


async def grow(request: Request) -> Response:
    """Makes the session a kilobyte larger."""
    request.session["filler"] = request.session.get("filler", "") + KILOBYTE
    return Response(status_code=204)


async def shrink(request: Request) -> Response:
    """Makes the session a kilobyte smaller."""
    filler = request.session.pop("filler", "")[: -len(KILOBYTE)]
    if filler:
        request.session["filler"] = filler
    return Response(status_code=204)


async def toggle_persistent(request: Request) -> Response:
    """Decides whether the browser keeps the session when it closes."""
    session = get_session(request)
    session.persistent = not session.persistent
    return Response(status_code=204)


async def renew(request: Request) -> Response:
    """Gives the session a new id and a new lifetime, as a login should."""
    get_session(request).renew()
    return Response(status_code=204)


async def clear(request: Request) -> Response:
    """Ends the session, as a logout should."""
    get_session(request).clear()
    return Response(status_code=204)


async def rotate(request: Request) -> Response:
    """Puts a new primary key into the ring. No session is touched: each is resealed when it is next used."""
    request.app.state.ring.rotate()
    return Response(status_code=204)


async def tamper(request: Request) -> Response:
    """Leaves the browser with its cookie, but for one character in the middle: what an attacker might send."""
    cookie: Cookie = request.app.state.cookie
    value = request.cookies.get(cookie.full_name.decode(), "")
    if not _SEALED.fullmatch(value):
        raise HTTPException(409, "there is no sealed cookie to change")
    middle = len(value) // 2
    other = "B" if value[middle] == "A" else "A"
    line = cookie.line(cookie.full_name, (value[:middle] + other + value[middle + 1 :]).encode(), max_age=None)
    return Response(status_code=204, headers={"set-cookie": line.decode()})


def _lines(request: Request, session: Session[Any]) -> list[dict[str, Any]]:
    """The session's cookies in this request, each with the length of the `Set-Cookie` line that made it."""
    cookie: Cookie = request.app.state.cookie
    first = cookie.full_name.decode()
    names = [first, *(f"{first}.{index}" for index in range(1, cookie.max_chunks))]
    age = int((session.expires_at - datetime.now(UTC)).total_seconds()) if session.persistent else None
    return [
        {"name": name, "line": len(cookie.line(name.encode(), request.cookies[name].encode(), age))}
        for name in names
        if name in request.cookies
    ]


async def _texts(request: Request, *names: str) -> list[str]:
    """The strings of these names in the JSON object that the request brought. Anything else is answered with 400."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_LIMIT:
            raise HTTPException(413, f"a request holds at most {_BODY_LIMIT} bytes")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in names):
        raise HTTPException(400, f"expected a JSON object with the strings: {', '.join(names)}")
    return [found[name] for name in names]


def _page_headers() -> dict[str, str]:
    """Headers by which the page runs its own script and style and nothing else, and talks to nobody else."""
    blocks = re.findall(r"<(script|style)>(.*?)</\1>", _PAGE, re.DOTALL)
    hashes = {tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for tag, text in blocks}
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}
