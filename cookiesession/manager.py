"""`SessionManager`: the options, checked, and the mode that they choose. Knows nothing of ASGI."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypedDict, TypeVar, Unpack, get_args, overload

from cookiesession.configuration import Configuration
from cookiesession.cookiemode import CookieMode
from cookiesession.cookies import Cookie
from cookiesession.errors import ConfigurationError
from cookiesession.events import Event, Reporter
from cookiesession.keys import KeySource
from cookiesession.payload import PERSISTENT, seconds
from cookiesession.schema import codec_for
from cookiesession.servermode import ServedState, ServerMode
from cookiesession.session import PLACEHOLDER, Session, SessionDict, UnopenedDict
from cookiesession.state import State
from cookiesession.stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cookiesession.codec import Codec
    from cookiesession.listing import Listing, SessionInfo
    from cookiesession.models import Upgrade

T = TypeVar("T")

_ID_HASH: Final = re.compile("[0-9a-f]{64}")

OnStoreError = Literal["raise", "anonymous"]


class Options(TypedDict, total=False):
    """The keyword arguments of `SessionManager`, but for the model."""

    store: Store | None
    cookie: Cookie
    lifetime: timedelta
    idle_timeout: timedelta | None
    persistent: bool
    compress: bool
    renew_grace: timedelta
    overflow: bool
    on_store_error: OnStoreError
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
        cookie: Cookie = Cookie(),
        lifetime: timedelta = timedelta(days=14),
        idle_timeout: timedelta | None = None,
        persistent: bool = True,
        compress: bool = False,
        renew_grace: timedelta = timedelta(seconds=10),
        overflow: bool = False,
        on_store_error: OnStoreError = "raise",
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not isinstance(keys, KeySource):
            raise ConfigurationError(
                "keys is a KeyRing or KeyFile: KeyRing.from_env(name), KeyRing.parse(text), KeyFile(path)"
            )
        if store is not None and not isinstance(store, Store):
            raise ConfigurationError("store is a Store, such as RedisStore(url), or None")
        if overflow and store is None:
            raise ConfigurationError("overflow needs a store to flow over into")
        if on_store_error not in get_args(OnStoreError):
            raise ConfigurationError("on_store_error is 'raise' or 'anonymous'")
        self.cookie: Final = cookie
        self.model: Final = model
        self.reporter: Final = Reporter(on_event, clock)
        self.store: Final = store
        self.configuration = Configuration(
            keys=keys,
            cookie=cookie,
            model=model,
            lifetime=seconds("lifetime", lifetime),
            idle_timeout=0 if idle_timeout is None else seconds("idle_timeout", idle_timeout),
            flags=PERSISTENT if persistent else 0,
            compress=compress,
            renew_grace=0 if renew_grace == timedelta(0) else seconds("renew_grace", renew_grace),
            overflow=overflow,
            anonymous=on_store_error == "anonymous",
            reporter=self.reporter,
            clock=clock,
            random=random,
        )
        self._codec: Codec[T] = codec_for(model, upgrade)
        self.mode = self._mode()

    def session(self, headers: Iterable[tuple[bytes, bytes]]) -> Session[T]:
        """The session of a request with these headers: names in lower case and values, as ASGI has them.

        Costs nothing before the session is touched, and never raises for what a client sent. With a store, `load()`
        comes before the first touch.
        """
        return Session.of(self.handle(headers))

    def handle(self, headers: Iterable[tuple[bytes, bytes]]) -> Session[T] | SessionDict:
        """The same as a handler gets it: without a model the dict of the data, else the `Session`."""
        mode = self.mode
        state = State(mode, headers) if isinstance(mode, CookieMode) else ServedState(mode, headers)
        if self.model is not None:
            return Session(state)
        data = UnopenedDict(PLACEHOLDER)
        data._state = state  # type: ignore[assignment]  # without a model T is a dict
        return data

    async def load(self, handle: Session[T] | SessionDict) -> None:
        """Fetches the session from the store: one call of it, and none where no cookie of ours came with the request.

        Nothing without a store. Raises `StoreUnavailable`.
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
        if isinstance(self.mode, CookieMode):
            self.mode.report_late_write(handle)
        else:
            await self.mode.commit_late(handle)

    async def sessions(self, subject: str) -> list[SessionInfo]:
        """The live sessions of a subject, the one that was used last first. Raises `StoreUnavailable`."""
        return await self._listing().find(subject)

    async def end(self, session: Session[T] | SessionInfo | str) -> bool:
        """Ends a session: one of `sessions()`, or its `id_hash`. Whether there was one. Raises `StoreUnavailable`.

        Requests that are under way save nothing more to it.
        """
        listing = self._listing()
        id_hash = session if isinstance(session, str) else session.id_hash
        if not _ID_HASH.fullmatch(id_hash):
            raise ValueError("an id_hash is 64 hexadecimal digits, as sessions() and session.id_hash give it")
        return await listing.end(bytes.fromhex(id_hash))

    async def end_all(self, subject: str, *, except_id: str | None = None) -> int:
        """Ends all sessions of a subject but the one whose `id` is given. How many there were.

        That of a session that has just been renewed spares it too. Raises `StoreUnavailable`.
        """
        return await self._listing().end_all(subject, except_id)

    def with_configuration(self, **changes: Any) -> SessionManager[T]:
        """The same with another clock, say, or other keys. For tests, and `cookiesession.testing`."""
        other = copy.copy(self)
        other.configuration = dataclasses.replace(self.configuration, **changes)
        other.mode = other._mode()
        return other

    def _mode(self) -> CookieMode[T] | ServerMode[T]:
        if self.store is None:
            return CookieMode(self.configuration, self._codec)
        return ServerMode(self.configuration, self._codec, self.store)

    def _listing(self) -> Listing:
        if isinstance(self.mode, CookieMode):
            raise ConfigurationError("sessions can be listed and ended where there is a store: store=...")
        return self.mode.listing
