"""`MemoryStore`: records in this process, for tests and for applications of one process."""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING, Final

from cookiesession.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.stores import Record


_MOVED: Final = 4  # places that a call takes over from the former queue: faster than it can become long again
_TIDIED: Final = 8  # places of the queue that a call clears: more than it can add, and never very many


class MemoryStore:
    """A `Store` of at most `max_records`, gone with the process.

    A full one takes no new record until one has expired or is deleted: `StoreUnavailable`, rather than that somebody
    else is signed out. Every operation is O(log n) or better. Safe among threads.

    >>> import asyncio
    >>> from cookiesession.stores import Record
    >>> store = MemoryStore()
    >>> asyncio.run(store.create(bytes(32), Record(b"sealed", version=1, expires_at=4_000_000_000)))
    True
    """

    def __init__(self, max_records: int = 100_000, *, clock: Callable[[], float] = time.time) -> None:
        if not isinstance(max_records, int) or max_records < 1:
            raise ConfigurationError("max_records is a number of at least 1")
        self.max_records: Final = max_records
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[bytes, Record] = {}
        self._subjects: dict[bytes, set[bytes]] = {}
        # When records expire, soonest first. What is no longer true of a record is passed over, and left behind when
        # the queue is replaced by another: a few places at a time, so that no call takes long.
        self._queue: list[tuple[int, bytes]] = []
        self._former: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        with self._lock:
            self._expire(most=len(self._queue) + len(self._former))
            return len(self._records)

    def __repr__(self) -> str:
        return f"<MemoryStore of at most {self.max_records}>"

    async def load(self, key: bytes) -> Record | None:
        """The record under `key`."""
        with self._lock:
            return self._live(key, self._expire())

    async def create(self, key: bytes, record: Record) -> bool:
        """Puts a record where there is none. Raises `StoreUnavailable` when full."""
        with self._lock:
            if self._live(key, self._expire()) is not None:
                return False
            if len(self._records) >= self.max_records and not self._make_room():
                raise StoreUnavailable(f"the memory store holds {self.max_records} records, and takes no more")
            self._put(key, record)
            return True

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        """Puts a record in the place of the one with this version."""
        with self._lock:
            present = self._live(key, self._expire())
            if present is None or present.version != expected_version:
                return False
            self._leave(key, present.subject)
            self._put(key, record)
            return True

    async def delete(self, key: bytes) -> bool:
        """Removes the record under `key`."""
        with self._lock:
            if self._live(key, self._expire()) is None:
                return False
            self._remove(key)
            return True

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        """All records of a subject."""
        with self._lock:
            now = self._expire()
            keys = list(self._subjects.get(subject, ()))
            return {key: record for key in keys if (record := self._live(key, now)) is not None}

    async def aclose(self) -> None:
        """Nothing: there is nothing to give back."""

    def _put(self, key: bytes, record: Record) -> None:
        self._records[key] = record
        if record.subject is not None:
            self._subjects.setdefault(record.subject, set()).add(key)
        heapq.heappush(self._queue, (record.expires_at, key))
        if not self._former and len(self._queue) > 2 * len(self._records) + 100:  # mostly of what is no longer true
            self._queue, self._former = [], self._queue
        for _ in range(min(_MOVED, len(self._former))):
            self._move(*self._former.pop())  # a heap without its last place is one

    def _move(self, expires_at: int, key: bytes) -> None:
        """Takes over a place of the former queue, if it is still true."""
        record = self._records.get(key)
        if record is not None and record.expires_at == expires_at:
            heapq.heappush(self._queue, (expires_at, key))

    def _remove(self, key: bytes) -> None:
        self._leave(key, self._records.pop(key).subject)

    def _leave(self, key: bytes, subject: bytes | None) -> None:
        if subject is not None:
            keys = self._subjects[subject]
            keys.discard(key)
            if not keys:
                del self._subjects[subject]

    def _live(self, key: bytes, now: float) -> Record | None:
        record = self._records.get(key)
        if record is not None and record.expires_at <= now:
            self._remove(key)
            return None
        return record

    def _make_room(self) -> bool:
        """Drops what has expired until a record has gone. Whether one has."""
        now = self._clock()
        while len(self._records) >= self.max_records and self._expire_one(now):
            pass
        return len(self._records) < self.max_records

    def _expire(self, most: int = _TIDIED) -> float:
        """Drops what has expired, up to so many places of the queue, and tells the time."""
        now = self._clock()
        while most > 0 and self._expire_one(now):
            most -= 1
        return now

    def _expire_one(self, now: float) -> bool:
        """Drops what has expired in one place of the queue. Whether there was one."""
        for queue in (self._queue, self._former):
            if queue and queue[0][0] <= now:
                self._live(heapq.heappop(queue)[1], now)
                return True
        return False
