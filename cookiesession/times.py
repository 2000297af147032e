"""Times as people write and read them: durations such as `1h30m`, and moments in UTC. No clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

LONGEST: Final = timedelta(days=36500)
"""A century: what is longer is a slip of the pen, and would lead past the last year there is."""

_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
# Each unit at most once, the larger first. Ten digits hold a century in seconds.
_DURATION: Final = re.compile("(?=.)" + "".join(rf"(?:(?P<{unit}>[0-9]{{1,10}}){unit})?" for unit in _SECONDS))


def parse_duration(text: str) -> timedelta:
    """The duration that weeks, days, hours, minutes and seconds give in this order. Raises `ValueError`.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("a duration is written as 90s, 2h, 30d or 1h30m: w, d, h, m and s, the larger first")
    seconds = sum(int(number or 0) * _SECONDS[unit] for unit, number in found.groupdict().items())
    if seconds > LONGEST.total_seconds():
        raise ValueError("a duration is at most a century")
    return timedelta(seconds=seconds)


def brief(duration: timedelta) -> str:
    """A duration of whole seconds as `parse_duration()` reads it, in days at most: weeks are for input alone.

    >>> brief(timedelta(days=30)), brief(timedelta(hours=1.5)), brief(timedelta(0))
    ('30d', '1h30m', '0s')
    """
    rest, text = int(duration.total_seconds()), ""
    for unit, seconds in list(_SECONDS.items())[1:]:
        number, rest = divmod(rest, seconds)
        text += f"{number}{unit}" if number else ""
    return text or "0s"


def later(moment: datetime, duration: timedelta) -> datetime:
    """The moment `duration` after another, or the last there is: a year 9999 in a file stands for never."""
    try:
        return moment + duration
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def stamp(moment: datetime) -> str:
    """An aware moment in UTC (ISO 8601, RFC 3339), to the second where it is a whole one.

    >>> stamp(datetime.fromisoformat("2026-01-01T01:00:00+01:00"))
    '2026-01-01T00:00:00Z'
    """
    try:
        return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    except OverflowError:  # beyond the first or the last year in UTC
        return moment.isoformat()
