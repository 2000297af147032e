"""Sessions in a real server: uvicorn in a process of its own, and visitors who ask all at once."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import frameworks  # noqa: F401 - puts the frameworks among the peers
from actions import READ, WRITE
from browser import Jar
from cases import Case
from contest import cookie_lines
from load import load, request, served
from measuring import Report, environment, kilobytes, printer
from peers import OURS, PEERS, STARLETTE, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from load import Load
    from peers import Peer
    from starlette.types import ASGIApp, Receive, Scope, Send

VISITORS: Final = (1, 4, 16, 64, 256)
SIZE: Final = 1024  # bytes of JSON
OTHERS: Final = 4  # cookies besides the session's
NOTHING: Final = "no sessions"
ACTIONS: Final = {action.name: action for action in (READ, WRITE)}
LIBRARIES: Final[dict[str, Peer]] = {
    "cookiesession": OURS,
    "Starlette": STARLETTE,
    **{peer.title: peer for peer in PEERS if peer.name in ("starsessions", "Litestar") and "AES" in peer.protection},
}


def application() -> ASGIApp:
    """What uvicorn serves: the library that the environment names, with an action for each path."""
    name = os.environ["LIBRARY"]
    if name == NOTHING:
        return STARLETTE.bare()
    apps = {f"/{action.name}": LIBRARIES[name].application(action, 1) for action in ACTIONS.values()}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[scope["path"]]({**scope, "path": "/", "raw_path": b"/"}, receive, send)

    return app


async def visit(name: str, path: str) -> bytes:
    """The request of a visitor with a session."""
    jar = Jar()
    if name != NOTHING:
        jar.take(await cookie_lines(LIBRARIES[name].application(fill(Case(READ, SIZE).data()), 1), jar.headers(0)))
    return request(path, jar.headers(OTHERS))


def measure(seconds: float, runs: int) -> dict[tuple[str, str, int], list[Load]]:
    """The load of each library, action and number of visitors, run by run."""
    names = (NOTHING, *LIBRARIES)
    found: dict[tuple[str, str, int], list[Load]] = {}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(served("concurrency:application", {"LIBRARY": name})) for name in names}
        requests = {(name, action): asyncio.run(visit(name, f"/{action}")) for name in names for action in ACTIONS}
        for _ in range(runs):
            for visitors in VISITORS:
                for (name, action), one in requests.items():
                    if name == NOTHING and action != READ.name:
                        continue
                    result = load(ports[name], [one] * visitors, seconds)
                    found.setdefault((name, action, visitors), []).append(result)
    return found


def report(title: str, notes: str, found: dict[tuple[str, str, int], list[Load]], cell: Any) -> Report:
    """A table of what `cell` makes of the runs."""
    pairs = dict.fromkeys((name, action) for name, action, _ in found)
    rows = [
        ("" if name == NOTHING else action, name, *(cell(found[name, action, visitors]) for visitors in VISITORS))
        for name, action in pairs
    ]
    return Report(title, notes, ("request", "library", *map(str, VISITORS)), rows)


def rate(loads: Sequence[Load]) -> str:
    """Answers per second."""
    rates = [each.rate for each in loads]
    return f"{statistics.median(rates):,.0f}"


def latency(loads: Sequence[Load]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    return " / ".join(
        f"{statistics.median(times):.2f}" for times in zip(*((each.median, each.p99) for each in loads), strict=True)
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Sessions in uvicorn, under load.")
    parser.add_argument("--seconds", type=float, default=0.4, help="of load, for each figure (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short run")
    options = parser.parse_args()
    seconds, runs = (0.3, 1) if options.quick else (options.seconds, options.runs)
    found = measure(seconds, runs)
    busiest = max(each.share for loads in found.values() for each in loads)
    notes = (
        f"By the number of visitors who ask at once, each with a session of {kilobytes(SIZE)}.\n"
        f"Medians of {runs} runs of {seconds} s. The generator took up to {busiest:.0%} of a core."
    )
    console = printer()
    console.print(environment("cookiesession", "uvicorn", "starlette", "starsessions", "litestar"))
    report("Answers per second of one uvicorn process", notes, found, rate).show(console)
    report("Milliseconds until the answer: median / 99th percentile", "", found, latency).show(console)


if __name__ == "__main__":
    main()
