"""For the tests of applications: sessions without logging in, and a look into what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cookiesession.cookiemode import CookieMode
from cookiesession.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cookiesession.keys import Key
    from cookiesession.manager import SessionManager
    from cookiesession.session import Session
    from cookiesession.state import Scope

T = TypeVar("T")


def cookies_for(
    manager: SessionManager[T],
    data: T,
    *,
    subject: str | None = None,
    persistent: bool | None = None,
    age: timedelta = timedelta(0),
    key: Key | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    client: str | None = None,
) -> dict[str, str]:
    """The cookies of a session with this data, by name, for any test client's jar.

    Put them there with the domain of the server, which http.cookiejar writes with `.local` where it has no dot, as
    `client.cookies.set(name, value, domain="testserver.local")` does for Starlette's `TestClient`. A jar keeps one
    without a domain beside what a response writes, and sends both: the server goes on with the first.

    `age` is how long ago the session began and was last used, and `key` what it is sealed under instead of the primary.
    `headers` and `client` are those of the client and its address, for the guards of `bind`: test clients have one of
    their own (Starlette's `"testclient"`, httpx's `"127.0.0.1"`). Raises what `SessionManager.save()` raises.

    With a store or a revocation this runs an event loop of its own. A store whose connections belong to another one, in
    Redis or PostgreSQL, cannot be used so: take a `MemoryStore`, or await `SessionManager.save()` where the store is.

    >>> from cookiesession import Key, KeyRing, SessionManager
    >>> manager = SessionManager(KeyRing(Key.generate()))
    >>> jar = cookies_for(manager, {"user_id": 42}, subject="42")
    >>> read_session(manager, jar).data["user_id"]
    42
    """
    now, keys = manager.configuration.clock, manager.configuration.keys
    then = manager.with_configuration(
        clock=lambda: now() - age.total_seconds(), keys=keys if key is None else KeyRing(key)
    )
    sent = tuple(headers)
    session = then.session(sent, _scope(sent, client))
    session.data = data
    session.subject = subject
    if persistent is not None:
        session.persistent = persistent
    mode = then.mode
    answer = mode.commit(session) if isinstance(mode, CookieMode) else asyncio.run(then.save(session))
    return dict(line.decode().partition(";")[0].split("=", 1) for _, line in answer)


def read_session(
    manager: SessionManager[T],
    source: Any,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    client: str | None = None,
) -> Session[T] | None:
    """The session in a jar, or in a response's `Set-Cookie` headers; None where there is none, or none that is valid.

    `source` is a mapping of names to values (as `cookies_for` gives), a cookie jar, or a response of httpx, Starlette
    or requests; `headers` and `client` are as for `cookies_for`. A response that deletes the session gives None, as
    does one that does not write it: then the client's jar tells what it has. A store is asked as by `cookies_for`.

    >>> from cookiesession import Key, KeyRing, SessionManager
    >>> read_session(SessionManager(KeyRing(Key.generate())), {"__Host-session": "forged"}) is None
    True
    """
    pairs = "; ".join(f"{name}={value}" for name, value in _pairs(source))
    sent = [*headers, (b"cookie", pairs.encode("latin-1"))]
    session = manager.session(sent, _scope(sent, client))
    if not isinstance(manager.mode, CookieMode):
        asyncio.run(manager.load(session))
    return None if session.is_new else session


def _scope(headers: Iterable[tuple[bytes, bytes]], client: str | None) -> Scope:
    return {"type": "http", "headers": headers, "client": None if client is None else (client, 0)}


def _pairs(source: Any) -> Iterable[tuple[str, str]]:
    jar: Any = getattr(source, "cookies", source)
    if isinstance(jar, Mapping):
        return jar.items()
    return [(cookie.name, cookie.value) for cookie in jar]  # the standard library's
