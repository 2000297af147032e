"""`KeyFile`: the ring of a file of keys, which is read again when it changes. Never writes."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import time
from bisect import bisect_right
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cookiesession.errors import ConfigurationError
from cookiesession.events import KeysRead, KeysRefused, Reporter
from cookiesession.keys import require_no_key
from cookiesession.schedule import ADD, Schedule, moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.events import Event
    from cookiesession.keys import KeyRing

SIZE_LIMIT: Final = 2**20
"""Bytes: thousands of keys. What is longer is no key file."""

_SETTLED: Final = 0.05  # seconds between two readings that have to agree before a change counts
_READINGS: Final = 20  # of a file that keeps changing, before it is left to the next check
_PATIENCE: Final = 0.25  # seconds that a request waits for a reading, where it names an unknown key
_IDLE: Final = 60  # seconds without a request, after which one waits for a reading: the ring may be of long ago
_OTHERS: Final = 0o077  # permissions of anybody but the owner

_logger = logging.getLogger("cookiesession")


class KeyFile:
    """A `KeySource`: the keys of a TOML or JSON file, with the times from which each seals and until which it opens.

    Every key opens from the moment it is read until it `retires`, and the newest that is past `activates` seals.
    `python -m cookiesession keys` makes such a file and changes it.

    The file is read every `check_every` while there are requests, by a thread of its own, so that they need not wait
    for a disk. Two wait, a quarter of a second at most: the first request after a pause of a minute, and one whose
    token names an unknown key, which has the file read at once, though not twice a second. Symbolic links are followed.
    A change counts once two readings agree. A file that turns unreadable, empty or wrong changes nothing: the last good
    keys stay, and each reading that fails is an error in the log and an event. One that others may use is a warning.

    - `on_event`: called with `KeysRead` and `KeysRefused`, on the thread that reads.
    - `clock`: seconds since the epoch. For tests.

    Raises `ConfigurationError` where there is no good file to begin with.
    """

    _span: _Span

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        check_every: timedelta = timedelta(seconds=5),
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(check_every, timedelta) or not timedelta(seconds=1) <= check_every <= timedelta(days=1):
            raise ConfigurationError("check_every is a timedelta of at least one second and at most a day")
        if not isinstance(path, str | os.PathLike):
            raise ConfigurationError("a key file is named by its path, a str or a Path")
        self.path: Final = Path(path)
        require_no_key(str(self.path), "the path of a key file")
        self._check_every = check_every.total_seconds()
        self._reporter = Reporter(on_event, clock, log_interval=0)
        self._clock = clock
        self._checked_at = self._refreshed_at = clock()
        self._reader = threading.Thread()  # the one that reads, or has read
        self._awaited: threading.Thread | None = None  # the one that a request has waited for
        self._pause = threading.Event()  # never set
        self._read_last = b""
        self._mode = 0
        self._schedule = Schedule()
        try:
            self._accept(self._read())
        except (OSError, ConfigurationError) as error:
            raise ConfigurationError(f"the key file {self.path} cannot be used: {_problem(error)}") from None

    def current(self, now: float) -> KeyRing:
        """The ring at `now` (seconds since the epoch). Has the file read where that is due."""
        pause = now - self._checked_at
        if not 0 <= pause < self._check_every:
            self._checked_at = now
            self._begin_to_read()
            if pause >= _IDLE:
                self._wait_for_reader()
        if self._span.schedule is not self._schedule or not self._span.begins <= now < self._span.ends:
            self._span = self._span_at(now)
        return self._span.ring

    def refresh(self, now: float) -> KeyRing:
        """The ring at `now`, from a reading that begins now, unless one began in this very second."""
        if int(now) != int(self._refreshed_at):
            self._refreshed_at = self._checked_at = now
            self._begin_to_read()
            self._wait_for_reader()
        return self.current(now)

    def __repr__(self) -> str:
        return f"<KeyFile {self.path}>"

    def _begin_to_read(self) -> None:
        if self._reader.is_alive():
            return
        self._reader = threading.Thread(target=self._check, name="cookiesession-keyfile", daemon=True)
        with suppress(RuntimeError):  # the process can have no more threads now; the next check tries again
            self._reader.start()

    def _wait_for_reader(self) -> None:
        if self._reader is not self._awaited:  # on a slow disk one request waits, and no other for the same reading
            self._awaited = self._reader
            with suppress(RuntimeError):  # it could not start
                self._reader.join(_PATIENCE)

    def _check(self) -> None:
        """One reading, and what follows from it."""
        try:
            text = self._read()
            if _fingerprint(text) != self._read_last:
                self._accept(self._settled(text))
        except (OSError, ConfigurationError) as error:
            self._refuse(error)

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            self._look_at_permissions(os.fstat(file.fileno()).st_mode)
            text = file.read(SIZE_LIMIT + 1)
        if len(text) > SIZE_LIMIT:
            raise ConfigurationError(f"it is longer than {SIZE_LIMIT} bytes")
        return text

    def _settled(self, text: bytes) -> bytes:
        # Half of a file may look like a whole one that has lost keys.
        for _ in range(_READINGS):
            self._pause.wait(_SETTLED)
            before, text = text, self._read()
            if text == before:
                return text
        raise ConfigurationError("it keeps changing while it is read")

    def _accept(self, text: bytes) -> None:
        schedule = Schedule.parse(text).with_keys_of(self._schedule)
        self._span = span = _Span.of(schedule, self._clock())
        self._schedule = schedule
        self._read_last = _fingerprint(text)
        self._reporter.report(KeysRead(path=str(self.path), key_id=span.ring.primary.id, keys=len(schedule.keys)))

    def _span_at(self, now: float) -> _Span:
        try:
            return _Span.of(self._schedule, now)
        except ConfigurationError as error:  # the last key has retired: it stays rather than that nothing seals
            self._refuse(error)
            return _Span(self._schedule, self._span.ring, now, now + self._check_every)

    def _refuse(self, error: OSError | ConfigurationError) -> None:
        self._reporter.report(KeysRefused(path=str(self.path), problem=_problem(error)))

    def _look_at_permissions(self, mode: int) -> None:
        """Warns whenever they have become too wide, or wide in another way, whether or not the keys have changed."""
        changed, self._mode = mode != self._mode, mode
        if changed and os.name == "posix" and mode & _OTHERS:  # Windows has other ways to say it
            _logger.warning("others than its owner may use the key file %s: chmod 600 it", self.path)


class _Span(NamedTuple):
    """The ring of a schedule from one change of it to the next, in seconds since the epoch."""

    schedule: Schedule
    ring: KeyRing
    begins: float
    ends: float

    @classmethod
    def of(cls, schedule: Schedule, now: float) -> _Span:
        """The one around `now`. Raises `ConfigurationError` where every key has retired."""
        times = [-math.inf, *(change.timestamp() for change in schedule.boundaries()), math.inf]
        after = bisect_right(times, now)
        return cls(schedule, schedule.ring(moment(now)), times[after - 1], times[after])


def _fingerprint(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()  # so that the text, and with it the secrets, need not be kept


def _problem(error: OSError | ConfigurationError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    remedy = f"; make one with: {ADD}" if isinstance(error, FileNotFoundError) else ""
    return (error.strerror or type(error).__name__) + remedy
