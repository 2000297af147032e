"""Where all files of a store are, in an order in which one can stop and go on. Reads names alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cookiesession.stores.file.posix import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS: Final = "records"
SUBJECTS: Final = "subjects"

_SHARDS: Final = [f"{kind}/{number:02x}" for kind in (RECORDS, SUBJECTS) for number in range(256)]
START: Final = f"{_SHARDS[-1]}/~"
"""The place before the first: behind every hexadecimal digit."""


def places(path: Path, after: str) -> Iterator[str]:
    """`records/<two digits>/<name>` and `subjects/<two digits>/<subject>/<name>`, from the next one on, and round.

    A subject's own place comes before those of its keys, with an empty name. Raises `OSError`.
    """
    kind, number, name = after.split("/", 2)
    first = _SHARDS.index(f"{kind}/{number}")
    for turn in range(len(_SHARDS) + 1):
        shard = _SHARDS[(first + turn) % len(_SHARDS)]
        found = _names(path / shard, name if turn == 0 else "", nested=shard.startswith(SUBJECTS))
        yield from (f"{shard}/{each}" for each in found)


def _names(shard: Path, after: str, *, nested: bool) -> Iterator[str]:
    outer = sorted(names(shard))
    if not nested:
        yield from outer[bisect_right(outer, after) :]
        return
    for subject in outer[bisect_left(outer, after.partition("/")[0]) :]:
        with suppress(NotADirectoryError):  # that is for who looks at the subject's own place
            yield from (each for each in _entries(shard, subject) if each > after)


def _entries(shard: Path, subject: str) -> Iterator[str]:
    yield f"{subject}/"
    yield from (f"{subject}/{each}" for each in sorted(names(shard / subject)))
