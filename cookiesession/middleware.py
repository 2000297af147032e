"""The ASGI adapter: puts the session into the scope, and what the manager says of it into the response's headers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from cookiesession.cookiemode import CookieMode
from cookiesession.errors import ConfigurationError, StoreUnavailable
from cookiesession.events import PublicResponse
from cookiesession.manager import ModelOptions, SessionManager
from cookiesession.rules import Rules
from cookiesession.session import Session, SessionDict
from cookiesession.stores import CheckedStore

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Unpack

    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cookiesession.keys import KeySource

    _Handle = SessionDict | Session[Any]

_logger = logging.getLogger("cookiesession")

_CONNECTIONS: Final = frozenset({"http", "websocket"})
_SERVER_ERROR: Final = 500  # the first status of one, and of all after which nothing is saved
_STACK: Final = 100  # middlewares, each with the next as its `app`, in which another of ours is looked for
_VARY: Final = (b"vary", b"Cookie")
_NO_STORE: Final = (b"cache-control", b"no-store")
_REFUSAL: Final = "websocket.close"  # before an accept: a response, but without headers
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start", _REFUSAL})


class SessionMiddleware:
    """Gives every request a session: `request.session`, or `scope["session"]`.

    Takes a `SessionManager`, or the keyword arguments of one. `scope_key` is the entry of the scope that holds the
    session; two sessions in one application need two names, and two cookies. With a store, every request with a cookie
    of ours has its session fetched before the application sees it, and with a revocation it is asked for; `lazy` leaves
    that to `await load_session(request)`.

    The session is saved when the response starts (for a websocket, when it is accepted) with a status below 500. A
    handler that raises therefore saves nothing. A store that fails before the response has started makes it a 503.
    What the application has put into `scope["session"]` by then replaces the data; what is no data there, None say,
    ends the session. Raises `ConfigurationError` for options that cannot work.

    >>> from starlette.applications import Starlette
    >>> from cookiesession import Key, KeyRing
    >>> app = Starlette()
    >>> app.add_middleware(SessionMiddleware, keys=KeyRing(Key.generate()))
    """

    def __init__(
        self,
        app: ASGIApp,
        manager: SessionManager[Any] | None = None,
        *,
        scope_key: str = "session",
        lazy: bool = False,
        keys: KeySource | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        if manager is None and keys is not None:
            manager = SessionManager[Any](keys, **cast("Any", options))
        elif not isinstance(manager, SessionManager) or keys is not None or options:
            raise ConfigurationError(
                "SessionMiddleware takes either a manager, or keys=... and the other options of one"
            )
        if not isinstance(lazy, bool):  # "no" would be true
            raise ConfigurationError("lazy is True or False")
        if not isinstance(scope_key, str):
            raise ConfigurationError("scope_key is a str: the name of the session in the scope")
        self.app = app
        self.manager: SessionManager[Any] = manager
        self._require_own_cookie(scope_key)
        self._waits = not isinstance(manager.mode, CookieMode)
        self._mode = cast("CookieMode[Any]", manager.mode)  # the others are served apart
        self._reporter = manager.configuration.reporter
        self._is_bound = manager.configuration.guards is not None
        self.scope_key = scope_key
        self.lazy = lazy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] not in _CONNECTIONS or self.scope_key in scope:
            await self._pass_on(scope, receive, send)
            return
        # For guards a copy: a session within the scope that it knows would be left to the garbage collector.
        scope[self.scope_key] = handle = self._mode.handle(scope["headers"], dict(scope) if self._is_bound else None)
        if self._waits:
            await self._serve_with_store(handle, scope, receive, send)
            return
        fixed = False  # the outcome; by the start of a response that is not a server error

        def send_with_session(message: Message) -> Awaitable[None]:
            nonlocal fixed
            if not fixed and message["type"] in _STARTS:
                ended_well = message.get("status", 200) < _SERVER_ERROR
                if scope.get(self.scope_key) is not handle:
                    _adopt(handle, scope.get(self.scope_key))
                if handle._state.opened and message["type"] != _REFUSAL:
                    message = self._with_session(message, self._mode.commit(handle) if ended_well else [])
                fixed = ended_well  # last: after what raises, another response may start
            return send(message)

        app = self.app  # called as a method it would be looked for on the class first
        await app(scope, receive, send_with_session)
        if fixed and handle._state.opened:
            self._mode.report_late_write(handle)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no connection, and one that has a session already: its own for us, if that is another cookie's."""
        outer = scope.get(self.scope_key)
        if scope["type"] in _CONNECTIONS and not self._is_served_by(outer):
            del scope[self.scope_key]
            try:
                await self(scope, receive, send)
            finally:
                scope[self.scope_key] = outer
            return
        if scope["type"] == "lifespan":
            await self._check_store()
        await self.app(scope, receive, send)

    async def _check_store(self) -> None:
        options = self.manager.configuration
        store = options.store if options.revocation is None else options.revocation.store
        if isinstance(store, CheckedStore):
            try:
                await store.check()
            except StoreUnavailable as error:  # it may be up by the first request
                _logger.warning("the session store could not be checked: %s", error)

    async def _serve_with_store(self, handle: _Handle, scope: Scope, receive: Receive, send: Send) -> None:
        state = handle._state
        fixed = started = False

        async def send_with_session(message: Message) -> None:
            nonlocal fixed, started
            if not fixed and message["type"] in _STARTS:
                ended_well = message.get("status", 200) < _SERVER_ERROR
                if scope.get(self.scope_key) is not handle:
                    await self.manager.load(handle)
                    _adopt(handle, scope.get(self.scope_key))
                if state.opened and message["type"] != _REFUSAL:
                    message = self._with_session(message, await self.manager.save(handle) if ended_well else [])
                fixed = ended_well
            started = True
            await send(message)

        try:
            if not self.lazy:
                await self.manager.load(handle)
            await self.app(scope, receive, send_with_session)
        except Exception as error:
            failure = _failure_of_the_store(error)
            if started or failure is None:
                raise
            # At a bounded rate: as long as a store is down, every request is one.
            self._reporter.log(StoreUnavailable, logging.ERROR, "a request was refused: %s", failure)
            await _refuse(scope, send)
            return
        if fixed and state.opened:
            await self.manager.save_late(handle)

    def _with_session(self, message: Message, cookies: list[tuple[bytes, bytes]]) -> Message:
        headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
        varies = is_controlled = False
        for name, _ in headers:
            if name == b"vary":
                varies = True
            elif name == b"cache-control":
                is_controlled = True
        if not varies:
            headers.append(_VARY)
        elif not _varies_by_cookie(headers):
            headers = [(name, value + b", Cookie" if name == b"vary" else value) for name, value in headers]
        if cookies:
            if not is_controlled:
                headers.append(_NO_STORE)
            elif b"public" in b",".join(value for name, value in headers if name == b"cache-control").lower():
                self._reporter.report(PublicResponse())
            headers += cookies
        return {**message, "headers": headers}

    def _require_own_cookie(self, scope_key: str) -> None:
        """Two sessions in one cookie would write over each other. Raises `ConfigurationError`."""
        within: Any = self.app
        for _ in range(_STACK):
            if (
                isinstance(within, SessionMiddleware)
                and within.scope_key != scope_key
                and within.manager.cookie.full_name == self.manager.cookie.full_name
            ):
                raise ConfigurationError("two sessions need two cookies: cookie=Cookie(name=...) for one of them")
            within = getattr(within, "app", None)

    def _is_served_by(self, outer: object) -> bool:
        # Installed twice, say by a mounted application: the outer one reads and writes this cookie already.
        owner = outer._state.owner if isinstance(outer, SessionDict | Session) else None
        if not isinstance(owner, Rules) or owner.cookie.full_name != self.manager.cookie.full_name:
            return False
        if owner.model is not self.manager.model:
            raise ConfigurationError(
                "two SessionMiddleware with one cookie need one model; give one of them another name"
            )
        lacks_store = self._waits and type(owner) is not type(self.manager.mode)
        if lacks_store or (self._is_bound and owner.guards is None):
            raise ConfigurationError(
                "the outer of two SessionMiddleware with one cookie serves both, and lacks the store=, revocation= or "
                "bind= of the inner one; give them one manager, or one of them another name"
            )
        return True


