"""FastAPI: the session as a dependency, its cookie in the OpenAPI document, and guards of routes."""

# Without "from __future__ import annotations": FastAPI reads the annotations while it runs, of instances too.

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from cookiesession.cookies import Cookie
from cookiesession.errors import ConfigurationError, brought_by
from cookiesession.manager import SessionManager
from cookiesession.middleware import load_session
from cookiesession.session import Session

with brought_by("fastapi", "fastapi"):
    from fastapi import Depends, HTTPException, WebSocketException
    from fastapi.openapi.models import APIKey, APIKeyIn
    from fastapi.requests import HTTPConnection
    from fastapi.security.base import SecurityBase

T = TypeVar("T")


async def session(connection: HTTPConnection) -> Session[Any]:
    """The dependency behind `SessionDep`: the key for `app.dependency_overrides`. Fetches a session from its store."""
    return await load_session(connection)


SessionDep = Annotated[Session[T], Depends(session)]
"""The type of a parameter, in handlers, dependencies and websockets: `SessionDep[Visitor]` gives a `Session[Visitor]`.

>>> from fastapi import FastAPI
>>> app = FastAPI()
>>> @app.get("/cart")
... def cart(session: SessionDep[dict[str, Any]]) -> list[str]:
...     return session.data.get("cart", [])
"""


class SessionCookie(SecurityBase):
    """The session's cookie as a security scheme: `apiKey` in a cookie, under its full name.

    Takes the `Cookie` or the `SessionManager` that the middleware has. As a dependency it gives the `Session`, and puts
    a padlock on the route in the OpenAPI document; it refuses nobody (see `require`). Raises `ConfigurationError`.

    >>> SessionCookie(Cookie(name="sid")).model.model_dump()["name"]
    '__Host-sid'
    """

    def __init__(self, cookie: Cookie | SessionManager[Any] = Cookie(), *, scheme_name: str = "session") -> None:
        if isinstance(cookie, SessionManager):
            cookie = cookie.cookie
        if not isinstance(cookie, Cookie):
            raise ConfigurationError("SessionCookie takes the Cookie or the SessionManager that the middleware has")
        # FastAPI's names for what it puts into the document.
        self.model = APIKey.model_validate({"in": APIKeyIn.cookie, "name": cookie.full_name.decode()})
        self.scheme_name = scheme_name

    async def __call__(self, connection: HTTPConnection) -> Session[Any]:
        """The session of a request or websocket, fetched from its store."""
        return await load_session(connection)


def require(
    *checks: Callable[[Session[Any]], bool | Awaitable[bool]],
    status: int = 401,
    detail: str = "Not authenticated",
    scheme: SessionCookie = SessionCookie(),
) -> Any:
    """A guard for `dependencies=[...]` of a route, a router or the application.

    It passes a request whose session came with it and satisfies all `checks`, in their order; each takes the session
    and is sync or async. Otherwise it raises `HTTPException(status, detail)`. What a check raises passes through.
    A request that brought no valid session is refused with 401 before any check. Raises `ConfigurationError` for a
    check that cannot be called.

    >>> from fastapi import APIRouter
    >>> admin = APIRouter(dependencies=[require(lambda session: session.subject == "root", status=403)])
    """
    if not all(map(callable, checks)):
        raise ConfigurationError("a check is a function of the session; status, detail and scheme are given by name")

    async def guard(connection: HTTPConnection, session: Session[Any] = Depends(scheme)) -> None:
        if session.is_new:
            raise _refusal(connection, 401, detail)
        for check in checks:
            passed = check(session)
            if not (await passed if inspect.isawaitable(passed) else passed):
                raise _refusal(connection, status, detail)

    return Depends(guard)


def _refusal(connection: HTTPConnection, status: int, detail: str) -> Exception:
    if connection.scope["type"] == "websocket":
        return WebSocketException(1008, detail)  # RFC 6455, section 7.4.1: policy violation
    return HTTPException(status, detail)
