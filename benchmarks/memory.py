"""What sessions take besides time: the import, the memory of a process and of a request; and that none is kept."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import resource
import statistics
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Final

from actions import GLANCE, NESTED, READ, WRITE
from cases import Case, entries, entry
from contest import Contender, block, drive
from measuring import NAVIGATION, Report, environment, kilobytes, middle, printer
from peers import OURS, STARLETTE, bare

UNWANTED: Final = frozenset({"fastapi", "pydantic", "redis", "sqlalchemy"})  # with an import of ours
MODULES: Final = (
    *("cookiesession", "starlette.middleware.sessions", "starsessions", "litestar.middleware.session.client_side"),
    "securecookies",
)
CASES: Final = {
    "untouched": Case(None, 100),
    "anonymous read": Case(GLANCE, None),
    **{f"read, {kilobytes(size)}": Case(READ, size) for size in (100, 1024, 4096)},
    **{f"write, {kilobytes(size)}": Case(WRITE, size) for size in (100, 1024, 4096)},
}
WARM_UP: Final = 200  # requests, after which every cache is filled
BLOCK: Final = 100  # requests of one kind before the next

# Prints the seconds that an import took, the KiB that the process has grown by, and the modules that it loaded; with a
# word after it, those it asked for, found or not.
IMPORT: Final = """
import json, pathlib, resource, sys, time
sys.modules["pybase64"] = None  # an extra
asked, before = [], set(sys.modules)
class Listener:
    def find_spec(name, path=None, target=None):
        asked.append(name)
if len(sys.argv) > 2:
    sys.meta_path.insert(0, Listener)
def size():
    status = pathlib.Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() // 1024 if status.exists() else 0
size()
old, start = size(), time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - start
print(json.dumps([seconds, size() - old, asked or sorted(set(sys.modules) - before)]))
"""


def import_of(module: str, *arguments: str) -> tuple[float, int, set[str]]:
    """What `IMPORT` prints of `module`, in a new process."""
    command = (sys.executable, "-c", IMPORT, module, *arguments)
    output = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603 - this very Python
    seconds, kibibytes, names = json.loads(output)
    return seconds, kibibytes, set(names)


def packages(modules: set[str], *, besides: str) -> set[str]:
    """The third-party packages that `modules` belong to."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {besides.partition(".")[0]}


def import_report(processes: int) -> Report:
    """What an import takes, and takes along."""
    rows = []
    for module in MODULES:
        runs = [import_of(module) for _ in range(processes)]
        loaded, asked = runs[0][2], import_of(module, "asked")[2]
        names = (packages(loaded, besides=module), packages(asked, besides=module) & UNWANTED)
        columns = (middle([1000 * run[0] for run in runs]), middle([run[1] / 1024 for run in runs]), str(len(loaded)))
        rows.append((module, *columns, *(", ".join(sorted(found)) or "none" for found in names)))
    return Report(
        "Import in a new process",
        f"Medians of {processes} processes, ± half of the interquartile range.\n"
        f"Unwanted: {', '.join(sorted(UNWANTED))}; an attempt to import one that is not installed would count.",
        ("import", "ms", "MiB", "modules", "third-party packages", "unwanted"),
        rows,
    )


async def peak(contender: Contender) -> float:
    """The most bytes that one request has at a time."""
    await block(contender.app, contender.headers, WARM_UP)
    peaks = []
    for _ in range(21):
        gc.collect()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        await drive(contender.app, contender.headers)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    return statistics.median(peaks)


async def cycles(contender: Contender) -> float:
    """The objects that one request leaves to the garbage collector."""
    gc.collect()
    await block(contender.app, contender.headers, BLOCK)
    return gc.collect() / BLOCK


async def request_report() -> Report:
    """What a request takes for its time, and leaves behind."""
    rows = []
    gc.disable()
    tracemalloc.start()
    for name, case in CASES.items():
        found = [each.contender for each in await entries(case, [OURS, STARLETTE]) if each.contender is not None][:2]
        empty = await peak(Contender("bare", bare(), NAVIGATION))
        peaks = [f"{(await peak(each) - empty) / 1024:.1f}" for each in found]
        rows.append((name, *peaks, *[f"{await cycles(each):.1f}" for each in found]))
    tracemalloc.stop()
    gc.enable()
    names = (OURS.name, STARLETTE.name)
    return Report(
        "Memory of a request, over a bare application",
        "KiB: the most that a request has at a time (tracemalloc). Cyclic: objects left to the garbage collector.",
        ("case", *(f"{name}, KiB" for name in names), *(f"{name}, cyclic" for name in names)),
        rows,
    )


async def growth_report(requests: int) -> Report:
    """What is left after many requests of all kinds."""
    kinds = [Case(None, 100), Case(GLANCE, None), *(Case(action, 1024) for action in (READ, WRITE, NESTED))]
    kinds += [Case(READ, 100, rotated=True)]
    found = [(await entry(case, OURS, 4)).contender for case in kinds]
    contenders = [each for each in found if each is not None]
    forged = [*NAVIGATION, (b"cookie", b"__Host-session=" + b"A" * 200)]
    await block(contenders[2].app, contenders[2].headers, WARM_UP)
    tracemalloc.start()
    rows, done = [], 0
    for goal in (requests // 100, requests // 10, requests // 2, requests):
        while done < goal:
            for contender in contenders:
                await block(contender.app, contender.headers, BLOCK)
            await block(contenders[1].app, forged, BLOCK)
            done += BLOCK * (len(contenders) + 1)
        gc.collect()
        traced = f"{tracemalloc.get_traced_memory()[0] / 1024:.1f}" if tracemalloc.is_tracing() else ""
        rows.append((f"{done:,}", traced, f"{sys.getallocatedblocks():,}", f"{resident():,}"))
        if done >= requests // 10:
            tracemalloc.stop()  # it would take minutes for the rest
    return Report(
        "Memory that is kept",
        "By applications of each kind, in turn: untouched, anonymous, read, write, nested write, rotated, forged.\n"
        "Traced: what has been allocated since the start and not been freed. Blocks: all that Python has.\n"
        "Resident: the process, with what libraries in C have.",
        ("requests", "traced KiB", "blocks", "resident KiB"),
        rows,
    )


def resident() -> int:
    """KiB of this process that are in memory, where the system tells."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() // 1024 if status.exists() else 0


async def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What sessions take besides time.")
    parser.add_argument("--requests", type=int, default=1_000_000, help="to look for growth (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=15, help="for each import (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="20,000 requests, 3 processes")
    options = parser.parse_args()
    requests, processes = (20_000, 3) if options.quick else (options.requests, options.processes)
    logging.getLogger("cookiesession").setLevel(logging.CRITICAL)  # it warns of forged cookies
    console = printer()
    console.print(environment("cookiesession", "starlette", "starsessions", "litestar", "starlette-securecookies"))
    import_report(processes).show(console)
    (await request_report()).show(console)
    (await growth_report(requests)).show(console)


if __name__ == "__main__":
    asyncio.run(main())
