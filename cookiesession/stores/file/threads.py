"""`Threads`: calls that block, beside the event loop, in a bounded number of threads of their own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cookiesession.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_IDLE: Final = 1.0  # seconds that a thread waits for more work


class Threads:
    """At most `running` calls at once, and at most `waiting` that wait for them.

    A disk that hangs stops these threads and no others: asyncio's own stay free, and so does the memory. A thread lives
    while there is work, and a second longer, so that there is nothing to close and nothing that a fork leaves behind;
    it is a daemon, so that a process can end although its disk does not answer.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self._running: Final = running
        self._waiting: Final = waiting
        self._crew = _Crew(running, waiting)

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. Cancelled before it begins, it does not. Raises as `submit()` does."""
        return await asyncio.wrap_future(self.submit(call))

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Has `call` made. Raises `StoreUnavailable` where too many calls wait, or no thread can be had."""
        if self._crew.process != os.getpid():  # a fork: threads and locks of the old crew are the parent's
            self._crew = _Crew(self._running, self._waiting)  # pragma: no cover - tested in a child, measured in none
        return self._crew.submit(call)


class _Crew:
    """The threads of one process."""

    def __init__(self, running: int, waiting: int) -> None:
        self.process: Final = os.getpid()
        self._most_running: Final = running
        self._most_waiting: Final = waiting
        self._changed: Final = threading.Condition(threading.Lock())
        self._running = 0
        self._idle = 0
        self._waiting: deque[_Call] = deque()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        call = _Call(function, future)
        with self._changed:
            if self._idle > len(self._waiting):
                self._waiting.append(call)
                self._changed.notify()
            elif self._running < self._most_running:
                self._start(call)
            else:
                self._queue(call)
        return future

    def _start(self, call: _Call) -> None:
        thread = threading.Thread(target=self._work, args=(call,), name="cookiesession-store", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise StoreUnavailable("the process can have no more threads now") from None
        self._running += 1

    def _queue(self, call: _Call) -> None:
        if len(self._waiting) >= self._most_waiting:
            self._waiting = deque(each for each in self._waiting if not each.future.cancelled())
        if len(self._waiting) >= self._most_waiting:
            raise StoreUnavailable(f"{self._most_waiting} calls wait for the disk already")
        self._waiting.append(call)

    def _work(self, call: _Call | None) -> None:
        while call is not None:
            call.make()
            call = None  # or an idle thread would keep what it was given
            with self._changed:
                if not self._waiting:
                    self._idle += 1
                    self._changed.wait_for(lambda: self._waiting, _IDLE)
                    self._idle -= 1
                call = self._waiting.popleft() if self._waiting else None
                if call is None:
                    self._running -= 1


class _Call:
    """A function, and where its result goes."""

    def __init__(self, function: Callable[[], Any], future: Future[Any]) -> None:
        self._function = function
        self.future = future

    def make(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001  it is raised where somebody waits for it
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
