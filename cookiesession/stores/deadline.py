"""`within()`: a deadline that holds, whatever a driver makes of being cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cookiesession.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


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
