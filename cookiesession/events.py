"""What is worth counting. Events carry key ids, sizes and reasons; never a token, a session id or a value."""

from __future__ import annotations

import inspect
import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from cookiesession.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.errors import Reason

LOG_INTERVAL: Final = 60
"""Seconds: each kind of event is logged at most once in so long, with the number of those left out."""

_logger = logging.getLogger("cookiesession")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A cookie gave a session. `size` is the token's bytes; `primary` tells whether the primary key had sealed it."""

    level: ClassVar[int] = logging.DEBUG
    key_id: str
    primary: bool
    size: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A session was written to the response. `size` is the token's bytes."""

    level: ClassVar[int] = logging.DEBUG
    key_id: str
    size: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """An unchanged session was written again because `old_key_id` is not the primary key. Its times stay.

    Where it is the primary key, the session was sealed before the manager had its `bind`, and is bound from now on.
    """

    level: ClassVar[int] = logging.DEBUG
    key_id: str
    old_key_id: str
    size: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """A session ended, and its cookies were deleted."""

    level: ClassVar[int] = logging.DEBUG


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A cookie gave no session. The client is not told. `path` is that of a field which the model refused."""

    level: ClassVar[int] = logging.INFO
    reason: Reason
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LateWrite:
    """A session changed too late, and the change is lost: the response had started, or the session was renewed."""

    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLarge:
    """A session did not fit into its cookies, and `SessionTooLarge` was raised. Sizes are bytes of token text."""

    level: ClassVar[int] = logging.WARNING
    size: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicResponse:
    """A response that sets a session's cookie says `Cache-Control: public`: a shared cache may hand it to others."""

    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A store gave a session's record. `size` is its bytes; `primary` tells whether the primary key had sealed it."""

    level: ClassVar[int] = logging.DEBUG
    key_id: str
    primary: bool
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A session was written to the store. `size` is the record's bytes, `conflicts` how often another was faster."""

    level: ClassVar[int] = logging.DEBUG
    key_id: str
    size: int
    conflicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """A store did not do what it was asked, and the request went on without: see `on_store_error`, and `Revocation`."""

    level: ClassVar[int] = logging.ERROR
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRead:
    """A key file was read and is in use. `key_id` is that of the key that seals, `keys` the number of all in it."""

    level: ClassVar[int] = logging.INFO
    path: str
    key_id: str
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefused:
    """A key file could not be read, or not be used; the keys that were read last stay in use."""

    level: ClassVar[int] = logging.ERROR
    path: str
    problem: str


SessionEvent = Opened | Sealed | Resealed | Cleared | Rejected | LateWrite | TooLarge | PublicResponse
StoreEvent = Loaded | Stored | StoreFailed
KeyEvent = KeysRead | KeysRefused
Event = SessionEvent | StoreEvent | KeyEvent


class Reporter:
    """Hands events to the application's callable and, at a bounded rate, to the logger `cookiesession`.

    `log_interval` is in seconds: each kind of event is logged at most once in so long. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        listener: Callable[[Event], object] | None,
        clock: Callable[[], float],
        log_interval: float = LOG_INTERVAL,
    ) -> None:
        if listener is not None and (not callable(listener) or inspect.iscoroutinefunction(listener)):
            raise ConfigurationError(
                "on_event is a plain function, which is called where nothing can be awaited, or None"
            )
        self._listener = listener
        self._clock = clock
        self._log_interval = log_interval
        self.debugging: Final[Callable[[], bool]] = (
            partial(_logger.isEnabledFor, logging.DEBUG) if listener is None else lambda: True
        )
        """Whether anybody would see an everyday event; asked before one is made."""
        self._logged_at: dict[type, float] = {}
        self._left_out: dict[type, int] = {}

    def report(self, event: Event) -> None:
        """Never raises: a listener that does is logged, and harms no request."""
        self.log(type(event), event.level, "%r", event)
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception as error:  # noqa: BLE001 - whatever the application's callable raises
                self.log(type(error), logging.ERROR, "on_event raised %s", type(error).__name__, exc_info=True)

    def log(self, kind: type, level: int, message: str, detail: object, *, exc_info: bool = False) -> None:
        """A record in the log; those of one `kind` at the bounded rate."""
        if not _logger.isEnabledFor(level):
            return
        now = self._clock()
        if 0 <= now - self._logged_at.get(kind, -math.inf) < self._log_interval:  # a clock may be put back
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._logged_at[kind] = now
        if left_out := self._left_out.pop(kind, 0):
            message += f" (and {left_out} more since the last such record)"
        _logger.log(level, message, detail, exc_info=exc_info)
