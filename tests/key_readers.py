"""Sources of keys that read when a test tells them to, and no sooner: without threads and without real time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cookiesession import KeyFile, KeyRing
from cookiesession.cli.documents import document
from cookiesession.events import Event, KeysRefused
from cookiesession.schedule import Schedule, moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Reader(Protocol):
    """A source of keys that reads them when it is told to."""

    def current(self, now: float) -> KeyRing: ...

    def read(self, schedule: Schedule) -> None: ...


class ScheduleReader:
    """The schedule itself."""

    def __init__(self, schedule: Schedule) -> None:
        self.read(schedule)

    def current(self, now: float) -> KeyRing:
        return self._schedule.ring(moment(now))

    def read(self, schedule: Schedule) -> None:
        self._schedule = schedule


class FileReader(KeyFile):
    """A real `KeyFile` on a real file, without its thread and the real time it takes."""

    def __init__(self, path: Path, schedule: Schedule, clock: Callable[[], float]) -> None:
        self._problems: list[str] = []
        replace(path, schedule)
        super().__init__(path, on_event=self._note, clock=clock)
        self._pause.set()  # two readings that agree need not be apart

    def read(self, schedule: Schedule) -> None:
        replace(self.path, schedule)
        self._check()
        assert self._problems == []

    def _begin_to_read(self, patience: float = 0) -> None:
        """Not before it is told."""

    def _note(self, event: Event) -> None:
        if isinstance(event, KeysRefused):
            self._problems.append(event.problem)


def replace(path: Path, schedule: Schedule) -> None:
    """Puts a key file in the place of another at once, readable by its owner alone. JSON where the name says so."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_bytes(document(schedule, as_json=path.suffix == ".json"))
    new.replace(path)
