"""Sessions that do not come without their framework: Litestar's, Flask's, aiohttp-session, and authx-extra's.

Each is measured over the same framework without sessions, so that what it adds is its own. Flask is called by WSGI.
aiohttp-session's middleware is called with a request and a handler, as aiohttp calls it; no aiohttp server runs.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import warnings
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import aiohttp_session
import flask
from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from litestar import Litestar, Request, get
from litestar.middleware.session.client_side import CookieBackendConfig
from multidict import CIMultiDict, CIMultiDictProxy
from peers import LIFETIME, MISSING, PEERS, SECRETS, Peer, bare
from yarl import URL

if TYPE_CHECKING:
    from actions import Action
    from starlette.types import ASGIApp, Receive, Scope, Send

NOTHING: Final[Any] = None
PROTOCOL: Final[Any] = SimpleNamespace(ssl_context=None, peername=None, sockname=None)  # all that a request asks of it

warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)  # aiohttp-session's keys are text


def litestar(action: Action | None, count: int = 1, *, sessions: bool = True) -> ASGIApp:
    """Litestar with its CookieBackend."""

    @get("/")
    async def handler(request: Request[Any, Any, Any]) -> str:
        if action is not None:
            action.mapping(request.session)
        return "ok"

    middleware = [CookieBackendConfig(secret=SECRETS[0], secure=True).middleware] if sessions else []
    return Litestar([handler], middleware=middleware, openapi_config=None, logging_config=None)  # type: ignore[return-value]


def wsgi(app: flask.Flask) -> ASGIApp:
    """A WSGI application, called as a server would."""

    async def shim(scope: Scope, receive: Receive, send: Send) -> None:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": scope["method"],
            "SCRIPT_NAME": "",
            "PATH_INFO": scope["path"],
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scope["scheme"],
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in scope["headers"]:
            environ["HTTP_" + name.decode().upper().replace("-", "_")] = value.decode()
        started: list[Any] = []
        body = b"".join(app(environ, lambda status, headers, exc_info=None: started.extend((status, headers))))  # type: ignore[arg-type]
        status, headers = started
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return shim


def flask_app(action: Action | None, count: int = 1, *, sessions: bool = True) -> ASGIApp:
    """Flask with its signed cookie. Without a secret key it opens and saves none."""
    app = flask.Flask("benchmark")
    if sessions:
        app.secret_key, *older = (secret.decode() for secret in SECRETS[:count][::-1])
        app.config.update(SECRET_KEY_FALLBACKS=older, SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")

    @app.get("/")
    def handler() -> str:
        if action is not None:
            action.mapping(flask.session)
        return "ok"

    return wsgi(app)


def aiohttp_app(action: Action | None, count: int = 1, *, sessions: bool = True) -> ASGIApp:
    """aiohttp-session with its encrypted cookie."""
    storage = EncryptedCookieStorage(SECRETS[0], max_age=LIFETIME, secure=True, samesite="Lax")
    middleware = aiohttp_session.session_middleware(storage)

    async def handler(request: web.Request) -> web.StreamResponse:
        if action is not None:
            action.mapping(await aiohttp_session.get_session(request))
        return web.Response(text="ok")

    async def shim(scope: Scope, receive: Receive, send: Send) -> None:
        headers = CIMultiDictProxy(CIMultiDict((name.decode(), value.decode()) for name, value in scope["headers"]))
        message = RawRequestMessage(
            "GET", "/", HttpVersion11, headers, tuple(scope["headers"]), False, None, False, False, URL("/")
        )
        request = web.Request(message, EMPTY_PAYLOAD, PROTOCOL, NOTHING, NOTHING, asyncio.get_running_loop())
        response = await (middleware(request, handler) if sessions else handler(request))
        lines = [
            cookie.OutputString().encode() for cookie in response.cookies.values()
        ]  # as it is prepared for sending
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", line) for line in lines]})
        await send({"type": "http.response.body", "body": b"ok"})

    return shim


@cache
def without_sessions(build: Any) -> ASGIApp:
    """The framework alone."""
    app: ASGIApp = build(None, sessions=False)
    return app


PEERS.extend(
    [
        Peer("Litestar", "AES-256-GCM", litestar, lambda: without_sessions(litestar)),
        Peer("aiohttp-session", "Fernet", aiohttp_app, lambda: without_sessions(aiohttp_app)),
        Peer("Flask", "signed", flask_app, lambda: without_sessions(flask_app), rotates=True),
    ]
)

try:
    authx_extra: Any = importlib.import_module("authx_extra.session")
except ImportError as error:
    MISSING["authx-extra"] = str(error)
else:

    def authx(action: Action | None, count: int = 1) -> ASGIApp:
        """authx-extra, which keeps sessions in the process, and signs their ids."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if action is not None:
                session = scope["state"]["session"]
                action.mapping(await session.get_session())
                await session.save_session()
            await bare()(scope, receive, send)

        behind: ASGIApp = authx_extra.SessionMiddleware(app, secret_key=SECRETS[0].decode())
        return behind

    PEERS.append(Peer("authx-extra", "signed id", authx, bare))
