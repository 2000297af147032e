"""The deadlines of stores: `cancelled_after()`, which is cheap, and `within()`, which holds whatever a driver does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar, cast

from cookiesession.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from typing import Any

T = TypeVar("T")

_AGAIN: Final = 0.01  # seconds, after which a call that goes on is cancelled again


async def cancelled_after(seconds: float, call: Awaitable[T]) -> T:
    """What `call` returns or raises, or `StoreUnavailable` after `seconds`: for drivers that end if cancelled.

    A call that is late is cancelled, again and again until it ends: a driver misses a cancellation that comes with its
    answer (`asyncio.wait_for()` does on Python 3.11), and may await something to tidy up. What it raises then is no
    matter, and an answer is still one. A driver that goes on holds its caller. That is what `within()` is for, which
    begins a task for each call: six times as much work.

    Whoever else cancels the caller, by `Task.cancel()`, a timeout or a cancel scope, sees a cancellation, also where
    the driver has swallowed it or made another exception of it.
    """
    alarm = _Alarm(seconds)
    try:
        try:
            answer = await call
        finally:
            alarm.stop()
        if not alarm.others:  # pragma: no branch - 3.11 traces no frame whose callee caught what was thrown
            return answer
    except asyncio.CancelledError:
        if not alarm.ours:
            raise
    except Exception:
        if not alarm.ours and not alarm.others:
            raise
    if alarm.others:
        await asyncio.sleep(0)  # anyio cancels once more here, and knows its own cancellation by the message
        raise asyncio.CancelledError
    raise StoreUnavailable(f"the store did not answer within {seconds:g} s")


class _Alarm:
    """Cancels the current task after `seconds`, and counts who else does."""

    __slots__ = ("_before", "_loop", "_task", "_timer", "others", "ours")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())  # whatever awaits is in one
        self._before = self._task.cancelling()
        self.ours = self.others = 0
        self._timer = self._loop.call_later(seconds, self._cancel)

    def stop(self) -> None:
        """Takes our own cancellations back."""
        self._timer.cancel()
        for _ in range(self.ours):
            self._task.uncancel()
        self.others = self._task.cancelling() - self._before

    def _cancel(self) -> None:
        self._timer = self._loop.call_later(_AGAIN, self._cancel)
        self.ours += 1
        self._task.cancel()


async def within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """What `call` returns or raises, or `StoreUnavailable` after `seconds`.

    A call that is late, or whose caller is cancelled, is cancelled and not waited for: drivers may need longer for that
    than the deadline allows (asyncpg waits for a server that does not answer).
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not task.done():
        _abandon(task)
        raise StoreUnavailable(f"the store did not answer within {seconds:g} s")
    return task.result()


def _abandon(task: asyncio.Task[Any]) -> None:
    task.cancel()
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    # Asking for the exception keeps asyncio from logging, with its text, that nobody did.
    if not task.cancelled():
        task.exception()
