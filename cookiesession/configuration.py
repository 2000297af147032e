"""`Configuration`: what a manager was told, as those who work for it need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.cookies import Cookie
    from cookiesession.events import Reporter
    from cookiesession.keys import KeySource


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Options of a manager, checked, and in the units of a payload."""

    keys: KeySource
    cookie: Cookie
    model: Any
    lifetime: int
    idle_timeout: int
    """0 for never."""
    flags: int
    compress: bool
    renew_grace: int
    overflow: bool
    anonymous: bool
    """What a store that fails leaves."""
    reporter: Reporter
    clock: Callable[[], float]
    random: Callable[[int], bytes]
