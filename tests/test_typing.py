"""What mypy and pyright make of the public names. Both read this file, strictly; running it shows that it is true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

import msgspec
import pytest
from pydantic import BaseModel
from starlette.requests import Request

from cookiesession import ConfigurationError, Key, KeyRing, Session, SessionManager, SessionMiddleware, get_session
from cookiesession.fastapi import SessionDep  # noqa: TC001 - as in an application
from cookiesession.testing import cookies_for, read_session


class Visitor(BaseModel):
    """A session's data."""

    user_id: int | None = None
    cart: list[str] = []


class VisitorStruct(msgspec.Struct):
    """The same as a Struct."""

    user_id: int | None = None


@dataclass
class VisitorDataclass:
    """The same as a dataclass."""

    user_id: int | None = None


class VisitorDict(TypedDict, total=False):
    """The same as a TypedDict."""

    user_id: int


RING = KeyRing(Key.generate())


def test_a_manager_without_a_model_holds_dicts() -> None:
    """The untyped form."""
    manager = SessionManager(RING)
    session = manager.session([])

    assert_type(manager, SessionManager[dict[str, Any]])
    assert_type(session, Session[dict[str, Any]])
    assert_type(session.data, dict[str, Any])
    assert isinstance(session.data, dict)


def test_a_manager_with_a_model_holds_the_model() -> None:
    """Of any kind."""
    manager = SessionManager(RING, model=Visitor)
    session = manager.session([])

    assert_type(manager, SessionManager[Visitor])
    assert_type(session.data, Visitor)
    assert_type(session.data.user_id, int | None)
    assert_type(session.subject, str | None)
    assert_type(SessionManager(RING, model=VisitorStruct).session([]).data, VisitorStruct)
    assert_type(SessionManager(RING, model=VisitorDataclass).session([]).data, VisitorDataclass)
    assert_type(SessionManager(RING, model=VisitorDict).session([]).data, VisitorDict)
    assert isinstance(session.data, Visitor)


def test_a_dependency_is_a_typed_session() -> None:
    """In a handler's signature."""

    def handler(session: SessionDep[Visitor]) -> int | None:
        assert_type(session, Session[Visitor])
        assert_type(session.data.cart, list[str])
        return session.data.user_id

    session = SessionManager(RING, model=Visitor).session([])

    assert handler(session) is None


def test_a_request_may_hold_any_session() -> None:
    """Only the handler knows which: annotate the variable."""
    handle = SessionManager(RING, model=Visitor).handle([])
    request = Request({"type": "http", "headers": [], "session": handle})

    anything = get_session(request)
    session: Session[Visitor] = get_session(request)

    assert_type(anything, Session[Any])
    assert_type(session.data, Visitor)
    assert handle is session


def test_the_tests_own_tools_are_typed() -> None:
    """By the manager that they are given."""
    manager = SessionManager(RING, model=Visitor)

    jar = cookies_for(manager, Visitor(user_id=1))
    session = read_session(manager, jar)

    assert_type(jar, dict[str, str])
    assert_type(session, Session[Visitor] | None)
    assert session is not None


def test_the_middlewares_options_are_checked() -> None:
    """Name and type: the checkers refuse each of these two lines, and so does the constructor."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    SessionMiddleware(app, keys=RING, model=Visitor, compress=True)
    with pytest.raises(TypeError, match="lifetme"):
        SessionMiddleware(app, keys=RING, lifetme=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigurationError, match="lifetime"):
        SessionMiddleware(app, keys=RING, lifetime=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
