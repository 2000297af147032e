"""`Deadline` and `within()`: what bounds the calls of stores. The one is cheap, the other asks nothing of a driver."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

from cookiesession.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Any

T = TypeVar("T")

_AGAIN: Final = 0.01  # seconds, after which a call that goes on is cancelled again


class Deadline:
    """`with Deadline(seconds):` around a call of a driver that ends when it is cancelled, and awaits little for that.

    After `seconds` the call is cancelled, again and again until it ends: a driver misses a cancellation that comes with
    its answer (`asyncio.wait_for()` does on Python 3.11), and may be tidying up. Whatever it raises then is
    `StoreUnavailable`; an answer is still one. It holds its caller for as long as it goes on, which is what `within()`
    is for: that begins a task for each call, and costs six times as much.

    Whoever else cancels the caller, by `Task.cancel()`, a timeout or a cancel scope, sees a cancellation, also where
    the driver has swallowed it or made another exception of it.
    """

    __slots__ = ("_before", "_others", "_ours", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> Self:
        self._task: asyncio.Task[Any] = cast("asyncio.Task[Any]", asyncio.current_task())  # what awaits is in one
        self._before = self._others = self._task.cancelling()
        self._ours = 0
        self._timer = self._task.get_loop().call_later(self._seconds, self._cancel)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _where: TracebackType | None) -> None:
        self._timer.cancel()
        others = self._task.cancelling() - self._ours
        for _ in range(self._ours):
            self._task.uncancel()
        if others > self._before:
            if kind is None or issubclass(kind, Exception):
                raise asyncio.CancelledError from None
        elif self._ours and kind is not None and issubclass(kind, Exception | asyncio.CancelledError):
            raise StoreUnavailable(f"the store did not answer within {self._seconds:g} s") from None

    def _cancel(self) -> None:
        self._timer = self._task.get_loop().call_later(_AGAIN, self._cancel)
        others = self._task.cancelling() - self._ours
        if others > self._others:
            self._others = (
                others  # theirs is on its way, and says whose it is: anyio looks for that. Ours would hide it
            )
        else:
            self._ours += 1
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
