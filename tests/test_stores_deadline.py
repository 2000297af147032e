"""The deadlines of stores: they hold, leave nothing behind, and are told from cancellations by others."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from cookiesession import StoreUnavailable
from cookiesession.stores.deadline import cancelled_after, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


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


# What is cheaper, for drivers that listen


async def listening() -> None:
    """A driver that never answers, and ends when it is cancelled."""
    await asyncio.Event().wait()


async def answering() -> int:
    """One whose answer comes with the cancellation, as with `asyncio.wait_for()` on Python 3.11."""
    with suppress(asyncio.CancelledError):
        await listening()
    return 42


async def failing() -> None:
    """One that makes something else of it."""
    with suppress(asyncio.CancelledError):
        await listening()
    raise OSError("closed")


async def tidying() -> None:
    """One that needs a while to end."""
    try:
        await listening()
    finally:
        await asyncio.sleep(0.05)


async def deaf(times: int) -> None:
    """One that misses so many cancellations, and ends with the next."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await listening()
    await listening()


def cancellations() -> int:
    """How many the current task has been asked for."""
    task = asyncio.current_task()
    assert task
    return task.cancelling()


def test_answer_before_the_deadline_is_the_answer() -> None:
    """Or the exception; and nobody is cancelled after that."""

    async def scenario() -> tuple[Any, int]:
        value = await cancelled_after(0.02, answer(42))
        with pytest.raises(KeyError, match="own"):
            await cancelled_after(0.02, answer(KeyError("its own")))
        await asyncio.sleep(0.05)
        return value, cancellations()

    assert asyncio.run(scenario()) == (42, 0)


@pytest.mark.parametrize(
    "driver", [listening, failing, tidying, lambda: deaf(3)], ids=["listens", "fails", "tidies", "misses-three"]
)
def test_call_that_is_late_is_unavailable(driver: Callable[[], Awaitable[Any]]) -> None:
    """Whatever the driver makes of it, and the caller can go on."""

    async def scenario() -> tuple[float, int]:
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
            await cancelled_after(0.05, driver())
        waited = time.monotonic() - start
        await asyncio.sleep(0)
        return waited, cancellations()

    waited, left = asyncio.run(scenario())

    assert 0.05 <= waited < 5
    assert left == 0


def test_answer_at_the_last_moment_is_one() -> None:
    """It is here: nobody is helped by asking again."""

    async def scenario() -> tuple[Any, int]:
        return await cancelled_after(0, answering()), cancellations()

    assert asyncio.run(scenario()) == (42, 0)


def test_end_of_the_process_is_no_failure_of_a_store() -> None:
    """What is neither an error nor a cancellation goes through."""

    class Exit(BaseException):
        pass

    async def leaving() -> None:
        with suppress(asyncio.CancelledError):
            await listening()
        raise Exit

    async def scenario() -> int:
        with pytest.raises(Exit):
            await cancelled_after(0, leaving())
        return cancellations()

    assert asyncio.run(scenario()) == 0


def test_driver_that_never_ends_holds_its_caller() -> None:
    """It is cancelled over and over: what `within()` leaves behind, this waits for. Case G86."""

    async def scenario() -> tuple[bool, bool]:
        release = asyncio.Event()
        caller = asyncio.ensure_future(cancelled_after(0.01, stubborn(release)))
        held, _ = await asyncio.wait({caller}, timeout=0.1)
        release.set()
        with pytest.raises(StoreUnavailable):
            await caller
        return bool(held), caller.cancelled()

    assert asyncio.run(scenario()) == (False, False)


# The same, where somebody else cancels the caller


async def cancelled(call: Coroutine[Any, Any, Any]) -> bool:
    """By `Task.cancel()`, as servers do when a client has gone away."""
    caller = asyncio.ensure_future(call)
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.wait({caller}, timeout=10)
    return caller.cancelled()


async def timed_out(call: Coroutine[Any, Any, Any]) -> bool:
    """By a timeout of the caller's own."""
    try:
        async with asyncio.timeout(0.01):
            await call
    except TimeoutError:
        return True
    return False


