"""Instructions per request, counted by valgrind: the same on a busy machine, so that a regression is visible in a diff.

`python benchmarks/instructions.py` runs itself under callgrind, which begins a new count at each call of `getppid()`.
Between two of them lies one block of requests. Counted is what the process does, not what the kernel does for it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actions import GLANCE, READ, WRITE
from cases import FLOOR, Case, contest, entries
from contest import block
from measuring import Report, environment, kilobytes, printer
from peers import OURS, STARLETTE, UNSEEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from measuring import Headers
    from starlette.types import ASGIApp

WARM_UP: Final = 100  # requests, for the interpreter's caches
REQUESTS: Final = 250
CASES: Final = {
    "untouched": Case(None, 100),
    "anonymous read": Case(GLANCE, None),
    **{f"read, {kilobytes(size)}": Case(READ, size) for size in (100, 1536, 4096)},
    **{f"write, {kilobytes(size)}": Case(WRITE, size) for size in (100, 1536, 4096)},
}
BARE: Final = "bare"


async def count_blocks(cases: Mapping[str, Case]) -> None:
    """Runs the blocks: an empty one, and each case by the bare application, by ours, by Starlette and by hand."""
    gc.disable()
    os.getppid()
    os.getppid()
    for name, case in cases.items():
        for contender in contest(await entries(case, [OURS, UNSEEN, STARLETTE])):
            await run(contender.app, contender.headers)
            print(f"{name}\t{contender.name}")


async def run(app: ASGIApp, headers: Headers) -> None:
    """One block, between two marks."""
    await block(app, headers, WARM_UP)
    gc.collect()
    os.getppid()
    await block(app, headers, REQUESTS)
    os.getppid()


def counted(options: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Cases, contenders, and the instructions of each per request."""
    with tempfile.TemporaryDirectory() as directory:
        counting = ("--tool=callgrind", "--dump-before=getppid*", f"--callgrind-out-file={directory}/out")
        command = ("valgrind", *counting, sys.executable, __file__, "--counted", *options)
        # With one hash seed sets and dicts have the same collisions in every run: valgrind lays out the memory alike.
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - this very file
        if done.returncode:
            sys.exit(done.stderr)
        dumps = sorted(Path(directory).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [int(re.findall(r"^totals: (\d+)", path.read_text(), re.MULTILINE)[0]) for path in dumps]
    empty, *blocks = totals[1::2]  # between two marks; the others are what lies between two blocks
    for line, total in zip(done.stdout.splitlines(), blocks, strict=True):
        case, _, contender = line.partition("\t")
        yield case, contender, (total - empty) / REQUESTS


def instruction_report(options: Sequence[str]) -> Report:
    """What a session adds to a request."""
    counts: dict[str, dict[str, float]] = {}
    for case, contender, instructions in counted(options):
        counts.setdefault(case, {})[contender] = instructions
    rows = []
    for case, by_contender in counts.items():
        bare = by_contender.pop(BARE)
        added = {contender: instructions - bare for contender, instructions in by_contender.items()}
        theirs, floor = added[STARLETTE.name], added.get(FLOOR.name)
        row = [case, *("" if each is None else f"{each / 1000:.4g}" for each in (bare, theirs, floor))]
        for mine in (added[OURS.name], added[UNSEEN.name]):
            row += [f"{mine / 1000:.4g}", f"{mine / theirs:.3f}", "" if floor is None else f"{mine / floor:.2f}"]
        rows.append(row)
    return Report(
        "Instructions that a session adds to a request, in thousands",
        f"Counted by valgrind over {REQUESTS} requests each. Repeatable to 0.3 %, with the same versions.\n"
        "Share: ours of Starlette's. Multiple: ours of the floor. Unseen: this process has not opened the cookie yet.",
        (
            *("case", "bare request", "Starlette", "floor", "cookiesession", "share", "multiple"),
            *("unseen", "its share", "its multiple"),
        ),
        rows,
    )


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description="Instructions per request, counted by valgrind.")
    parser.add_argument("--quick", action="store_true", help="the smallest sessions alone")
    parser.add_argument("--counted", action="store_true", help="run the blocks themselves, as valgrind does")
    logging.getLogger("cookiesession").setLevel(logging.ERROR)  # it warns of the second chunk
    options = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if not options.quick or case.size in (None, 100)}
    if options.counted:
        asyncio.run(count_blocks(cases))
        return
    if not shutil.which("valgrind"):
        print("Instructions are counted by valgrind, which is not installed.")
        return
    console = printer()
    console.print(environment("cookiesession", "starlette", "itsdangerous", "cryptography", "msgspec"))
    instruction_report(["--quick"] if options.quick else []).show(console)


if __name__ == "__main__":
    main()
