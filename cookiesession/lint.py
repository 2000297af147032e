"""What is wrong with a schedule, or soon will be. No files, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from cookiesession.aead import SEAL_LIMIT
from cookiesession.schedule import ADD, PROPAGATION
from cookiesession.times import brief, later, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cookiesession.schedule import KeyState, Schedule, ScheduledKey

LIFETIME: Final = timedelta(days=14)
"""How long a session lives, where nobody says otherwise: `SessionManager`'s default."""

RATE: Final = 1000
"""Sessions sealed per second, where nobody says otherwise: what spends an AES-GCM key in 50 days."""


@dataclass(frozen=True)
class Finding:
    """An `error` loses sessions or secrets, now or at a time that is known; a `warning` may be what was meant."""

    level: Literal["error", "warning"]
    message: str


def lint(
    schedule: Schedule,
    now: datetime,
    *,
    lifetime: timedelta = LIFETIME,
    propagation: timedelta = PROPAGATION,
    rate: float = RATE,
) -> Iterator[Finding]:
    """What is wrong with `schedule` at `now`, key by key.

    `lifetime` is that of the longest session, `propagation` the time in which every instance reads a changed file, and
    `rate` the number of sessions that all instances together seal in a second.
    """
    if not schedule.keys:
        yield Finding("error", f"it holds no key; add one with: {ADD}")
    elif all(each.has_retired(now) for each in schedule.keys):
        yield Finding("error", f"every key in it has retired; add one with: {ADD}")
    for scheduled, state in schedule.states(now):
        if state == "retired":
            continue
        yield from _addition(scheduled, now, propagation)
        if state != "active":
            yield from _activation(schedule, scheduled, now, propagation)
        yield from _retirement(schedule, scheduled, now, lifetime)
        yield from _use(schedule, scheduled, state, now, rate)


def _addition(scheduled: ScheduledKey, now: datetime, propagation: timedelta) -> Iterator[Finding]:
    """A key from a day to come, before which `rotate` finds it young."""
    if scheduled.added > later(now, propagation):
        text = f"key {scheduled.key.id} was added at {stamp(scheduled.added)}, which is yet to come"
        yield Finding("warning", f"{text}: a clock is wrong, or was then, and no rotation is due before")


def _activation(
    schedule: Schedule, scheduled: ScheduledKey, now: datetime, propagation: timedelta
) -> Iterator[Finding]:
    """A key that seals before every instance has read it."""
    known = later(scheduled.added, propagation)
    in_order = sorted(schedule.keys, key=lambda each: each.added)
    older = in_order[: in_order.index(scheduled)]
    if now < known and scheduled.activates < known and not all(each.has_retired(scheduled.added) for each in older):
        yield Finding(
            "error",
            f"key {scheduled.key.id} seals from {stamp(scheduled.activates)}, and only from {stamp(known)} has every "
            f"instance read it ({brief(propagation)} after it was added): until then others refuse its sessions",
        )


def _retirement(schedule: Schedule, scheduled: ScheduledKey, now: datetime, lifetime: timedelta) -> Iterator[Finding]:
    """A key that retires while sessions are under it, or with nothing to follow it."""
    if scheduled.retires is None:
        return
    text = f"key {scheduled.key.id} retires at {stamp(scheduled.retires)}"
    successor = schedule.successor(scheduled, now)
    if all(each.has_retired(scheduled.retires) for each in schedule.keys):
        yield Finding("error", f"{text}, and no key is left to seal after it; add one with: {ADD}")
    elif successor is None:
        yield Finding("warning", f"{text} and seals until then: the sessions that it sealed end with it")
    elif scheduled.retires < (last := later(successor.activates, lifetime)):
        yield Finding("warning", f"{text}, and the sessions that it sealed last until {stamp(last)}: they end early")


def _use(schedule: Schedule, scheduled: ScheduledKey, state: KeyState, now: datetime, rate: float) -> Iterator[Finding]:
    """An AES-GCM key that seals more often than its random nonces allow (NIST SP 800-38D, section 8.3)."""
    if scheduled.key.algorithm != "aes-256-gcm":
        return
    successor = schedule.successor(scheduled, now)
    ends = now if successor is None else successor.activates
    seals = (ends - scheduled.activates).total_seconds() * rate
    if seals < SEAL_LIMIT / 2 or (seals < SEAL_LIMIT and state == "active"):  # half, since the rate is a guess
        return
    spent = later(scheduled.activates, timedelta(seconds=SEAL_LIMIT / rate))
    text = f"key {scheduled.key.id} is for 2^32 seals, which {rate:g} a second"
    if spent <= now:
        yield Finding("error", f"{text} reached at {stamp(spent)}: rotate more often, or use xaes-256-gcm")
    else:
        level: Literal["error", "warning"] = "error" if seals >= SEAL_LIMIT else "warning"
        yield Finding(level, f"{text} reach at {stamp(spent)}: have another key seal before, or use xaes-256-gcm")
