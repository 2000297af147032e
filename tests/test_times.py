"""Times as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession.times import LONGEST, brief, later, parse_duration, stamp


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("2h", timedelta(hours=2)),
        ("30d", timedelta(days=30)),
        ("1h30m", timedelta(minutes=90)),
        ("1w2d3h4m5s", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5)),
        ("0s", timedelta(0)),
        ("36500d", LONGEST),
    ],
)
def test_duration_is_the_sum_of_its_parts(text: str, duration: timedelta) -> None:
    """Any of the units, in their order."""
    assert duration == parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "h", "-1h", "+1h", "1.5h", "1h ", " 1h", "1 h", "1m1h", "1h1h", "1H", "1y", "1h\n", "٣h", "1h30"],
)
def test_anything_else_is_no_duration(text: str) -> None:
    """No sign, no fraction, no blank, no other digits; and a bare number leaves open what it counts."""
    with pytest.raises(ValueError, match="90s, 2h, 30d or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36500d1s", "9999999999d", "9999999999w9999999999d"])
def test_duration_ends_at_a_century(text: str) -> None:
    """Longer ones are slips of the pen."""
    with pytest.raises(ValueError, match="at most a century"):
        parse_duration(text)


@given(st.integers(0, 36500 * 86400))
def test_brief_duration_reads_back(seconds: int) -> None:
    """What a default shows can be typed."""
    duration = timedelta(seconds=seconds)

    assert duration == parse_duration(brief(duration))


def test_stamp_is_in_utc() -> None:
    """Whatever the zone of the moment, and with the fraction that it has."""
    moment = datetime(2027, 1, 1, 3, 30, 0, 500, tzinfo=timezone(timedelta(hours=3, minutes=30)))

    assert stamp(moment) == "2027-01-01T00:00:00.000500Z"


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])))
def test_stamp_reads_back(moment: datetime) -> None:
    """In the first and in the last year too."""
    assert moment == datetime.fromisoformat(stamp(moment))


def test_stamp_beyond_the_years_of_utc_keeps_its_zone() -> None:
    """There is no other way to write it."""
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))

    assert stamp(last) == "9999-12-31T23:59:59.999999-01:00"


def test_later_ends_with_time() -> None:
    """A moment far ahead stands for never, and is no error."""
    far = datetime(9999, 12, 31, tzinfo=UTC)

    assert later(far, timedelta(hours=1)) == datetime(9999, 12, 31, 1, tzinfo=UTC)
    assert later(far, timedelta(days=14)) == datetime.max.replace(tzinfo=UTC)
