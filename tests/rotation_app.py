"""The application that `test_rotation_servers.py` puts behind real servers: a counter that is to survive new keys."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cookiesession import Cookie, KeyFile, SessionMiddleware, get_session

if TYPE_CHECKING:
    from starlette.requests import Request

LIFETIME: Final = timedelta(seconds=15)
"""How long a session lives after its last use: shorter than the test, so that keys retire in the middle of it."""


async def health(request: Request) -> Response:
    """Answers without a look at the session."""
    return Response()


async def count(request: Request) -> Response:
    """One more; tells what it was before, whose session it is, and which process served it."""
    session = get_session(request)
    before = request.session.get("count", 0)
    request.session["count"] = before + 1
    session.expire_after(LIFETIME)
    return JSONResponse({"before": before, "session": session.id, "process": os.getpid()})


def create_app() -> Starlette:
    """The application, with the key file that the environment names. Over plain HTTP, and so without `Secure`."""
    keys = KeyFile(os.environ["KEY_FILE"], check_every=timedelta(seconds=1))
    middleware = Middleware(SessionMiddleware, keys=keys, cookie=Cookie(secure=False), lifetime=LIFETIME)
    routes = [Route("/health", health), Route("/count", count, methods=["POST"])]
    return Starlette(routes=routes, middleware=[middleware])
