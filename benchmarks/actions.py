"""What a handler does with its session, as functions of what `request.session` or `session.data` is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from measuring import Handler
    from starlette.types import Scope


@dataclass(frozen=True)
class Action:
    """What is done to a session that is a mapping, and to one that is an object with the same fields."""

    name: str
    mapping: Callable[[Any], object]
    model: Callable[[Any], object]


def _read_model(data: Any) -> None:
    _ = data.views


def _write(session: Any) -> None:
    session["views"] += 1


def _write_model(data: Any) -> None:
    data.views += 1


def _nested(session: Any) -> None:
    session["cart"][0]["count"] += 1


def _nested_model(data: Any) -> None:
    data.cart[0].count += 1


GLANCE: Final = Action("anonymous", lambda session: session.get("views"), _read_model)
"""Looks for what an anonymous visitor does not have."""

READ: Final = Action("read", lambda session: session["views"], _read_model)
"""Reads an entry."""

WRITE: Final = Action("write", _write, _write_model)
"""Changes an entry."""

NESTED: Final = Action("nested write", _nested, _nested_model)
"""Changes what is inside an entry."""


def keep(kept: list[Any]) -> Action:
    """Puts what `WRITE` and `NESTED` change into `kept`: the views, and the count of the first item."""

    def mapping(session: Any) -> None:
        kept[:] = [session.get("views"), *(item["count"] for item in session.get("cart", [])[:1])]

    def model(data: Any) -> None:
        kept[:] = [data.views, *(item.count for item in getattr(data, "cart", [])[:1])]

    return Action("keep", mapping, model)


def untouched(scope: Scope) -> None:
    """Leaves the session alone, or has none: the handler of a bare application."""


def of_request(action: Action | None) -> Handler:
    """The handler that does `action` to `request.session`, without the cost of a request object."""
    if action is None:
        return untouched
    act = action.mapping

    def handler(scope: Scope) -> None:
        session = scope["session"]
        session.mark_accessed()  # as `Request.session` does
        act(session)

    return handler


def of_data(action: Action | None) -> Handler:
    """The same for a typed session."""
    if action is None:
        return untouched
    act = action.model
    return lambda scope: act(scope["session"].data)
