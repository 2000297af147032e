"""Events: what they hold, who hears them, and how little of it an attacker can make us log."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, get_args

import pytest

from cookiesession import events
from cookiesession.errors import Reason
from cookiesession.events import (
    Cleared,
    Event,
    KeysRead,
    KeysRefused,
    LateWrite,
    Loaded,
    Opened,
    PublicResponse,
    Rejected,
    Reporter,
    Resealed,
    Sealed,
    Stored,
    StoreFailed,
    TooLarge,
)

EVENTS: tuple[Event, ...] = (
    Opened(key_id="0badcafe", primary=True, size=174, chunks=1),
    Sealed(key_id="0badcafe", size=174, chunks=1),
    Resealed(key_id="0badcafe", old_key_id="cafe0bad", size=174, chunks=1),
    Cleared(),
    Rejected(reason="forged"),
    LateWrite(),
    TooLarge(size=9000, limit=7448),
    PublicResponse(),
    Loaded(key_id="0badcafe", primary=True, size=174),
    Stored(key_id="0badcafe", size=174, conflicts=0),
    StoreFailed(problem="the store did not answer within 1 s"),
    KeysRead(path="/etc/keys.toml", key_id="0badcafe", keys=2),
    KeysRefused(path="/etc/keys.toml", problem="No such file or directory"),
)
REASONS: tuple[Reason, ...] = get_args(Reason)

every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The reporter's clock."""
    return Clock()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the logger `cookiesession` writes, at every level."""
    caplog.set_level(logging.DEBUG, logger="cookiesession")
    return caplog


# The types


def test_every_kind_of_event_is_tested_here() -> None:
    """None is left out of the union, or of the list above."""
    assert set(get_args(Event)) == {type(event) for event in EVENTS}


@every_event
def test_event_is_frozen_and_holds_nothing_else(event: Event) -> None:
    """A listener cannot change it for the next one, and there is no room for what it should not carry."""
    for field in dataclasses.fields(event):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field.name, "changed")

    assert not hasattr(event, "__dict__")
    assert event == dataclasses.replace(event)
    assert {event: 1}[dataclasses.replace(event)] == 1


@every_event
def test_event_has_no_field_for_a_token_an_id_or_a_value(event: Event) -> None:
    """Key ids, sizes, counts, reasons and the names of fields are all that there is. Case A17."""
    kinds = {field.name: type(getattr(event, field.name)) for field in dataclasses.fields(event)}

    assert set(kinds) <= {
        "key_id",
        "old_key_id",
        "primary",
        "size",
        "limit",
        "chunks",
        "reason",
        "path",
        "keys",
        "problem",
        "conflicts",
    }
    assert set(kinds.values()) <= {str, bool, int, type(None)}


@every_event
def test_event_is_made_by_keyword(event: Event) -> None:
    """So that a field can be added without breaking whoever makes one in a test."""
    arguments = [getattr(event, field.name) for field in dataclasses.fields(event)]
    kind: Any = type(event)

    if arguments:
        with pytest.raises(TypeError):
            kind(*arguments)


def test_reasons_are_those_that_are_documented() -> None:
    """They are part of the interface: dashboards count them."""
    assert set(REASONS) >= {
        "malformed",
        "too_large",
        "chunk_count",
        "incomplete",
        "unknown_key",
        "forged",
        "unsupported",
        "future",
        "expired",
        "idle",
        "undecodable",
    }


@pytest.mark.parametrize(
    ("kinds", "level"),
    [
        ((Opened, Sealed, Resealed, Cleared, Loaded, Stored), logging.DEBUG),
        ((Rejected, KeysRead), logging.INFO),
        ((LateWrite, TooLarge, PublicResponse), logging.WARNING),
        ((KeysRefused, StoreFailed), logging.ERROR),
    ],
    ids=["everyday", "worth knowing", "the-application's", "the-operator's"],
)
def test_level_tells_whose_it_is(kinds: tuple[type[Event], ...], level: int) -> None:
    """Nothing that a client can cause is a warning."""
    assert {level} == {kind.level for kind in kinds}


# The listener


@every_event
def test_listener_hears_every_event(event: Event, clock: Clock) -> None:
    """At any rate: it is for counting."""
    heard: list[Event] = []
    reporter = Reporter(heard.append, clock)

    for _ in range(100):
        reporter.report(event)

    assert [event] * 100 == heard


def test_listener_that_raises_harms_nobody(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """Its exception is logged, with the traceback that its author needs, and goes no further."""

    def listener(event: Event) -> None:
        raise RuntimeError("the metrics server is away")

    reporter = Reporter(listener, clock)

    reporter.report(Rejected(reason="forged"))

    error = next(record for record in log.records if record.levelno == logging.ERROR)
    assert error.getMessage() == "on_event raised RuntimeError"
    assert error.exc_info is not None
    assert error.exc_info[0] is RuntimeError


def test_listener_that_always_raises_is_logged_at_a_bounded_rate(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """As any other record. Case C32."""

    def listener(event: Event) -> None:
        raise RuntimeError("the metrics server is away")

    reporter = Reporter(listener, clock)

    for _ in range(10_000):
        reporter.report(Rejected(reason="forged"))

    assert [logging.INFO, logging.ERROR] == [record.levelno for record in log.records]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_end_of_the_process_is_not_swallowed(error: type[BaseException], clock: Clock) -> None:
    """Only an `Exception` is the listener's own."""

    def listener(event: Event) -> None:
        raise error

    with pytest.raises(error):
        Reporter(listener, clock).report(Cleared())


