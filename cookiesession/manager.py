"""`SessionManager`: the options, checked, and the mode that they choose. Knows nothing of ASGI."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar, Unpack, overload

from cookiesession.configuration import Configuration, OnStoreError, configure
from cookiesession.cookiemode import CookieMode
from cookiesession.cookies import Cookie
from cookiesession.errors import ConfigurationError
from cookiesession.payload import ID_TEXT
from cookiesession.revocablemode import RevocableMode
from cookiesession.schema import codec_for
from cookiesession.servermode import ServerMode
from cookiesession.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cookiesession.codec import Codec
    from cookiesession.events import Event
    from cookiesession.guards import Guard
    from cookiesession.keys import KeySource
    from cookiesession.listing import Listing, RevocableListing, SessionInfo
    from cookiesession.models import Upgrade
    from cookiesession.revocation import Revocation
    from cookiesession.session import SessionDict
    from cookiesession.state import Scope
    from cookiesession.stores import Store

T = TypeVar("T")

_ID_HASH: Final = re.compile("[0-9a-f]{64}")


class Options(TypedDict, total=False):
    """The keyword arguments of `SessionManager`, but for the model."""

    store: Store | None
    revocation: Revocation | None
    cookie: Cookie
    lifetime: timedelta
    idle_timeout: timedelta | None
    persistent: bool
    compress: bool
    renew_grace: timedelta
    overflow: bool
    on_store_error: OnStoreError
    bind: Guard | Iterable[Guard]
    on_event: Callable[[Event], object] | None
    clock: Callable[[], float]
    random: Callable[[int], bytes]


class ModelOptions(Options, total=False):
    """All keyword arguments of `SessionManager`, which `SessionMiddleware` passes on."""

    model: Any
    upgrade: Upgrade | None


class SessionManager(Generic[T]):
    """Opens sessions from request headers and saves them as response headers, for any framework or none.

    - `keys`: a `KeyRing`, a `KeyFile`, or a `KeySource` of yours.
    - `model`: the type of the data: a pydantic `BaseModel`, a `msgspec.Struct`, a dataclass or a `TypedDict`, whose
      fields have defaults. Without one it is a dict.
    - `upgrade`: called with the plain data of an old session that `model` no longer accepts. It returns new data, plain
      or as the model, or None to give up. What it raises is logged, and gives up too.
    - `store`: keeps the data on the server, and only a sealed id in the cookie.
    - `revocation`: without a store, remembers which sessions have ended, so that no copy of their cookies opens.
    - `cookie`: the cookie's name, attributes and limits.
    - `lifetime`: how long a session lives from its creation, 1 second or more.
    - `idle_timeout`: how long it lives unused. A session that is used is written again once half of it has passed.
    - `persistent`: whether browsers keep new sessions when they close.
    - `compress`: makes large sessions smaller. Leave it off where a session holds both a secret and text that somebody
      else can choose: its length then tells about the secret.
    - `renew_grace`: how long the record of a renewed session stays for requests that are under way; 0 or more.
    - `overflow`: with a store, keeps a session in the cookie while it fits, and in the store while it does not.
    - `on_store_error`: what a store that fails does: `"raise"` a `StoreUnavailable`, or leave the request without a
      session (`"anonymous"`), whose changes are lost. The cookie stays as it is in both.
    - `bind`: a guard or several, such as `guards.user_agent`: a session opens only for a client of which they say the
      same as of the one that it was sealed for.
    - `on_event`: called with every `Event`, on the event loop; what it raises is logged.
    - `clock` and `random`: seconds since the epoch, and that many random bytes. For tests.

    Raises `ConfigurationError` for options that cannot work.

    >>> import asyncio
    >>> from cookiesession import Key, KeyRing
    >>> manager = SessionManager(KeyRing(Key.generate()))
    >>> session = manager.session(headers=[])
    >>> session.data["name"] = "Ada"
    >>> [(name, line)] = asyncio.run(manager.save(session))
    >>> later = manager.session([(b"cookie", line)])
    >>> later.data["name"]
    'Ada'
    """

    @overload
    def __init__(self: SessionManager[dict[str, Any]], keys: KeySource, **options: Unpack[Options]) -> None: ...

    @overload
    def __init__(
        self, keys: KeySource, *, model: type[T], upgrade: Upgrade | None = None, **options: Unpack[Options]
    ) -> None: ...

    def __init__(
        self,
        keys: KeySource,
        *,
        model: Any = None,
        upgrade: Upgrade | None = None,
        store: Store | None = None,
        revocation: Revocation | None = None,
        cookie: Cookie = Cookie(),
        lifetime: timedelta = timedelta(days=14),
        idle_timeout: timedelta | None = None,
        persistent: bool = True,
        compress: bool = False,
        renew_grace: timedelta = timedelta(seconds=10),
        overflow: bool = False,
        on_store_error: OnStoreError = "raise",
        bind: Guard | Iterable[Guard] = (),
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.configuration = configure(
            keys,
            model=model,
            store=store,
            revocation=revocation,
            cookie=cookie,
            lifetime=lifetime,
            idle_timeout=idle_timeout,
            persistent=persistent,
            compress=compress,
            renew_grace=renew_grace,
            overflow=overflow,
            on_store_error=on_store_error,
            bind=bind,
            on_event=on_event,
            clock=clock,
            random=random,
        )
        self.cookie: Final = cookie
        self.model: Final = model
        self._codec: Codec[T] = codec_for(model, upgrade)
        self.mode = _mode(self.configuration, self._codec)

    def session(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope | None = None) -> Session[T]:
        """The session of a request with these headers: names in lower case and values, as ASGI has them.

        Costs nothing before the session is touched, and never raises for what a client sent. With a store or a
        revocation, `load()` comes before the first touch. `scope` is ASGI's, for the guards of `bind`; without it they
        see the headers alone.
        """
        return Session.of(self.handle(headers, scope))

    def handle(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope | None = None) -> Session[T] | SessionDict:
        """The same as a handler gets it: without a model the dict of the data, else the `Session`."""
        return self.mode.handle(headers, scope)

    async def load(self, handle: Session[T] | SessionDict) -> None:
        """Fetches the session from the store: one call of it, and none where no cookie of ours came with the request.

        With a revocation it asks whether the session has ended. Nothing without either. Raises `StoreUnavailable`.
        """
        await Session.of(handle).load()

    async def save(self, handle: Session[T] | SessionDict) -> list[tuple[bytes, bytes]]:
        """The `set-cookie` headers for the response; none where nothing has to be written.

        Call it once the handler is done and before the response starts. Where the session was touched at all, the
        response also needs `Vary: Cookie`, and with these headers `Cache-Control: no-store`. Raises `SessionTooLarge`,
        `UnencodableData` and `StoreUnavailable`; the client then keeps what it has.
        """
        if not handle._state.opened:
            return []
        mode = self.mode
        return mode.commit(handle) if isinstance(mode, CookieMode) else await mode.commit(handle)

    async def save_late(self, handle: Session[T] | SessionDict) -> None:
        """Saves a change of an opened session that came after `save()`, when the headers had left.

        That needs a store, and a client that has the id; else the change is lost, and reported as a `LateWrite`.
        """
        if not handle._state.opened:
            return
        if isinstance(self.mode, CookieMode):
            self.mode.report_late_write(handle)
        else:
            await self.mode.commit_late(handle)

    async def sessions(self, subject: str) -> list[SessionInfo]:
        """The live sessions of a subject, the one that was used last first. Raises `StoreUnavailable`."""
        return await self._listing().find(_required(subject))

    async def end(self, session: Session[T] | SessionInfo | str) -> bool:
        """Ends a session: one of `sessions()`, or its `id_hash`. Whether there was one. Raises `StoreUnavailable`.

        Requests that are under way save nothing more to it. With a revocation: whether it had not been ended before.
        """
        listing = self._listing()
        id_hash, began = (session, None) if isinstance(session, str) else (session.id_hash, session.created_at)
        if not _ID_HASH.fullmatch(id_hash):
            raise ValueError("an id_hash is 64 hexadecimal digits, as sessions() and session.id_hash give it")
        return await listing.end(bytes.fromhex(id_hash), None if began is None else began.timestamp())

    async def end_all(self, subject: str, *, except_id: str | None = None, before: datetime | None = None) -> int:
        """Ends all sessions of a subject but the one whose `id` is given. How many there were.

        Only those that began `before` a time (with its zone), if one is given. That of a session that has just been
        renewed spares it too. With a revocation, sessions are counted only if they are tracked, and when they began is
        by the clocks of the instances: log in or renew after it, or pass `except_id`. Raises `StoreUnavailable`, and
        `ValueError` for what is no id, which would spare nobody.
        """
        if except_id is not None and not (isinstance(except_id, str) and ID_TEXT.fullmatch(except_id)):
            raise ValueError("except_id is 32 hexadecimal digits, as session.id gives it")
        return await self._listing().end_all(_required(subject), except_id, _timestamp(before))

    async def end_everything(self, *, before: datetime | None = None) -> None:
        """Ends every session that began `before` a time (with its zone), or until now: after an incident.

        Needs a revocation. Raises `StoreUnavailable`.
        """
        if not isinstance(self.mode, RevocableMode):
            raise ConfigurationError(
                "end_everything() needs a revocation; sessions in a store end with its records, or with the keys"
            )
        await self.mode.listing.end_everything(_timestamp(before))

    def with_configuration(self, **changes: Any) -> SessionManager[T]:
        """The same with another clock, say, or other keys. For tests, and `cookiesession.testing`."""
        other = copy.copy(self)
        other.configuration = dataclasses.replace(self.configuration, **changes)
        other.mode = _mode(other.configuration, self._codec)
        return other

    def _listing(self) -> Listing | RevocableListing:
        if isinstance(self.mode, CookieMode):
            raise ConfigurationError(
                "sessions can be listed and ended where there is a store: store=..., or revocation=Revocation(store)"
            )
        return self.mode.listing


def _mode(configuration: Configuration, codec: Codec[T]) -> CookieMode[T] | RevocableMode[T] | ServerMode[T]:
    if configuration.store is not None:
        return ServerMode(configuration, codec, configuration.store)
    if configuration.revocation is not None:
        return RevocableMode(configuration, codec, configuration.revocation)
    return CookieMode(configuration, codec)


def _required(subject: str) -> str:
    if not isinstance(subject, str):  # that of a visitor who has not signed in is None
        raise TypeError(f"a subject is a str, as session.subject is, not {type(subject).__name__}")
    return subject


def _timestamp(moment: datetime | None) -> float | None:
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise ValueError("before is a datetime with its zone: datetime.now(UTC)")
    return None if moment is None else moment.timestamp()
