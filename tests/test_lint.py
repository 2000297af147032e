"""What is wrong with a schedule, or soon will be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import Key
from cookiesession.aead import SEAL_LIMIT
from cookiesession.lint import LIFETIME, Finding, lint
from cookiesession.schedule import ADD, PROPAGATION, Schedule, ScheduledKey
from cookiesession.times import stamp

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)
OLD, NEW, THIRD = (Key("xaes-256-gcm", bytes(range(number, number + 32))) for number in range(3))
GCM = Key("aes-256-gcm", bytes(range(32)))


def at(
    key: Key, activates: timedelta, *, added: timedelta | None = None, retires: timedelta | None = None
) -> ScheduledKey:
    """A key with its times counted from now; added one day before it activates."""
    return ScheduledKey(
        key=key,
        added=NOW + (activates - DAY if added is None else added),
        activates=NOW + activates,
        retires=None if retires is None else NOW + retires,
    )


def found(*keys: ScheduledKey, rate: float = 1000, lifetime: timedelta = LIFETIME) -> list[Finding]:
    """What is wrong with these keys now."""
    return list(lint(Schedule(keys), NOW, rate=rate, lifetime=lifetime))


def the_one(findings: list[Finding], level: str) -> str:
    """The message of the only finding, which is of that level."""
    assert [level] == [finding.level for finding in findings], findings
    return findings[0].message


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([at(OLD, -YEAR)], id="one"),
        pytest.param([at(OLD, timedelta(0), added=timedelta(0))], id="first"),
        pytest.param([at(OLD, -YEAR), at(NEW, HOUR, added=timedelta(0))], id="next"),
        pytest.param([at(OLD, -YEAR, retires=LIFETIME - DAY), at(NEW, -DAY)], id="succeeded"),
        pytest.param([at(OLD, -YEAR, retires=-HOUR), at(NEW, -DAY)], id="retired"),
    ],
)
def test_good_schedule_has_no_findings(keys: list[ScheduledKey]) -> None:
    """As `add` and `rotate` leave one."""
    assert [] == found(*keys)


def test_rotated_schedule_never_has_findings() -> None:
    """A year of daily rotations, checked every day."""
    now = NOW
    schedule = Schedule().add(OLD, now, timedelta(0))
    for _ in range(365):
        schedule = schedule.rotate(now, every=30 * DAY, lifetime=LIFETIME)
        assert [] == list(lint(schedule, now))
        now += DAY

    assert len(schedule.keys) <= 3


# Sealing before everybody knows the key


@pytest.mark.parametrize("wait", [timedelta(0), HOUR - timedelta(seconds=1)], ids=["at-once", "too-soon"])
def test_key_that_seals_before_all_have_read_it_is_an_error(wait: timedelta) -> None:
    """Instances that have only the older one refuse its sessions."""
    message = the_one(found(at(OLD, -YEAR), at(NEW, wait, added=timedelta(0))), "error")

    assert message.startswith(f"key {NEW.id} seals from 2027-01-15T08:")
    assert "only from 2027-01-15T09:00:00Z has every instance read it (1h after it was added)" in message


def test_key_that_sealed_too_soon_is_fine_once_all_have_read_it() -> None:
    """The window has passed."""
    assert [] == found(at(OLD, -YEAR), at(NEW, -HOUR, added=-HOUR))
    assert found(at(OLD, -YEAR), at(NEW, -HOUR, added=timedelta(seconds=1) - HOUR))


def test_window_is_what_the_operator_says() -> None:
    """A day, where files are carried about by hand."""
    schedule = Schedule((at(OLD, -YEAR), at(NEW, 2 * HOUR, added=timedelta(0))))

    assert [] == list(lint(schedule, NOW, propagation=2 * HOUR))
    assert "(1d after it was added)" in the_one(list(lint(schedule, NOW, propagation=DAY)), "error")


def test_first_key_seals_at_once() -> None:
    """No instance has another, or only one that had retired."""
    now = timedelta(0)

    assert [] == found(at(NEW, now, added=now))
    assert [] == found(at(OLD, -YEAR, retires=-DAY), at(NEW, now, added=now))


def test_second_key_of_one_second_is_not_the_first() -> None:
    """Two commands in one script, for which the order in the file tells."""
    now = timedelta(0)

    message = the_one(found(at(OLD, now, added=now), at(NEW, HOUR / 2, added=now)), "error")

    assert message.startswith(f"key {NEW.id} seals")


def test_replaced_key_is_not_told_when_it_should_have_sealed() -> None:
    """It is too late for that."""
    hasty = at(NEW, -HOUR / 2, added=-HOUR / 2)
    later = at(THIRD, -HOUR / 3, added=-YEAR)

    assert [] == found(at(OLD, -YEAR), hasty, later)


# Retiring too soon


@pytest.mark.parametrize("successor", [-DAY, DAY], ids=["sealing", "pending"])
def test_key_that_retires_before_its_sessions_is_a_warning(successor: timedelta) -> None:
    """They last for one lifetime after its successor has begun to seal."""
    last = successor + LIFETIME
    new = at(NEW, successor, added=-DAY)

    message = the_one(found(at(OLD, -YEAR, retires=last - timedelta(seconds=1)), new), "warning")

    assert message.startswith(f"key {OLD.id} retires at 2027-01-")
    assert f"last until {(NOW + last):%Y-%m-%dT%H:%M:%SZ}: they end early" in message
    assert [] == found(at(OLD, -YEAR, retires=last), new)


def test_sessions_of_a_key_end_by_the_next_of_several() -> None:
    """A key seals until its successor does, whoever comes later, in whatever order the file has them."""
    assert [] == found(at(OLD, -YEAR, retires=HOUR), at(NEW, -DAY), at(THIRD, -LIFETIME))


def test_lifetime_is_what_the_operator_says() -> None:
    """Longer sessions need their keys for longer."""
    keys = at(OLD, -YEAR, retires=20 * DAY), at(NEW, -DAY)

    assert [] == found(*keys)
    assert the_one(found(*keys, lifetime=30 * DAY), "warning")


def test_key_that_retires_while_it_seals_is_a_warning() -> None:
    """An older one would seal in its place, but cannot open what it sealed."""
    message = the_one(found(at(OLD, -YEAR), at(NEW, -DAY, retires=30 * DAY)), "warning")

    assert f"key {NEW.id} retires at 2027-02-14T08:00:00Z and seals until then" in message


def test_last_key_that_retires_is_an_error() -> None:
    """Nothing would seal after it."""
    message = the_one(found(at(OLD, -YEAR, retires=20 * DAY), at(NEW, -DAY, retires=30 * DAY)), "error")

    assert f"key {NEW.id} retires at 2027-02-14T08:00:00Z, and no key is left to seal after it" in message
    assert message.endswith(ADD)


def test_retired_keys_are_past_help() -> None:
    """A key whose sessions have ended early is not reported for ever."""
    assert [] == found(at(OLD, -YEAR, retires=timedelta(0)), at(NEW, -DAY))


def test_schedule_of_retired_keys_is_one_error() -> None:
    """However many they are."""
    message = the_one(found(at(OLD, -YEAR, retires=-DAY), at(NEW, -DAY, retires=timedelta(0))), "error")

    assert message == f"every key in it has retired; add one with: {ADD}"


def test_empty_schedule_is_an_error() -> None:
    """It says what would help."""
    assert f"it holds no key; add one with: {ADD}" == the_one(found(), "error")


# AES-GCM keys that seal too often


HALF = timedelta(seconds=SEAL_LIMIT / 2 / 1000)  # at 1,000 a second: 24 days
SPENT = 2 * HALF


def test_aes_gcm_key_is_a_warning_from_half_of_its_seals() -> None:
    """It says when the other half will be spent."""
    message = the_one(found(at(GCM, -HALF)), "warning")

    assert message.startswith(f"key {GCM.id} is for 2^32 seals, which 1000 a second reach at 2027-02-09T04:")
    assert [] == found(at(GCM, timedelta(seconds=1) - HALF))


def test_aes_gcm_key_is_an_error_once_it_is_spent() -> None:
    """It says since when."""
    message = the_one(found(at(GCM, -SPENT)), "error")

    assert message.startswith(f"key {GCM.id} is for 2^32 seals, which 1000 a second reached at 2027-01-15T08:00:00Z")


def test_rate_decides() -> None:
    """An eighth of the seals takes eight times as long."""
    assert [] == found(at(GCM, -SPENT), rate=125)
    assert "which 0.9 a second reach" in the_one(found(at(GCM, -100 * YEAR), rate=0.9), "warning")


@pytest.mark.parametrize("key", [OLD, Key("fernet", bytes(range(32)))], ids=["xaes-256-gcm", "fernet"])
def test_other_keys_seal_for_ever(key: Key) -> None:
    """Their nonces are longer: 2^80 seals, and 2^64 blocks."""
    assert [] == found(at(key, -100 * YEAR), rate=1e6)


def test_planned_successor_counts() -> None:
    """Whether the key will be spent by then is known beforehand."""
    in_time, too_late = at(NEW, HALF / 2, added=timedelta(0)), at(NEW, SPENT, added=timedelta(0))

    assert [] == found(at(GCM, timedelta(0) - HALF / 4), in_time)
    assert the_one(found(at(GCM, -HALF / 2), too_late), "error").endswith("or use xaes-256-gcm")
    assert the_one(found(at(GCM, HOUR), too_late), "warning")


def test_replaced_aes_gcm_key_is_reported_only_if_it_was_spent() -> None:
    """There is nothing left to do about one that was near."""
    assert [] == found(at(GCM, -DAY - HALF * 1.5), at(NEW, -DAY))
    assert "reached at" in the_one(found(at(GCM, -DAY - SPENT), at(NEW, -DAY)), "error")


def test_key_of_a_clock_that_was_ahead_is_a_warning() -> None:
    """Rotation adds no key before that one is old, which may be in years. As far as clocks may differ, it is none."""
    ahead = at(NEW, PROPAGATION + 2 * HOUR, added=PROPAGATION + HOUR)

    message = the_one(found(at(OLD, -YEAR), ahead), "warning")

    assert f"key {NEW.id} was added at {stamp(ahead.added)}, which is yet to come" in message
    assert [] == found(at(OLD, -YEAR), at(NEW, PROPAGATION + HOUR, added=PROPAGATION))


# Any schedule


def moments() -> st.SearchStrategy[datetime]:
    """Any that a file can hold, and those around now."""
    near = st.integers(-60, 60).map(lambda days: NOW + days * DAY)
    return near | st.datetimes(timezones=st.just(UTC))


@given(
    keys=st.lists(
        st.builds(
            ScheduledKey,
            key=st.sampled_from([OLD, NEW, THIRD, GCM]),
            added=moments(),
            activates=moments(),
            retires=st.none() | moments(),
        ),
        unique_by=lambda each: each.key,
    ),
    now=moments(),
    rate=st.floats(0.01, 1e9),
)
def test_any_schedule_can_be_checked(keys: list[ScheduledKey], now: datetime, rate: float) -> None:
    """In the year 1 and in the year 9999 too."""
    findings = list(lint(Schedule(tuple(keys)), now, rate=rate, lifetime=LIFETIME, propagation=PROPAGATION))

    assert all(replace(finding, message="") in (Finding("error", ""), Finding("warning", "")) for finding in findings)
    assert bool(keys) or bool(findings)
