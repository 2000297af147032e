"""The benchmarks still run, and say what the other libraries cannot do. What they measure is not tested."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NEEDED = ("aiohttp_session", "flask", "litestar", "matplotlib", "rich", "securecookies", "starsessions.encryptors")


def is_missing(name: str) -> bool:
    """Whether a module cannot be found."""
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:  # its package
        return True


# A table for a terminal that is narrower than what is in it.
NARROW = """
from measuring import Report
from rich.console import Console
table = Report("Title", "", ("library", "1 KB"), [("cookiesession, unseen", "123.4 ± 5.6")])
table.show(Console(width=16, force_terminal=True))
"""

MISSING = [name for name in NEEDED if is_missing(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the group bench is not installed: {', '.join(MISSING)}")


def run(script: str, *arguments: str) -> str:
    """What a script prints in a process of its own: some have the names of packages. A proxy has no part in it."""
    command = (sys.executable, str(BENCHMARKS / script), *arguments)
    environ = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)  # noqa: S603 - our own script
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(output: str, title: str, library: str) -> list[str]:
    """The first row of a library in the table of this title."""
    table = output.partition(title)[2]
    row = next(line for line in table.splitlines() if line.startswith(f"| {library} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_requests_say_who_loses_what() -> None:
    """Ours keeps every change; a cookie that no browser keeps, a lost change and an old key are marked."""
    output = run("requests.py", "--quick", "--rounds", "2", "--block", "2")

    inside = "The handler changes what is inside an entry"
    marked = {name: "".join(cells(output, inside, name)) for name in ("cookiesession", "Starlette", "Litestar")}
    older = "".join(cells(output, "under an older key", "Flask"))
    assert not any(mark in marked["cookiesession"] for mark in "†‡§")
    assert "‡" in marked["Starlette"]
    assert "†" in marked["Starlette"]
    assert "‡" not in marked["Litestar"]
    assert "§" in older
    assert "take one key alone" in output


def test_the_extra_speed_takes_part_where_one_asks_for_it() -> None:
    """Else the figures are those of the package alone. A single round has no spread."""
    output = run("requests.py", "--quick", "--speed", "--rounds", "1", "--block", "2")

    assert "pybase64" in output
    assert "± 0" not in output
    assert "as a share of another's cost" in output
    assert "The handler changes an entry" not in output


def test_scaling_has_every_size() -> None:
    """Of sessions, of rings, and of the request's other cookies."""
    output = run("scaling.py", "--quick", "--rounds", "2", "--block", "2")

    assert len(cells(output, "Cost by bytes of JSON", "  7,168")) == 7
    assert len(cells(output, "Cost of a first read by the number of keys", " 100")) == 5
    assert len(cells(output, "number of other cookies", "    50")) == 5
    assert cells(output, "Bytes of cookie text", "one text")[2].isdecimal()


def test_blocks_that_are_counted_have_labels() -> None:
    """One for each, by which the counts of their instructions are told apart."""
    lines = run("instructions.py", "--counted", "--quick").splitlines()

    contenders = ["bare", "cookiesession", "cookiesession, unseen", "Starlette"]
    assert contenders == [line.partition("\t")[2] for line in lines[:4]]
    assert lines[-1] == "write, 0.1 KB\tfloor, by hand"


def test_a_narrow_terminal_cuts_nothing_off() -> None:
    """What is too wide goes on in the next line."""
    command = (sys.executable, "-c", NARROW)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCHMARKS)  # noqa: S603 - our own words

    assert "╭" in done.stdout
    assert "…" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "title"),
    [
        ("memory.py", ("--requests", "700", "--processes", "2"), "Memory that is kept"),
        ("concurrency.py", ("--quick",), "Answers per second of one uvicorn process"),
        ("instructions.py", ("--quick",), "nstructions"),
    ],
    ids=["memory", "concurrency", "instructions"],
)
def test_script_runs(script: str, arguments: tuple[str, ...], title: str) -> None:
    """To its end, with a table or a word about why not."""
    output = run(script, *arguments)

    assert title in output
