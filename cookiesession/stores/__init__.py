"""`Store`: where sessions rest when they are not in cookies. The contract of all stores, and nothing of any one."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, runtime_checkable

KEY_LENGTH = 32
"""Bytes of a record's key: the SHA-256 of a session's id. A store that leaks gives away no cookie."""


ATTEMPTS: Final = 100
"""How often a replacement is tried because others are faster: one of them succeeds each time."""


class Record(NamedTuple):
    """A session at rest. To a store, everything but `expires_at` and `subject` is opaque."""

    value: bytes
    """The sealed session, of any length and any bytes."""

    version: int
    """Chosen by the writer, from 1 to 2^63 - 1. Each replacement has another one."""

    expires_at: int
    """The second since the epoch from which on the record is as good as deleted."""

    subject: bytes | None = None
    """The SHA-256 of whose session it is, for `find()`; None for nobody's."""


@runtime_checkable
class Store(Protocol):
    """What a store promises. `cookiesession.testing.StoreContract` tests it, yours too.

    Keys are `KEY_LENGTH` bytes. A record that has expired is nowhere to be seen: it is not loaded, not found, not
    replaced, and does not stand in the way of a new one. Each method is atomic for its key, whatever other tasks,
    processes or machines do at once, and has happened entirely or not at all.

    Whatever keeps a store from answering, a stopped server, a full disk, garbage under a key, is a `StoreUnavailable`
    (or None for garbage that can be told from a record), and comes within the store's own deadline. A cancelled call
    leaves the store usable, with or without the effect.
    """

    async def load(self, key: bytes) -> Record | None:
        """The record under `key`, as it was written last; None where there is none."""
        ...

    async def create(self, key: bytes, record: Record) -> bool:
        """Puts a record where there is none. False, and no change, where there is one."""
        ...

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        """Puts a record in the place of the one whose version is `expected_version`.

        False, and no change, where that has another version, or is gone: what was deleted stays deleted.
        """
        ...

    async def delete(self, key: bytes) -> bool:
        """Removes the record under `key`. Whether there was one."""
        ...

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        """All records of a subject, by their keys.

        Complete: whatever was created or replaced with this subject before the call, and lives, is there. A store that
        keeps an index beside its records drops from it what it no longer finds.
        """
        ...

    async def aclose(self) -> None:
        """Gives back what the store itself has opened. A client that was handed to it stays open."""
        ...


@runtime_checkable
class CheckedStore(Store, Protocol):
    """A `Store` that can tell at start-up whether its server is set up for sessions."""

    async def check(self) -> None:
        """Warns, in the log, of what would lose sessions. Raises `StoreUnavailable` if the server does not answer."""
        ...
