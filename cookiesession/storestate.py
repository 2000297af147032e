"""`ServedState` and `RevocableState`: what one request knows of a session where there is a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cookiesession.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cookiesession.payload import Payload
    from cookiesession.records import Held
    from cookiesession.state import Carried, Owner, Scope

T = TypeVar("T")


class StoreState(State[T]):
    """What both have in common: the store has to be asked, and may not answer."""

    __slots__ = ("__weakref__", "carried", "is_adrift", "is_cleared", "is_loaded")

    carried: T | None  # the data, where the cookie holds it and it counts
    is_loaded: bool
    is_adrift: bool  # the store did not answer, and the request goes on without
    is_cleared: bool  # by clear(), since the last commit

    def __init__(self, owner: Owner[T], headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> None:
        super().__init__(owner, headers, scope)
        self.carried = None
        self.is_loaded = self.is_adrift = self.is_cleared = False


class ServedState(StoreState[T]):
    """Of a session in a store: both sides, what is in the cookie, and what is in the store."""

    __slots__ = ("held", "ticket")

    ticket: Carried | None  # the cookie's own side, once it has been read
    held: Held | None  # as the store had it last

    def __init__(self, owner: Owner[T], headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> None:
        super().__init__(owner, headers, scope)
        self.ticket = self.held = None

    def settle(self, payload: Payload) -> None:
        """Takes note of what is kept from now on."""
        super().settle(payload)
        self.is_cleared = False


class RevocableState(StoreState[T]):
    """Of a session in a cookie that may have been ended."""

    __slots__ = ("former", "is_read", "is_superseded")

    former: Payload | None  # what the client has, and could be ended
    is_read: bool  # the cookie
    is_superseded: bool  # renewed by another request, and left to this one until its grace ends

    def __init__(self, owner: Owner[T], headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> None:
        super().__init__(owner, headers, scope)
        self.former = None
        self.is_read = self.is_superseded = self.rotated = False

    def revert(self, before: RevocableState[T]) -> None:
        """Takes back what was noted for headers that are not sent."""
        for name in ("brought", "key", "payload", "amended", "blank", "renewed", "due", "overdue", "site_data"):
            setattr(self, name, getattr(before, name))
