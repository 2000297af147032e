"""What a session in a store adds to a request: cookiesession beside starsessions and Litestar, in one run.

What a request costs is measured with ASGI applications that tasks of one asyncio event loop call, without sockets of
their own; how many there can be at once, behind uvicorn. All that use Redis use the same server, on loopback, through
the same driver: `RedisStore` with the client that it makes from a URL, others with one of the driver's defaults, and
`RedisStore` with such a one too. Every round runs every case with every library, in an order that turns from round to
round; what a session adds is the difference to the same application without one, in the same round. CPU time is that of
all threads of this process, and wall time has the server's too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sqlite3
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from measuring import NAVIGATION, Report, environment, middle, printer
from memory_store import scaling_report
from store_concurrency import concurrency_reports
from store_libraries import BLOCK, DISK, OURS, client, libraries, modes, redis_server
from store_requests import (
    OTHERS,
    as_it_is,
    drive,
    end,
    glance,
    read,
    signed_in,
    untouched,
    with_another_id,
    without_cookie,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from measuring import Handler, Headers
    from redis.asyncio import Redis
    from rich.console import Console
    from starlette.types import ASGIApp
    from store_libraries import Library

WARM_UP: Final = 3  # requests before them
SIZES: Final = (100, 1024, 4096)  # bytes of JSON
RECORDS: Final = (1_000, 10_000, 100_000, 1_000_000)  # in a memory store
CLOCKS: Final = {"CPU time": time.process_time_ns, "wall time": time.perf_counter_ns}
PATIENCE: Final = 5  # seconds for what Redis is asked beside the measurements
PACKAGES: Final = (
    *("cookiesession", "starsessions", "litestar", "starlette"),
    *("uvicorn", "redis", "sqlalchemy", "aiosqlite", "cryptography", "msgspec"),
)

ACTIONS: Final[dict[str, Handler]] = {"read": read, "write": write}
CASES: Final = [(action, size) for action in ACTIONS for size in SIZES]
COLUMNS: Final = [f"{action}, {size / 1024:.1g} KB" for action, size in CASES]


@dataclass(frozen=True)
class Contender:
    """An application, the request that it gets, and the microseconds that a request took in each round."""

    app: ASGIApp
    headers: Headers
    block: int
    times: dict[str, list[float]] = field(default_factory=lambda: {clock: [] for clock in CLOCKS})

    async def run(self) -> None:
        """Times one block of requests."""
        for _ in range(WARM_UP):
            await drive(self.app, self.headers)
        starts = [clock() for clock in CLOCKS.values()]
        for _ in range(self.block):
            await drive(self.app, self.headers)
        for (name, clock), start in zip(CLOCKS.items(), starts, strict=True):
            self.times[name].append((clock() - start) / self.block / 1000)


async def measure(contests: Sequence[Sequence[Contender]], rounds: int) -> None:
    """Runs every contender in every round, in an order that turns."""
    gc.disable()
    for turn in range(rounds):
        for contest in contests:
            for index in range(len(contest)):
                await contest[(turn + index) % len(contest)].run()
        gc.collect()
    gc.enable()


async def cost_reports(compared: Sequence[Library], rounds: int) -> list[Report]:
    """What each library adds to a request, and how much of that ours does."""
    bare = list({id(each.bare): each.bare for each in compared}.values())
    contests = []
    for action, size in CASES:
        contest = [
            Contender(each.behind(ACTIONS[action]), await signed_in(each, size), each.block) for each in compared
        ]
        contests.append([*(Contender(app, NAVIGATION, BLOCK) for app in bare), *contest])
    await measure(contests, rounds)
    # By clock and library, for each case: what was added in each round.
    added: dict[str, list[list[list[float]]]] = {}
    for clock in CLOCKS:
        added[clock] = []
        for index, library in enumerate(compared, len(bare)):
            pairs = [(contest[index], contest[bare.index(library.bare)]) for contest in contests]
            added[clock].append([less(mine.times[clock], alone.times[clock]) for mine, alone in pairs])
    notes = (
        f"Request: a navigation by Chromium, {len(NAVIGATION)} headers, and a Cookie header with {OTHERS} others.\n"
        f"Medians of {rounds} rounds of {BLOCK} requests, {DISK} where they wait for a disk, ± half of the "
        "interquartile range."
    )
    costs = [
        Report(
            f"Added cost per request, in µs of {clock} over the application without sessions",
            notes,
            ("store", "library", *COLUMNS),
            [
                (each.store, each.name, *(middle(times, 0) for times in cases))
                for each, cases in zip(compared, added[clock], strict=True)
            ],
        )
        for clock in CLOCKS
    ]
    return [*costs, share_report(compared, added)]


def share_report(compared: Sequence[Library], added: dict[str, list[list[list[float]]]]) -> Report:
    """What ours adds, as a share of what others do with the same store."""
    places = {(each.store, each.name): index for index, each in enumerate(compared)}
    rows = []
    for (store, name), place in places.items():
        if name.startswith(OURS):
            continue
        for clock in CLOCKS:
            pairs = zip(added[clock][places[store, OURS]], added[clock][place], strict=True)
            cells = [middle([a / b for a, b in zip(mine, theirs, strict=True)], 2) for mine, theirs in pairs]
            rows.append((store, name, clock, *cells))
    return Report(
        "The added cost of cookiesession as a share of another library's with the same store",
        "Round by round.",
        ("store", "library", "time", *COLUMNS),
        rows,
    )


def less(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """The differences, one by one."""
    return [time - other for time, other in zip(times, others, strict=True)]


async def commands_report(compared: Sequence[Library], watching: Redis) -> Report:
    """What each library asks of Redis."""
    rows = []
    for action, (handler, change) in VISITS.items():
        for each in compared:
            if each.store != "Redis":
                continue
            app = each.behind(handler)
            earlier, headers = [change(await signed_in(each, each.size)) for _ in range(2)]
            await commands_of(app, earlier, watching)  # the first time connections are opened, and scripts loaded
            commands = await commands_of(app, headers, watching)
            rows.append((action, each.name, str(len(commands)), ", ".join(commands) or "none"))
    return Report(
        "Round trips to Redis per request",
        "Commands as MONITOR shows them, without those that a script runs within the server.\n"
        "A revocation relies on an answer for five seconds by default, and asks for two endings at once: both count.",
        ("request", "library", "round trips", "commands"),
        rows,
    )


async def commands_of(app: ASGIApp, headers: Headers, watching: Redis) -> list[str]:
    """The commands that one request sends to Redis."""
    commands = []
    async with asyncio.timeout(PATIENCE), watching.monitor() as monitor:
        await drive(app, headers)
        await watching.echo("the end")
        async for told in monitor.listen():
            command = told["command"].partition(" ")[0]
            if command == "ECHO":
                break
            if told["client_type"] != "lua":
                commands.append(command)
    return commands


VISITS: Final[dict[str, tuple[Handler, Callable[[Headers], Headers]]]] = {
    "no cookie": (glance, without_cookie),
    "made-up cookie": (glance, with_another_id),
    "untouched": (untouched, as_it_is),
    "read": (read, as_it_is),
    "write": (write, as_it_is),
    "clear": (end, as_it_is),
}


async def compare(folder: Path, port: int, console: Console, *, rounds: int) -> None:
    """Measures what needs an event loop, and prints it."""
    async with AsyncExitStack() as stack:
        compared = libraries(folder, port, stack)
        for report in await cost_reports(compared, rounds):
            report.show(console)
        watching = await stack.enter_async_context(client(port))
        (await commands_report([*compared, *modes(port, stack)], watching)).show(console)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Cookiesession's stores beside those of starsessions and Litestar.")
    parser.add_argument("--rounds", type=int, default=25, help="how often each case runs (default: %(default)s)")
    parser.add_argument("--directory", help="where to put files and databases (default: that for temporary files)")
    parser.add_argument("--quick", action="store_true", help="a few seconds: fewer rounds, and 100,000 records at most")
    options = parser.parse_args()
    console = printer()
    with tempfile.TemporaryDirectory(dir=options.directory) as name, redis_server(Path(name)) as (server, port):
        console.print(f"{environment(*PACKAGES)}; {server}, SQLite {sqlite3.sqlite_version}")
        rounds = 5 if options.quick else options.rounds
        asyncio.run(compare(Path(name), port, console, rounds=rounds))
        for report in concurrency_reports(Path(name), port, quick=options.quick):
            report.show(console)
    scaling_report(RECORDS[: 3 if options.quick else None]).show(console)


if __name__ == "__main__":
    main()
