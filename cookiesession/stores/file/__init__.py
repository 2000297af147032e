"""`FileStore`: records on a disk of this machine, for any number of its processes."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cookiesession.errors import ConfigurationError, StoreUnavailable
from cookiesession.stores import KEY_LENGTH
from cookiesession.stores.deadline import cancelled_after
from cookiesession.stores.file.directory import RecordDirectory
from cookiesession.stores.file.posix import LOCKING
from cookiesession.stores.file.threads import Threads

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from cookiesession.stores import Record

T = TypeVar("T")

_RUNNING, _WAITING = 4, 1000  # calls: more threads than that wait for one another, and not for the disk
_LONGEST: Final = timedelta(minutes=1)
_BESIDE: Final = 512  # names to look at after one in 256 creations, so that more is tidied than made


class FileStore:
    """A `Store` in a directory, made where there is none, of which everything belongs to its owner alone.

    Each record is a file, which is replaced as a whole. What is killed, or finds the disk full or broken, leaves the
    old record or the new one. Processes and threads of one machine may use the directory at once; a network file
    system is no place for it. Every 256th creation or so tidies up nearby, so that about as many expired records are
    left as others live, at most.

    - `timeout`: for each call, at most a minute. A disk that hangs stops at most 4 threads.
    - `sync`: whether what was answered outlasts a power cut. Without it a write is much quicker, and after a power cut
      the last seconds may be missing: new sessions, and the end of those that were logged out.
    - `clock`: seconds since the epoch. For tests.

    A file that is no whole record of its key counts as none, and makes room for one. What is no file at all, such as a
    symbolic link, is `StoreUnavailable`, and so is a record of another release whose layout is unknown here, and
    whatever the disk refuses. Where a write fails so, the record may be the old one or the new one.
    Raises `ConfigurationError` for a directory that cannot be used, or is not its owner's alone, and without POSIX.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        timeout: timedelta = timedelta(seconds=1),
        sync: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(timeout, timedelta) or not timedelta(0) < timeout <= _LONGEST:
            raise ConfigurationError("timeout is a timedelta of more than nothing and at most a minute")
        if not isinstance(sync, bool):  # "no" would be true
            raise ConfigurationError("sync is True or False")
        if not LOCKING:
            raise ConfigurationError("FileStore needs the file locks of POSIX, which this system has not: use SQLStore")
        self.directory: Final = Path(directory).absolute()
        self._timeout: Final = timeout.total_seconds()
        self._threads: Final = Threads(_RUNNING, _WAITING)
        self._records: Final = RecordDirectory(self.directory, sync=sync, clock=clock)
        try:
            self._records.prepare()
        except OSError as error:
            problem = f"the directory {self.directory} cannot be used for a store: {_problem(error)}"
            raise ConfigurationError(problem) from None

    def __repr__(self) -> str:
        return f"<FileStore {self.directory}>"

    async def load(self, key: bytes) -> Record | None:
        """The record under `key`."""
        _check(key)
        return await self._call(lambda _: self._records.load(key))

    async def create(self, key: bytes, record: Record) -> bool:
        """Puts a record where there is none."""
        _check(key, key if record.subject is None else record.subject)
        created = await self._call(partial(self._records.create, key, record))
        if created and key[-1] == 0:  # keys are hashes: one in 256, and each in another place
            self._tidy_beside(key)
        return created

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        """Puts a record in the place of the one with this version."""
        _check(key, key if record.subject is None else record.subject)
        return await self._call(partial(self._records.replace, key, record, expected_version))

    async def delete(self, key: bytes) -> bool:
        """Removes the record under `key`."""
        _check(key)
        return await self._call(partial(self._records.delete, key))

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        """All records of a subject. Costs as much as there are, whatever else is in the store."""
        _check(subject)
        return await self._call(partial(self._records.find, subject))

    async def purge(self, limit: int = 1000) -> int:
        """Removes what is over among the next `limit` files, round and round. How many it has removed.

        That is what has expired, what is no record, and what crashes have left. Call it from time to time where few
        sessions are created, since otherwise the store does so itself.
        """
        return await self._call(partial(self._records.purge, limit))

    async def aclose(self) -> None:
        """Nothing: between calls nothing is open."""

    async def _call(self, call: Callable[[threading.Event], T]) -> T:
        given_up = threading.Event()
        try:
            return await cancelled_after(self._timeout, self._threads.run(lambda: self._attempt(call, given_up)))
        finally:
            given_up.set()

    def _attempt(self, call: Callable[[threading.Event], T], given_up: threading.Event) -> T:
        try:
            return call(given_up)
        except OSError as error:  # whose text has a file name, which is a key
            problem = _problem(error)
        raise StoreUnavailable(f"the store in {self.directory} failed: {problem}")

    def _tidy_beside(self, key: bytes) -> None:
        with suppress(StoreUnavailable):  # there is more to do than to tidy
            self._threads.submit(lambda: self._records.tidy_beside(key, _BESIDE))


def _check(*identities: bytes) -> None:
    for identity in identities:
        if not isinstance(identity, bytes) or len(identity) != KEY_LENGTH:
            raise ValueError(f"a key, and a subject, is {KEY_LENGTH} bytes")


def _problem(error: OSError) -> str:
    return error.strerror or type(error).__name__
