"""The application that `test_guards_servers.py` puts behind real servers: bound to a browser at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from cookiesession import Cookie, KeyRing, SessionMiddleware
from cookiesession.guards import client_network, user_agent

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket


async def login(request: Request) -> Response:
    """Begins a session."""
    request.session["user"] = "ada"
    return Response()


async def show(request: Request) -> Response:
    """The session."""
    return JSONResponse(request.session)


async def socket(websocket: WebSocket) -> None:
    """The same."""
    await websocket.accept()
    await websocket.send_json(websocket.session)
    await websocket.close()


def create_app() -> Starlette:
    """The application, with the keys of the environment."""
    routes = [Route("/login", login), Route("/show", show), WebSocketRoute("/socket", socket)]
    bind = (user_agent, client_network(32, 128))
    keys, cookie = KeyRing.from_env("SESSION_KEYS"), Cookie(secure=False)
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, keys=keys, bind=bind, cookie=cookie)])