async def moved_on(call: Coroutine[Any, Any, Any]) -> bool:
    """By a cancel scope of anyio, as Starlette's middleware has it."""
    with anyio.move_on_after(0.01) as scope:
        await call
    return scope.cancelled_caught


async def of_a_group(call: Coroutine[Any, Any, Any]) -> bool:
    """Because something else in its group has failed."""
    callers: list[asyncio.Task[Any]] = []
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            callers.append(group.create_task(call))
            await asyncio.sleep(0.01)
            raise KeyError
    return callers[0].cancelled()


@pytest.mark.parametrize("way", [cancelled, timed_out, moved_on, of_a_group])
@pytest.mark.parametrize("driver", [listening, answering, failing, tidying])
@pytest.mark.parametrize("seconds", [60, 0.03, 0.01], ids=["much-earlier", "earlier", "at-once"])
def test_cancellation_by_others_stays_one(
    way: Callable[[Coroutine[Any, Any, Any]], Awaitable[bool]],
    driver: Callable[[], Awaitable[Any]],
    seconds: float,
) -> None:
    """Before the deadline, or close to it: never swallowed, and never a failure of the store. Case E63."""

    async def scenario() -> tuple[bool, int]:
        return await way(cancelled_after(seconds, driver())), cancellations()

    told, left = asyncio.run(scenario())

    assert left == 0
    assert told or seconds == 0.01  # where the deadline was first


@pytest.mark.parametrize("driver", [listening, answering, failing, tidying])
@pytest.mark.parametrize("first", ["they", "we"])
def test_cancellation_with_the_deadline_is_one(driver: Callable[[], Awaitable[Any]], first: str) -> None:
    """Both before the driver hears of either."""

    async def scenario() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task

        async def started() -> Any:
            if first == "they":
                loop.call_soon(task.cancel)  # runs before timers that are due
            else:
                loop.call_later(0, task.cancel)
            return await driver()

        with pytest.raises(asyncio.CancelledError):
            await cancelled_after(0, started())
        return task.uncancel()

    assert asyncio.run(scenario()) == 0


@pytest.mark.parametrize("driver", [listening, answering, failing, tidying])
def test_scope_that_is_cancelled_with_the_deadline_knows_it(driver: Callable[[], Awaitable[Any]]) -> None:
    """Anyio tells its own cancellations by their message, and lets others through."""

    async def scenario() -> tuple[bool, int]:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await cancelled_after(0, driver())
        return scope.cancelled_caught, cancellations()

    assert asyncio.run(scenario()) == (True, 0)


def test_cancellation_while_a_late_call_ends_is_one() -> None:
    """The caller's timeout passes after the deadline, and the driver is still at it."""

    async def scenario() -> tuple[bool, int]:
        release = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, release.set)
        return await timed_out(cancelled_after(0, stubborn(release))), cancellations()

    assert asyncio.run(scenario()) == (True, 0)


def test_driver_that_misses_a_cancellation_by_others_ends_with_the_deadline() -> None:
    """And the caller has been cancelled."""

    async def scenario() -> tuple[bool, int]:
        return await cancelled(cancelled_after(0.05, deaf(1))), cancellations()

    assert asyncio.run(scenario()) == (True, 0)


@pytest.mark.parametrize("seconds", [60, 0])
def test_store_can_be_called_by_whoever_has_been_cancelled(seconds: float) -> None:
    """To tidy up: that cancellation is not of this call."""
    outcomes: list[Any] = []

    async def caller() -> None:
        try:
            await listening()
        finally:
            try:
                outcomes.append(await cancelled_after(seconds, answer(42) if seconds else listening()))
            except StoreUnavailable as error:
                outcomes.append(str(error))
            outcomes.append(cancellations())

    assert asyncio.run(cancelled(caller()))
    assert outcomes == [42 if seconds else "the store did not answer within 0 s", 1]
