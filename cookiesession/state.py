"""What one request knows of its session besides the data, and what a session asks of its owner."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from datetime import timedelta

    from cookiesession.keys import Key
    from cookiesession.payload import Payload

T = TypeVar("T")

Scope = MutableMapping[str, Any]
"""What an ASGI server says of a connection."""


class Owner(Protocol[T]):
    """What a session asks of its manager."""

    def open(self, state: State[T]) -> T:
        """The data of the request's session, or of a fresh one; fills in the rest of `state`."""
        ...

    def load(self, state: State[T]) -> Awaitable[None]:
        """Makes ready what `open()` needs."""
        ...

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session, in the place of one that was cleared; makes `state` that of one."""
        ...

    def renewed(self, payload: Payload) -> Payload:
        """`payload` without its id, and with the times of a session that begins now."""
        ...

    def identify(self, state: State[T]) -> None:
        """Gives the payload of `state` an id, if it has none yet."""
        ...

    def changed(self, handle: Any) -> bytes | None:
        """The bytes of an opened session's data, if they are not those that are kept."""
        ...

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is of the type that this manager's sessions hold."""
        ...

    def expiry(self, payload: Payload, lifetime: timedelta) -> int:
        """The second at which a session ends that lives from now for `lifetime`. Raises `ConfigurationError`."""
        ...

    def remaining(self, payload: Payload) -> timedelta:
        """How long a session of this payload lives at the longest."""
        ...

    def transact(self, session: Any, change: Callable[[T], T | None]) -> Awaitable[None]:
        """Changes the newest record of a `Session[T]`, as `Session.transact()` promises."""
        ...


class Carried:
    """What the cookies of a client hold: read from a request, and kept up to date when a response sets others."""

    __slots__ = ("bound", "brought", "expired", "headers", "is_watched", "key", "payload", "rotated", "scope")

    bound: bytes | None  # the hash of what guards say of the client, once they have been asked
    brought: Sequence[int]  # the chunks that the client has
    key: Key | None  # the one that they are sealed under; without one they give no session
    payload: Payload
    expired: bool  # they held a session whose time is over
    is_watched: bool  # somebody sees everyday events
    rotated: bool  # to be sealed anew: under another key than the one that seals now, or for nobody

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> None:
        self.headers = headers
        self.scope = scope


class State(Carried, Generic[T]):
    """The session of one request. Its `payload` is as the client has it, but for what a verb has changed."""

    __slots__ = ("amended", "blank", "due", "is_new", "opened", "overdue", "owner", "renewed", "site_data")

    amended: bool  # by a verb
    is_new: bool
    blank: bool  # its data is a fresh default, which the client does not have
    renewed: bool  # by renew()
    due: bool  # half of the idle timeout has passed
    overdue: bool  # to be written or deleted even if nothing changes
    site_data: bool  # the browser is to forget all that it has of the site

    def __init__(self, owner: Owner[T], headers: Iterable[tuple[bytes, bytes]], scope: Scope | None = None) -> None:
        self.owner = owner
        self.headers = headers
        self.scope = scope
        self.opened = self.site_data = False

    def settle(self, payload: Payload) -> None:
        """Takes note of what is kept from now on."""
        self.payload = payload
        self.amended = self.blank = self.renewed = self.due = self.overdue = False
        self.opened = True
