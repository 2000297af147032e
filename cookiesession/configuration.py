"""`Configuration`: the options of a manager, checked, as those who work for it need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from cookiesession.cookies import Cookie
from cookiesession.errors import ConfigurationError
from cookiesession.events import Reporter
from cookiesession.keys import KeySource
from cookiesession.payload import PERSISTENT, seconds
from cookiesession.revocation import Revocation
from cookiesession.stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from cookiesession.events import Event
    from cookiesession.guards import Guard, Guards

OnStoreError = Literal["raise", "anonymous"]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Options of a manager, checked, and in the units of a payload."""

    keys: KeySource
    cookie: Cookie
    model: Any
    store: Store | None
    revocation: Revocation | None
    lifetime: int
    idle_timeout: int
    """0 for never."""
    flags: int
    compress: bool
    renew_grace: int
    overflow: bool
    anonymous: bool
    """What a store that fails leaves."""
    guards: Guards | None
    """What sessions are bound to."""
    reporter: Reporter
    clock: Callable[[], float]
    random: Callable[[int], bytes]


def configure(
    keys: KeySource,
    *,
    model: Any,
    store: Store | None,
    revocation: Revocation | None,
    cookie: Cookie,
    lifetime: timedelta,
    idle_timeout: timedelta | None,
    persistent: bool,
    compress: bool,
    renew_grace: timedelta,
    overflow: bool,
    on_store_error: OnStoreError,
    bind: Guard | Iterable[Guard],
    on_event: Callable[[Event], object] | None,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
) -> Configuration:
    """The configuration of these options, as `SessionManager` takes them. Raises `ConfigurationError`."""
    _require(
        _is_one(keys, KeySource),
        "keys is a KeyRing or KeyFile: KeyRing.from_env(name), KeyRing.parse(text), KeyFile(path)",
    )
    _require(store is None or _is_one(store, Store), "store is a Store, such as RedisStore(url), or None")
    _require(revocation is None or isinstance(revocation, Revocation), "revocation is a Revocation(store), or None")
    _require(
        revocation is None or store is None,
        "revocation ends what lives in cookies; sessions in a store= end there without it",
    )
    _require(isinstance(cookie, Cookie), "cookie is a Cookie, such as Cookie(name='sid')")
    for name, value in (("persistent", persistent), ("compress", compress), ("overflow", overflow)):
        _require(isinstance(value, bool), f"{name} is True or False")
    _require(store is not None or not overflow, "overflow needs a store to flow over into")
    _require(on_store_error in get_args(OnStoreError), "on_store_error is 'raise' or 'anonymous'")
    _require(callable(clock), "clock is a function that gives the time, as time.time does")
    _require(callable(random), "random is a function that gives so many bytes, as os.urandom does")
    return Configuration(
        keys=keys,
        cookie=cookie,
        model=model,
        store=store,
        revocation=revocation,
        lifetime=seconds("lifetime", lifetime),
        idle_timeout=0 if idle_timeout is None else seconds("idle_timeout", idle_timeout),
        flags=PERSISTENT if persistent else 0,
        compress=compress,
        renew_grace=seconds("renew_grace", renew_grace, or_none=True),
        overflow=overflow,
        anonymous=on_store_error == "anonymous",
        guards=_guards(bind),
        reporter=Reporter(on_event, clock),
        clock=clock,
        random=random,
    )


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)


def _is_one(value: object, protocol: type) -> bool:
    return isinstance(value, protocol) and not isinstance(value, type)  # a class has the methods too


def _guards(bind: Guard | Iterable[Guard]) -> Guards | None:
    if bind == ():
        return None
    from cookiesession.guards import Guards  # noqa: PLC0415 - Starlette is slow to import

    return Guards(bind)
