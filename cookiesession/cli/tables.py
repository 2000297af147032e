"""Rows for people: a table on a terminal, aligned text where another program reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


_TIME: Final = re.compile(r"(?<=\d)T(?=\d)")  # between a date and its time


def render(columns: Sequence[str], rows: Sequence[Sequence[str]], *, terminal: bool) -> str:
    """The rows under the names of their columns, whole: nothing is cut off, however narrow the terminal is."""
    return _drawn(columns, rows) if terminal else _aligned(columns, rows)


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_TIME.sub(" ", cell) for cell in row))  # where a narrow table can break the line
    console = Console(force_terminal=True, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(line.rstrip() + "\n" for line in padded)
