"""Encrypted sessions for Starlette, FastAPI and any ASGI application."""

from cookiesession.cookies import Cookie
from cookiesession.errors import (
    ConfigurationError,
    CookieSessionError,
    InvalidToken,
    SessionEnded,
    SessionTooLarge,
    StoreUnavailable,
    UnencodableData,
)
from cookiesession.keyfile import KeyFile
from cookiesession.keys import Key, KeyRing, KeySource
from cookiesession.listing import SessionInfo
from cookiesession.manager import SessionManager
from cookiesession.middleware import SessionMiddleware, get_session, load_session
from cookiesession.revocation import Revocation
from cookiesession.session import Session

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "Cookie",
    "CookieSessionError",
    "InvalidToken",
    "Key",
    "KeyFile",
    "KeyRing",
    "KeySource",
    "Revocation",
    "Session",
    "SessionEnded",
    "SessionInfo",
    "SessionManager",
    "SessionMiddleware",
    "SessionTooLarge",
    "StoreUnavailable",
    "UnencodableData",
    "get_session",
    "load_session",
]