async def load_session(connection: HTTPConnection, scope_key: str = "session") -> Session[Any]:
    """The `Session`, as `get_session()` gives it, fetched from the store: for a middleware that is `lazy`.

    Nothing to wait for where it has been fetched already, or is in its cookie. Raises `StoreUnavailable`.

    >>> async def cart(request):
    ...     session = await load_session(request)
    """
    session = get_session(connection, scope_key)
    await session.load()
    return session


def get_session(connection: HTTPConnection, scope_key: str = "session") -> Session[Any]:
    """The `Session` of a request or websocket: data, identity, lifetime and verbs, whether or not there is a model.

    Raises `ConfigurationError` where no `SessionMiddleware` has put one.

    >>> def logout(request):
    ...     get_session(request).clear()
    """
    handle = connection.scope.get(scope_key)
    if not isinstance(handle, SessionDict | Session):
        raise ConfigurationError(
            f"there is no session in scope[{scope_key!r}]; add SessionMiddleware to the application"
        )
    return Session.of(handle)


def _adopt(handle: _Handle, replacement: object) -> None:
    """Takes what the application has put in the place of a session."""
    if isinstance(replacement, Session) or (isinstance(replacement, dict) and type(replacement) is not dict):
        return  # the session of another middleware within this one
    session = Session.of(handle)
    try:
        session.data = replacement
    except TypeError:  # it is no data
        session.clear()


def _failure_of_the_store(error: Exception) -> StoreUnavailable | None:
    """What `error` is, if it is that alone: a task group puts it into an `ExceptionGroup`, maybe of several."""
    while isinstance(error, ExceptionGroup) and error.split(StoreUnavailable)[1] is None:
        error = error.exceptions[0]
    return error if isinstance(error, StoreUnavailable) else None


async def _refuse(scope: Scope, send: Send) -> None:
    """Says that there is no service, and nothing of why. The cookie stays as it is."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})  # RFC 6455, registry of 7.4.1: try again later
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b"Service Unavailable"})


def _varies_by_cookie(headers: list[tuple[bytes, bytes]]) -> bool:
    fields = b",".join(value for name, value in headers if name == b"vary").lower().split(b",")
    return not {b"cookie", b"*"}.isdisjoint(field.strip() for field in fields)
