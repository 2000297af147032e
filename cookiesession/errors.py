"""The exceptions, each named by who can put it right: the caller at start-up, the caller at save, or the client."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEYGEN: Final = "python -m cookiesession keygen"
"""The command that makes a good key. Every complaint about a key names it."""

Reason = Literal[
    "malformed",  # not the text or the layout of anything we write
    "too_large",  # longer than we would ever write
    "chunk_count",  # a count that we would not have written
    "incomplete",  # a chunk is missing
    "unknown_key",  # names a key that is not in the ring, or comes from an algorithm that is not
    "forged",  # does not authenticate under the key it names, for this cookie and purpose
    "unsupported",  # authentic, but of a newer layout than this version reads
    "future",  # authentic, but made more than a minute from now
    "expired",  # authentic, but past its lifetime
    "idle",  # authentic, but unused for longer than its idle timeout
    "ended",  # authentic, but the session was ended: by its store, or by a revocation
    "bound",  # authentic, but sealed for another client, as a guard of `bind=` has it
    "undecodable",  # authentic, but the data is not what the codec reads
    "invalid",  # authentic, but the data is not what the model accepts, and `upgrade` made nothing of it
]
"""Why a token was refused."""


class CookieSessionError(Exception):
    """The root of every exception this library raises on purpose.

    >>> issubclass(SessionTooLarge, CookieSessionError)
    True
    """


class ConfigurationError(CookieSessionError, ValueError):
    """The caller's, at start-up: an option or a key that cannot work. The message says how to mend it.

    >>> from cookiesession import KeyRing
    >>> KeyRing.parse("secret")
    Traceback (most recent call last):
    cookiesession.errors.ConfigurationError: a key starts with 'csk1' ...; make one with: python -m cookiesession keygen
    """


class SessionTooLarge(CookieSessionError):
    """The caller's, at save: the session does not fit into its cookies.

    `size` and `limit` are bytes of cookie text; or with `is_data` of encoded data, of which a compressed session holds
    no more than 256 KB. `largest` names the largest top-level entries, with the bytes that each takes when encoded.
    Nothing has been sent, and the browser keeps the session it had.

    >>> raise SessionTooLarge(9000, 7438, [("cart", 6100)])
    Traceback (most recent call last):
    cookiesession.errors.SessionTooLarge: the session takes 9000 bytes of cookie text and 7438 fit; ...
    """

    def __init__(
        self, size: int, limit: int, largest: Sequence[tuple[str, int]] = (), *, is_data: bool = False
    ) -> None:
        self.size = size
        self.limit = limit
        self.is_data = is_data
        self.largest = tuple(largest)
        entries = ", ".join(f"{name} ({length} bytes)" for name, length in self.largest)
        super().__init__(
            f"the session takes {size} bytes of {'data' if is_data else 'cookie text'} and {limit} fit"
            + (f"; its largest entries are {entries}" if entries else "")
            + ("; store less" if is_data else "; store less, or raise Cookie(max_chunks=...)")
        )


class UnencodableData(CookieSessionError, TypeError):
    """The caller's, at save: a value that cannot be encoded. Names its key, never the value.

    A `TypeError` too, as `json.dumps` raises under Starlette's own sessions. Nothing has been sent, and the browser
    keeps the session it had.

    >>> issubclass(UnencodableData, TypeError)
    True
    """


class StoreUnavailable(CookieSessionError):
    """The infrastructure's: a store did not do what it was asked, within its deadline. The cookie stays as it is.

    The message is for the operator, and holds no key, id or value.

    >>> raise StoreUnavailable("the store did not answer within 1 s")
    Traceback (most recent call last):
    cookiesession.errors.StoreUnavailable: the store did not answer within 1 s
    """


class SessionEnded(CookieSessionError):
    """Nobody's fault: the session was ended elsewhere while this request was at work on it.

    >>> issubclass(SessionEnded, CookieSessionError)
    True
    """


class InvalidToken(CookieSessionError):
    """The client's: a token that is not a session. Opaque, and never leaves the manager.

    `reason` goes to the `Rejected` event, with the `path` to the field that a model refused; the client sees a fresh
    session whatever it was.

    >>> InvalidToken("forged").reason
    'forged'
    """

    def __init__(self, reason: Reason, path: str | None = None) -> None:
        self.reason: Reason = reason
        self.path = path
        super().__init__(reason)


@contextmanager
def brought_by(extra: str, package: str) -> Iterator[None]:
    """Around the imports of what an extra brings: where the `package` is missing, the error says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package.replace("-", "_"):
            raise
        remedy = f'{package} is not installed: pip install "cookiesession[{extra}]"'
        raise ModuleNotFoundError(remedy, name=error.name) from error
