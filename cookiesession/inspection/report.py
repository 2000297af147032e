"""What is known of one token, as values; and times and names as people read them. Reads no token and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cookiesession.schedule import moment
from cookiesession.times import brief, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from cookiesession.aead import Algorithm
    from cookiesession.errors import Reason
    from cookiesession.payload import Payload
    from cookiesession.schedule import KeyState


@dataclass(frozen=True)
class KnownKey:
    """A key that a token may name, and what it does at the time. Never its secret."""

    id: str
    algorithm: Algorithm
    state: KeyState
    retires: datetime | None

    def __str__(self) -> str:
        end = "" if self.retires is None else f" {stamp(self.retires)}"
        state = self.state if not end else f"retired{end}" if self.state == "retired" else f"{self.state}, retires{end}"
        return f"{self.id} ({self.algorithm}, {state})"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The envelope from outside, which anybody can write. What it does not say is None."""

    version: int | None
    """Its first byte: 1, or 128 for Fernet."""
    length: int
    """Bytes of the whole envelope."""
    algorithm: Algorithm | None
    key_id: str | None
    """The id of the key that it names; of a Fernet token, which names none, that of the key that opens it."""
    key: KnownKey | None
    nonce: int | None
    """Bytes of the nonce, or of Fernet's initialization vector."""
    sealed_at: int | None
    """Seconds since the epoch, by Fernet alone."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was inside the seal, whether or not it is valid now. Sizes are bytes."""

    payload: Payload = field(repr=False)
    """Its times, flags and subject; without the session's id."""
    length: int
    padding: int
    encoded: int
    """The part that is neither header nor padding, as it was sealed."""
    is_compressed: bool
    is_readable: bool
    """Whether there is `data`: plain, as without a model."""
    is_ticket: bool
    """Whether it is the id of a session that a store has, and holds no data itself."""
    data: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What there is to say of one token. What could not be found out is None."""

    name: bytes
    """The cookie that it was opened as, by its full name."""
    reason: Reason | None
    """Why a server refuses it; None where it opens and is live."""
    path: str | None = None
    """The path to the field that a model refused."""
    parts: tuple[bytes, ...] = field(repr=False)
    """The values of the chunks."""
    token: bytes = field(repr=False)
    """The token that they make; empty where they make none."""
    other_name: bytes | None = None
    """The cookie for which it opens, where it does not for `name`."""
    known: tuple[KnownKey, ...]
    max_chunks: int
    now: int
    header: Header | None
    contents: Contents | None


def when(seconds: int) -> str:
    """A second since the epoch as people read it, however far off it is."""
    try:
        return stamp(moment(seconds))
    except (OverflowError, ValueError, OSError):  # as `datetime` refuses it on one platform or another
        return f"second {seconds}"


def span(seconds: int) -> str:
    """A number of seconds as people read it, however large it is."""
    try:
        return brief(timedelta(seconds=seconds))
    except OverflowError:
        return f"{seconds}s"


def visible(name: bytes) -> str:
    """A cookie's name as a terminal may have it, whatever its bytes are."""
    return ascii(name.decode("latin-1"))[1:-1]
