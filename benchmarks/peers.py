"""Cookiesession and the other libraries: each as a middleware around one ASGI application, set up as its README says.

Secrets are constants, and cookies last for 14 days, as Starlette's and ours do by default, or end with the browser, as
Flask's and authx-extra's do. What else differs from a library's default is said beside it.
"""

from __future__ import annotations

import hashlib
import warnings
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pydantic
from actions import Action, of_data, of_request, untouched
from measuring import application
from securecookies import SecureCookiesMiddleware
from starlette.middleware.sessions import SessionMiddleware as StarletteMiddleware
from starlette.requests import HTTPConnection
from starsessions import CookieStore, load_session
from starsessions import SessionMiddleware as StarsessionsMiddleware
from starsessions.encryptors import AESGCMEncryptor, FernetEncryptor

from cookiesession import Key, KeyRing, SessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from cookiesession.aead import Algorithm
    from cookiesession.keys import KeySource

warnings.filterwarnings("ignore", message="NoopEncryptor is not secure")  # starsessions' default

LIFETIME: Final = 14 * 24 * 60 * 60  # seconds
SECRETS: Final = (b"0123456789abcdef" * 2, b"fedcba9876543210" * 2)  # the older one first
FERNET_KEYS: Final = [urlsafe_b64encode(secret) for secret in SECRETS]


@dataclass(frozen=True)
class Peer:
    """A library, in one of its settings."""

    name: str
    protection: str
    """What keeps the cookie from being changed, and perhaps read."""
    application: Callable[[Action | None, int], ASGIApp]
    """An application that does this to its session. Of two keys, the second is the one that it has with one key."""
    bare: Callable[[], ASGIApp]
    """The same without sessions."""
    rotates: bool = False
    """Whether it takes two keys."""
    small: Callable[[Action | None, int], ASGIApp] | None = None
    """The application for sessions of six fields, where it is another."""

    @property
    def title(self) -> str:
        """The name, with the setting where there are several."""
        return f"{self.name}, {self.protection}" if self.name in ("cookiesession", "starsessions") else self.name


@cache
def bare() -> ASGIApp:
    """The application without sessions that ASGI middlewares are measured over."""
    return application(untouched)


def fill(data: dict[str, Any]) -> Action:
    """Puts `data` into a session."""

    def model(fields: Any) -> None:
        whole = msgspec.convert(data, type(fields)) if isinstance(fields, msgspec.Struct) else type(fields)(**data)
        for name in data:
            setattr(fields, name, getattr(whole, name))

    return Action("fill", lambda session: session.update(data), model)


class ItemStruct(msgspec.Struct):
    """What is in a cart."""

    sku: str
    name: str
    count: int
    cents: int


class SmallStruct(msgspec.Struct):
    """The session of 100 bytes."""

    user_id: int = 0
    name: str = ""
    theme: str = ""
    admin: bool = False
    views: int = 0
    at: int = 0


class LargeStruct(SmallStruct):
    """The others."""

    cart: list[ItemStruct] = []
    note: str = ""


class Item(pydantic.BaseModel):
    """What is in a cart."""

    sku: str
    name: str
    count: int
    cents: int


class SmallModel(pydantic.BaseModel):
    """The session of 100 bytes."""

    user_id: int = 0
    name: str = ""
    theme: str = ""
    admin: bool = False
    views: int = 0
    at: int = 0


class LargeModel(SmallModel):
    """The others."""

    cart: list[Item] = []
    note: str = ""


@cache
def keys(algorithm: Algorithm, count: int) -> KeyRing:
    """A ring of `count` keys, whose last one is always the same."""
    # The secrets of keys have to look random, and one process has to open what another has sealed.
    found = [Key(algorithm, hashlib.sha256(b"benchmark %d" % index).digest()) for index in range(count)]
    return KeyRing(*reversed(found))


class AnotherRing:
    """Gives the same keys in another ring each time, none of which has opened the token that comes next.

    A middleware remembers what one ring has opened last: with this source every cookie is one that it has not seen.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._rings = cycle([KeyRing(*ring.keys) for _ in range(3)])  # a write asks for two

    def current(self, now: float) -> KeyRing:
        """The next ring."""
        return next(self._rings)


def ours(
    algorithm: Algorithm = "xaes-256-gcm",
    model: Any = None,
    source: Callable[[KeyRing], KeySource] = lambda ring: ring,
) -> Callable[[Action | None, int], ASGIApp]:
    """Behind our middleware."""

    def build(action: Action | None, count: int = 1) -> ASGIApp:
        handler = of_request(action) if model is None else of_data(action)
        return SessionMiddleware(application(handler), keys=source(keys(algorithm, count)), model=model)

    return build


def starlette(action: Action | None, count: int = 1) -> ASGIApp:
    """Behind Starlette's."""
    return StarletteMiddleware(application(of_request(action)), secret_key=SECRETS[0].decode(), https_only=True)


def starsessions(encryptor: Any = None) -> Callable[[Action | None, int], ASGIApp]:
    """Behind starsessions', with its cookie store; a handler that needs its session loads it."""

    def build(action: Action | None, count: int = 1) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if action is not None:
                await load_session(HTTPConnection(scope))
                action.mapping(scope["session"])
            await bare()(scope, receive, send)

        store = CookieStore(secret_key=SECRETS[0].decode())
        options = {} if encryptor is None else {"encryptor": encryptor}
        return StarsessionsMiddleware(app, store=store, lifetime=LIFETIME, **options)

    return build


def securecookies(action: Action | None, count: int = 1) -> ASGIApp:
    """Starlette's middleware behind starlette-securecookies, which by default would discard all other cookies."""
    secrets = [key.decode() for key in FERNET_KEYS[:count][::-1]]
    return SecureCookiesMiddleware(starlette(action), secrets=secrets, included_cookies=["session"])


OURS: Final = Peer("cookiesession", "XAES-256-GCM", ours(), bare, rotates=True)
UNSEEN: Final = Peer("cookiesession, unseen", "XAES-256-GCM", ours(source=AnotherRing), bare, rotates=True)
STARLETTE: Final = Peer("Starlette", "signed", starlette, bare)
PEERS: Final = [
    OURS,
    UNSEEN,
    Peer("cookiesession", "AES-256-GCM", ours("aes-256-gcm"), bare, rotates=True),
    Peer("cookiesession", "Fernet", ours("fernet"), bare, rotates=True),
    Peer(
        "cookiesession, Struct",
        "XAES-256-GCM",
        ours(model=LargeStruct),
        bare,
        rotates=True,
        small=ours(model=SmallStruct),
    ),
    Peer(
        "cookiesession, pydantic",
        "XAES-256-GCM",
        ours(model=LargeModel),
        bare,
        rotates=True,
        small=ours(model=SmallModel),
    ),
    STARLETTE,
    Peer("starlette-securecookies", "signed, Fernet", securecookies, bare, rotates=True),
    Peer("starsessions", "signed", starsessions(), bare),
    Peer("starsessions", "signed, Fernet", starsessions(FernetEncryptor(FERNET_KEYS[0])), bare),
    Peer("starsessions", "signed, AES-256-GCM", starsessions(AESGCMEncryptor(SECRETS[0])), bare),
]
MISSING: Final[dict[str, str]] = {}
"""What cannot be measured here, and why."""