# The log


@every_event
def test_record_is_the_event(event: Event, clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """Under the one logger, at the event's level, as its `repr`."""
    Reporter(None, clock).report(event)

    assert [("cookiesession", event.level, repr(event))] == log.record_tuples
    assert not log.records[0].exc_info


def test_ten_thousand_rejections_are_one_record(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """While the listener counts them all. Case C32, CVE-2025-69230."""
    heard: list[Event] = []
    reporter = Reporter(heard.append, clock)

    for number in range(10_000):
        reporter.report(Rejected(reason=REASONS[number % len(REASONS)]))

    assert log.messages == [repr(Rejected(reason="malformed"))]
    assert len(heard) == 10_000


def test_next_record_counts_those_left_out(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """A minute later, and the count starts anew after it. Case C32."""
    reporter = Reporter(None, clock)
    for _ in range(10_000):
        reporter.report(Rejected(reason="forged"))

    clock.now += events.LOG_INTERVAL
    reporter.report(Rejected(reason="expired"))
    clock.now += events.LOG_INTERVAL
    reporter.report(Rejected(reason="idle"))

    assert log.messages == [
        repr(Rejected(reason="forged")),
        f"{Rejected(reason='expired')!r} (and 9999 more since the last such record)",
        repr(Rejected(reason="idle")),
    ]


@pytest.mark.parametrize(("later", "expected"), [(0, 1), (59.9, 1), (60, 2), (61, 2)], ids="{}".format)
def test_interval_is_a_minute(later: float, expected: int, clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """From one record to the next. Case C32."""
    reporter = Reporter(None, clock)
    reporter.report(Cleared())

    clock.now += later
    reporter.report(Cleared())

    assert expected == len(log.records)


def test_one_kind_of_event_does_not_silence_another(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """A flood of forgeries hides no late write. Case C32."""
    reporter = Reporter(None, clock)

    for _ in range(100):
        for event in EVENTS:
            reporter.report(event)

    assert [repr(event) for event in EVENTS] == log.messages


def test_one_manager_does_not_silence_another(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """Each reporter has its own interval."""
    for _ in range(2):
        Reporter(None, clock).report(Cleared())

    assert len(log.records) == 2


def test_level_that_is_off_neither_logs_nor_counts(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The first record after it is turned on speaks of itself alone."""
    reporter = Reporter(None, clock)
    caplog.set_level(logging.WARNING, logger="cookiesession")
    for _ in range(100):
        reporter.report(Rejected(reason="forged"))

    caplog.set_level(logging.INFO, logger="cookiesession")
    reporter.report(Rejected(reason="idle"))

    assert caplog.messages == [repr(Rejected(reason="idle"))]


@pytest.mark.parametrize(
    ("listener", "level", "expected"),
    [
        pytest.param(None, logging.DEBUG, True, id="log-at-debug"),
        pytest.param(None, logging.INFO, False, id="log-at-info"),
        pytest.param(None, logging.CRITICAL, False, id="log-at-critical"),
        pytest.param(repr, logging.CRITICAL, True, id="listener"),
    ],
)
def test_everyday_event_is_made_only_where_somebody_would_see_it(
    listener: Any, level: int, *, expected: bool, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a listener and above debug, an opened session costs a question."""
    caplog.set_level(level, logger="cookiesession")

    assert expected is Reporter(listener, clock).debugging()


def test_clock_that_goes_back_silences_nothing(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    """The interval begins anew with a record at the earlier time. Case F76."""
    reporter = Reporter(None, clock)
    reporter.report(Cleared())

    clock.now -= 3600
    reporter.report(Cleared())
    clock.now += events.LOG_INTERVAL - 1
    reporter.report(Cleared())
    clock.now += 1
    reporter.report(Cleared())

    assert log.messages == ["Cleared()", "Cleared()", "Cleared() (and 1 more since the last such record)"]
