"""The application of the tests of outages: users who sign in and count, in this process or behind uvicorn."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cookiesession import Cookie, KeyRing, SessionMiddleware, get_session
from cookiesession.stores.url import store_from_url

if TYPE_CHECKING:
    from starlette.requests import Request


async def _gate(request: Request) -> None:
    """Where a test waits, between load and save."""
    if request.app.state.gate is not None:
        await request.app.state.gate()


async def show(request: Request) -> Response:
    """All that the session holds."""
    return JSONResponse(request.session)


async def login(request: Request) -> Response:
    """Begins the session of a user."""
    session = get_session(request)
    session.renew()
    session.subject = user = request.path_params["user"]
    request.session.update(user=user, n=0)
    await _gate(request)
    return await show(request)


async def count(request: Request) -> Response:
    """One more."""
    request.session["n"] = request.session.get("n", 0) + 1
    await _gate(request)
    return await show(request)


async def add(request: Request) -> Response:
    """One more, by a transaction."""
    await _gate(request)
    await get_session(request).transact(lambda data: data.update(n=data["n"] + 1))
    return await show(request)


async def pair(request: Request) -> Response:
    """Two entries that are always equal."""
    request.session.update(dict.fromkeys(("left", "right"), request.path_params["value"]))
    return await show(request)


async def logout(request: Request) -> Response:
    """Ends the session."""
    get_session(request).clear()
    await _gate(request)
    return Response(status_code=204)


def create_app(**options: Any) -> Starlette:
    """The application, with a middleware of these options."""
    routes = [
        Route("/", show),
        Route("/login/{user}", login),
        Route("/count", count),
        Route("/add", add),
        Route("/pair/{value:int}", pair),
        Route("/logout", logout),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **options)])
    app.state.gate = None
    return app


def from_environment() -> Starlette:
    """For a server: the store is at a URL, and cookies are those of plain HTTP."""
    timeout = timedelta(seconds=float(os.environ["SESSION_TIMEOUT"]))
    store = store_from_url(os.environ["SESSION_STORE"], timeout=timeout)
    return create_app(keys=KeyRing.from_env("SESSION_KEYS"), store=store, cookie=Cookie(secure=False))
