"""`ServedState`: what one request knows of a session that is in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cookiesession.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cookiesession.payload import Payload
    from cookiesession.records import Held
    from cookiesession.state import Carried, Owner, Scope

T = TypeVar("T")


class ServedState(State[T]):
    """A `State` with both sides: what is in the cookie, and what is in the store."""

    __slots__ = ("__weakref__", "carried", "held", "is_adrift", "is_cleared", "is_loaded", "ticket")

    ticket: Carried | None  # the cookie's own side, once it has been read
    carried: T | None  # the data, where the cookie holds it
    held: Held | None  # as the store had it last
    is_loaded: bool
    is_adrift: bool  # the store did not answer, and the request goes on without
    is_cleared: bool  # by clear()

    def __init__(self, owner: Owner[T], headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> None:
        super().__init__(owner, headers, scope)
        self.ticket = self.carried = self.held = None
        self.is_loaded = self.is_adrift = self.is_cleared = False

    def settle(self, payload: Payload) -> None:
        """Takes note of what is kept from now on."""
        super().settle(payload)
        self.is_cleared = False
