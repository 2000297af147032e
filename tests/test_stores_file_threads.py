"""The threads of a store that blocks: few, their own, and none left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cookiesession import StoreUnavailable
from cookiesession.stores.file.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

WAIT = 30  # seconds, for one thing to happen


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a disk that hangs waits for. It ends with the test."""
    event = threading.Event()
    yield event
    event.set()


def hang(threads: Threads, release: threading.Event, count: int) -> list[Future[bool]]:
    """Calls that do not come back until then."""
    return [threads.submit(lambda: release.wait(WAIT)) for _ in range(count)]


def until(condition: Callable[[], object]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_answer_and_exception_come_back() -> None:
    """To whoever waits for them, on whatever loop."""
    threads = Threads(running=1, waiting=1)

    assert asyncio.run(threads.run(lambda: 42)) == 42
    with pytest.raises(KeyError, match="own"):
        asyncio.run(threads.run(lambda: {"": 42}["its own"]))


def test_thread_waits_for_more_work_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call need not start one; and none is left of a store that is no longer used."""
    threads = Threads(running=1, waiting=10)

    monkeypatch.setattr("cookiesession.stores.file.threads._IDLE", WAIT)
    first, second = (threads.submit(threading.current_thread).result(WAIT) for _ in range(2))
    until(lambda: threads._crew._idle)
    monkeypatch.setattr("cookiesession.stores.file.threads._IDLE", 0.01)
    last = threads.submit(threading.current_thread).result(WAIT)
    last.join(WAIT)

    assert first is second is last
    assert not last.is_alive()
    assert threads.submit(threading.current_thread).result(WAIT) is not last


def test_no_more_run_at_once_than_may(release: threading.Event) -> None:
    """The others wait, and are made by the same threads."""
    threads = Threads(running=2, waiting=10)
    used: set[threading.Thread] = set()

    hanging = hang(threads, release, 2)
    waiting = [threads.submit(lambda: used.add(threading.current_thread())) for _ in range(5)]
    used_before = len(used)
    release.set()
    for future in hanging:
        future.result(WAIT)
    for each in waiting:
        each.result(WAIT)

    assert used_before == 0
    assert 1 <= len(used) <= 2


def test_threads_end_with_the_work() -> None:
    """There is nothing to close, and the next call has one all the same."""
    threads = Threads(running=1, waiting=1)
    own: list[threading.Thread] = []

    threads.submit(lambda: own.append(threading.current_thread())).result(WAIT)
    own[0].join(WAIT)

    assert not own[0].is_alive()
    assert own[0].daemon
    assert threads.submit(lambda: 42).result(WAIT) == 42


def test_too_many_that_wait_are_refused_at_once(release: threading.Event) -> None:
    """A disk that hangs costs bounded memory. What nobody waits for any longer makes room."""
    threads = Threads(running=1, waiting=2)
    hang(threads, release, 1)
    made: list[str] = []
    waiting = [threads.submit(lambda: made.append("withdrawn")), threads.submit(lambda: made.append("waiting"))]

    with pytest.raises(StoreUnavailable, match="2 calls wait for the disk already"):
        threads.submit(lambda: made.append("refused"))
    waiting[0].cancel()
    last = threads.submit(lambda: made.append("last"))
    release.set()
    last.result(WAIT)

    assert made == ["waiting", "last"]


def test_call_that_is_withdrawn_before_it_begins_is_not_made(release: threading.Event) -> None:
    """Its caller was cancelled, or too late."""
    threads = Threads(running=1, waiting=2)
    made: list[str] = []

    async def scenario() -> None:
        hang(threads, release, 1)
        task = asyncio.ensure_future(threads.run(lambda: made.append("withdrawn")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        release.set()
        await threads.run(lambda: made.append("next"))

    asyncio.run(scenario())

    assert made == ["next"]


def test_process_without_room_for_a_thread_says_so() -> None:
    """And can go on as soon as there is some."""
    threads = Threads(running=1, waiting=1)
    before = threading.stack_size(2**46)  # bytes, more than any address space has left
    try:
        with pytest.raises(StoreUnavailable, match="no more threads"):
            threads.submit(lambda: 42)
    finally:
        threading.stack_size(before)

    assert threads.submit(lambda: 42).result(WAIT) == 42


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that a fork with threads is risky: that is it
def test_fork_has_threads_of_its_own(release: threading.Event) -> None:
    """Those of its parent are not there, and so do not count: a server that forks its workers late."""
    threads = Threads(running=1, waiting=0)
    hang(threads, release, 1)

    child = os.fork()
    if child == 0:
        try:
            os._exit(threads.submit(lambda: 42).result(WAIT))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 42
