"""The deadline of stores: it holds, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

from cookiesession import StoreUnavailable
from cookiesession.stores.deadline import within


async def stubborn(release: asyncio.Event) -> None:
    """A driver that does not let itself be cancelled, and fails in the end."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue
    raise OSError("far too late")


async def answer(value: Any) -> Any:
    """A driver that answers."""
    await asyncio.sleep(0)
    if isinstance(value, Exception):
        raise value
    return value


def test_answer_in_time_is_the_answer() -> None:
    """Or the exception."""
    assert asyncio.run(within(10, answer(42))) == 42
    with pytest.raises(KeyError, match="own"):
        asyncio.run(within(10, answer(KeyError("its own"))))


def test_deadline_holds_against_a_driver_that_ignores_it(caplog: pytest.LogCaptureFixture) -> None:
    """And what the driver says later is nobody's business. Case G86."""

    async def scenario() -> float:
        release = asyncio.Event()
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
            await within(0.05, stubborn(release))
        waited = time.monotonic() - start
        release.set()
        await asyncio.sleep(0.01)
        gc.collect()
        return waited

    assert asyncio.run(scenario()) < 5
    assert caplog.text == ""


def test_caller_who_is_cancelled_does_not_wait_either() -> None:
    """A client that has gone away. Case E63."""

    async def scenario() -> bool:
        release = asyncio.Event()
        caller = asyncio.ensure_future(within(60, stubborn(release)))
        await asyncio.sleep(0)
        caller.cancel()
        done, _ = await asyncio.wait({caller}, timeout=10)
        release.set()
        await asyncio.sleep(0.01)
        return caller in done and caller.cancelled()

    assert asyncio.run(scenario())


def test_call_of_a_cancelled_caller_is_cancelled() -> None:
    """A driver that listens stops at once, and its connection is free."""

    async def scenario() -> bool:
        seen = asyncio.Event()

        async def listening() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.set()

        caller = asyncio.ensure_future(within(60, listening()))
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.wait_for(seen.wait(), 10)
        return seen.is_set()

    assert asyncio.run(scenario())
