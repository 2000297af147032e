"""What a call of `MemoryStore` takes, by the number of its records. The store alone: no request, no event loop."""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from measuring import Report

from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

LIFETIME: Final = 14 * 24 * 60 * 60  # seconds over which the ends of the sessions are spread
CALLS: Final = 2_000  # of each operation
VALUE: Final = bytes(200)  # what a session of 100 bytes takes


class Times(NamedTuple):
    """What calls of one operation took, in microseconds."""

    median: float
    mean: float
    longest: float


def scaling_report(counts: Iterable[int]) -> Report:
    """What each operation takes in a store of so many records."""
    rows = []
    for count in counts:
        found = operations(count)
        replaced = found["replace"]
        row = (*(f"{times.median:.1f}" for times in found.values()), f"{replaced.mean:.1f}")
        rows.append((f"{count:,}", *row, f"{replaced.longest / 1000:,.2f}"))
    return Report(
        "Calls of MemoryStore, in µs of wall time",
        f"Medians over {CALLS:,} calls with random keys, and over one replacement of each record: the queue of when\n"
        "records expire is rebuilt in the course of that. That call is the longest; its time is in the mean.",
        ("records", "load", "create", "delete", "replace", "replace, mean", "replace, longest in ms"),
        rows,
    )


def operations(count: int) -> dict[str, Times]:
    """The times of each operation in a store of `count` records, whose ends are spread over two weeks."""
    chance = random.Random(count)  # noqa: S311 - what is drawn is no secret
    store = MemoryStore(count + CALLS, clock=lambda: 0)
    keys, others = ([os.urandom(KEY_LENGTH) for _ in range(number)] for number in (count, CALLS))

    def record(version: int) -> Record:
        return Record(VALUE, version, chance.randrange(1, LIFETIME))

    for key in keys:
        step(store.create(key, record(1)))
    gc.collect()
    gc.disable()
    times = {
        "load": timed(store.load(key) for key in chance.choices(keys, k=CALLS)),
        "create": timed(store.create(key, record(1)) for key in others),
        "delete": timed(store.delete(key) for key in others),
        "replace": timed(store.replace(key, record(2), 1) for key in keys),
    }
    gc.enable()
    return times


def timed(calls: Iterable[Coroutine[Any, Any, object]]) -> Times:
    """What each of these calls takes, once it has been made ready."""
    taken = []
    for call in calls:
        start = time.perf_counter_ns()
        step(call)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return Times(statistics.median(taken), statistics.fmean(taken), max(taken))


def step(call: Coroutine[Any, Any, object]) -> None:
    """Runs a call that waits for nothing."""
    try:
        call.send(None)
    except StopIteration:
        return
    raise RuntimeError("the memory store waits for something")
