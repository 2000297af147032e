"""The application that `test_servers.py` puts behind real servers: what a user would write, with a route per deed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from cookiesession import KeyRing, SessionMiddleware, get_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.websockets import WebSocket


async def health(request: Request) -> Response:
    """Answers without a look at the session."""
    return Response()


async def show(request: Request) -> Response:
    """The session and its id."""
    return JSONResponse({"id": get_session(request).id, "data": request.session})


async def login(request: Request) -> Response:
    """Begins a session for a user."""
    session = get_session(request)
    session.renew()
    session.subject = user = request.path_params["user"]
    request.session.update(user=user, cart={"items": []})
    return await show(request)


async def add(request: Request) -> Response:
    """Puts an item into the cart: a change deep inside."""
    request.session["cart"]["items"].append(request.path_params["item"])
    return await show(request)


async def fill(request: Request) -> Response:
    """Makes the session large, or small again."""
    request.session["filler"] = "x" * request.path_params["size"]
    return await show(request)


async def renew(request: Request) -> Response:
    """Gives the session a new id."""
    get_session(request).renew()
    return await show(request)


async def logout(request: Request) -> Response:
    """Ends the session."""
    get_session(request).clear()
    return Response(status_code=204)


async def answer(request: Request) -> Response:
    """Changes the session and answers with a status, and a cookie of the application's own."""
    request.session["status"] = status = request.path_params["status"]
    response = RedirectResponse("/session", status) if status == 303 else Response(status_code=status)
    response.set_cookie("theme", "dark")
    return response


async def fail(request: Request) -> Response:
    """Changes the session and raises."""
    request.session["user"] = "mallory"
    raise ZeroDivisionError


async def stream(request: Request) -> Response:
    """Changes the session and answers in many pieces."""
    request.session["streamed"] = True

    async def pieces() -> AsyncIterator[bytes]:
        for index in range(10):
            yield b"%d" % index * 1000

    return StreamingResponse(pieces())


async def socket(websocket: WebSocket) -> None:
    """Changes the session, accepts, and tells what the session holds."""
    websocket.session["sockets"] = websocket.session.get("sockets", 0) + 1
    await websocket.accept()
    await websocket.send_json(websocket.session)
    await websocket.close()


def post(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route that reads the request to its end first, as a form is.

    hypercorn 0.18 closes an HTTP/2 connection on which a response ends before its request (KeyError in its h2.py).
    """

    async def endpoint(request: Request) -> Response:
        await request.body()
        return await handler(request)

    return Route(path, endpoint, methods=["POST"])


def create_app() -> Starlette:
    """The application, with the keys of the environment."""
    routes = [
        Route("/health", health),
        Route("/session", show),
        post("/login/{user}", login),
        post("/add/{item}", add),
        post("/fill/{size:int}", fill),
        post("/renew", renew),
        post("/logout", logout),
        Route("/answer/{status:int}", answer),
        Route("/fail", fail),
        Route("/stream", stream),
        WebSocketRoute("/socket", socket),
    ]
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, keys=KeyRing.from_env("SESSION_KEYS"))])
