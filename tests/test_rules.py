"""Tests of `rules.py`: when a session begins and ends, what is a change of it, and what is nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness import START, Clock
from msgspec.structs import replace

from cookiesession import ConfigurationError, Key, KeyRing, SessionManager, UnencodableData
from cookiesession.payload import BOUND_LENGTH, LAST_SECOND, PERSISTENT, Payload
from cookiesession.revocation import Revocation
from cookiesession.state import State
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from cookiesession.rules import Rules

EMPTY, FULL = msgspec.msgpack.encode({}), msgspec.msgpack.encode({"a": 1})
PAYLOAD = Payload(
    PERSISTENT, START, START + 10, START + 1000, 60, bytes(16), "ada", FULL, "laptop", b"", bytes(BOUND_LENGTH), 7
)


def _rules(clock: Clock, **options: Any) -> Rules[Any]:
    all_options: dict[str, Any] = {
        "lifetime": timedelta(hours=1),
        "idle_timeout": timedelta(minutes=10),
        "clock": clock,
        **options,
    }
    return SessionManager[Any](KeyRing(Key.generate()), **all_options).mode


def test_use_changes_the_data_the_time_of_use_and_the_idle_timeout_alone() -> None:
    """Everything else is as it was sealed, whatever the manager says now."""
    used = _rules(Clock()).used(PAYLOAD, EMPTY, START + 20)

    assert replace(PAYLOAD, data=EMPTY, renewed_at=START + 20, idle_timeout=600) == used


def test_renewal_begins_another_life_of_the_same_session() -> None:
    """With the manager's times and another id to come; whose it is stays."""
    clock = Clock(START + 500)

    renewed = _rules(clock).renewed(PAYLOAD)

    times = {"created_at": START + 500, "renewed_at": START + 500, "expires_at": START + 4100, "idle_timeout": 600}
    assert replace(PAYLOAD, **times, id=b"", superseded_by=None, fraction=0) == renewed


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0), ({"revocation": Revocation(MemoryStore())}, 250_000)],
    ids=["second", "microsecond"],
)
def test_when_a_session_began_is_known_as_exactly_as_it_has_to_be(options: dict[str, Any], expected: int) -> None:
    """Where sessions can be ended by it, two in one second are told apart."""
    assert expected == _rules(Clock(START + 0.25), **options).renewed(PAYLOAD).fraction


def test_an_id_is_drawn_once() -> None:
    """And stays what it is."""
    rules = _rules(Clock(), random=lambda count: b"\1" * count)

    first = rules.identified(replace(PAYLOAD, id=b""))

    assert b"\1" * 16 == first.id
    assert first is rules.identified(first)
    assert bytes(16) == rules.used(PAYLOAD, EMPTY, START).id


@pytest.mark.parametrize(
    ("lifetime", "expected"),
    [
        (timedelta(seconds=1), START + 1),
        (timedelta(seconds=1.9), START + 1),
        (timedelta(days=36500), LAST_SECOND),
    ],
    ids=str,
)
def test_an_own_lifetime_ends_at_a_whole_second(lifetime: timedelta, expected: int) -> None:
    """From the second that it is; in 2106 at the latest."""
    assert expected == _rules(Clock(START + 0.9)).expiry(PAYLOAD, lifetime)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=0.9), timedelta(days=36501), 60], ids=str)
def test_what_is_no_lifetime_is_refused(lifetime: Any) -> None:
    """Less than a second, more than a century, and a number without its unit."""
    with pytest.raises(ConfigurationError, match="at least one second and at most a century"):
        _rules(Clock()).expiry(PAYLOAD, lifetime)


@pytest.mark.parametrize(
    ("now", "left"), [(START, 1000), (START + 999.5, 0.5), (START + 1000, 0), (START + 10**6, 0)], ids=str
)
def test_what_remains_is_counted_to_the_end(now: float, left: float) -> None:
    """And is nothing from then on."""
    assert timedelta(seconds=left) == _rules(Clock(now)).remaining(PAYLOAD)


@pytest.mark.parametrize(
    ("data", "subject", "expected"), [(EMPTY, None, True), (EMPTY, "ada", False), (FULL, None, False)]
)
def test_a_session_without_data_and_subject_is_over(data: bytes, subject: str | None, *, expected: bool) -> None:
    """Nobody would miss it."""
    rules = _rules(Clock())
    state: State[Any] = State(rules, [])  # type: ignore[arg-type]  # the rules are all that it asks here
    rules.begin(_opened(state))
    state.payload = replace(state.payload, subject=subject)

    assert expected == rules.is_over(state, data)


def _opened(state: Any) -> Any:
    state.brought, state.expired = (), False
    return state


def test_what_cannot_be_encoded_is_named_and_carries_no_value() -> None:
    """Neither as a cause nor as a context."""
    with pytest.raises(UnencodableData, match=r"session\['a'\]") as caught:
        _rules(Clock()).encode({"a": object()})

    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
