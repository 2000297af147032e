"""Sessions in a real server: uvicorn in a process of its own, and visitors who ask all at once."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.request import ProxyHandler, build_opener

import frameworks  # noqa: F401 - puts the frameworks among the peers
from actions import READ, WRITE
from browser import Jar
from cases import Case
from contest import cookie_lines
from load import Load, load, request, served
from measuring import Report, environment, kilobytes, printer
from peers import OURS, PEERS, STARLETTE, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peers import Peer
    from starlette.types import ASGIApp, Receive, Scope, Send

VISITORS: Final = (1, 4, 16, 64, 256)
SIZE: Final = 1024  # bytes of JSON
OTHERS: Final = 4  # cookies besides the session's
NOTHING: Final = "no sessions"
USAGE: Final = "/usage"
DIRECT: Final = build_opener(ProxyHandler({}))  # whatever proxy the environment names
ACTIONS: Final = {action.name: action for action in (READ, WRITE)}
LIBRARIES: Final[dict[str, Peer]] = {
    "cookiesession": OURS,
    "Starlette": STARLETTE,
    **{peer.title: peer for peer in PEERS if peer.name in ("starsessions", "Litestar") and "AES" in peer.protection},
}


class Run(NamedTuple):
    """What visitors saw, and what it cost."""

    load: Load
    cpu: float
    """Microseconds of the server's CPU time for an answer, uvicorn's part too."""


def application() -> ASGIApp:
    """What uvicorn serves: the library that the environment names, with an action for each path."""
    name = os.environ["LIBRARY"]
    bare = STARLETTE.bare()
    apps = {
        f"/{action.name}": bare if name == NOTHING else LIBRARIES[name].application(action, 1)
        for action in ACTIONS.values()
    }
    answers = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal answers
        if scope["path"] == USAGE:
            body = f"{time.process_time()} {answers}".encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        answers += 1
        await apps[scope["path"]]({**scope, "path": "/", "raw_path": b"/"}, receive, send)

    return app


def usage(port: int) -> tuple[float, int]:
    """The seconds of CPU time that a server has had, and the requests that it has answered."""
    with DIRECT.open(f"http://127.0.0.1:{port}{USAGE}") as answer:
        seconds, answers = answer.read().split()
    return float(seconds), int(answers)


async def visits(name: str, path: str, count: int) -> list[bytes]:
    """The requests of so many visitors, each with a session of their own."""
    jars = [Jar() for _ in range(count)]
    if name != NOTHING:
        app = LIBRARIES[name].application(fill(Case(READ, SIZE).data()), 1)
        for jar in jars:
            jar.take(await cookie_lines(app, jar.headers(0)))
    return [request(path, jar.headers(OTHERS)) for jar in jars]


def measure(seconds: float, runs: int, crowds: Sequence[int]) -> dict[tuple[str, str, int], list[Run]]:
    """The load of each library, action and number of visitors, run by run."""
    names = (NOTHING, *LIBRARIES)
    found: dict[tuple[str, str, int], list[Run]] = {}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(served("concurrency:application", {"LIBRARY": name})) for name in names}
        requests = {
            (name, action): asyncio.run(visits(name, f"/{action}", max(crowds))) for name in names for action in ACTIONS
        }
        for _ in range(runs):
            for visitors in crowds:
                for (name, action), all_of_them in requests.items():
                    if name == NOTHING and action != READ.name:
                        continue
                    before = usage(ports[name])
                    result = load(ports[name], all_of_them[:visitors], seconds)
                    used, answers = (new - old for new, old in zip(usage(ports[name]), before, strict=True))
                    found.setdefault((name, action, visitors), []).append(Run(result, 1e6 * used / answers))
    return found


def report(
    title: str, notes: str, found: dict[tuple[str, str, int], list[Run]], cell: Callable[[Sequence[Run]], str]
) -> Report:
    """A table of what `cell` makes of the runs."""
    pairs = dict.fromkeys((name, action) for name, action, _ in found)
    crowds = sorted({visitors for _, _, visitors in found})
    rows = [
        ("" if name == NOTHING else action, name, *(cell(found[name, action, visitors]) for visitors in crowds))
        for name, action in pairs
    ]
    return Report(title, notes, ("request", "library", *map(str, crowds)), rows)


def rate(runs: Sequence[Run]) -> str:
    """Answers per second."""
    rates = [each.load.rate for each in runs]
    return f"{statistics.median(rates):,.0f}"


def cost(runs: Sequence[Run]) -> str:
    """Microseconds of CPU time for an answer."""
    return f"{statistics.median(each.cpu for each in runs):.0f}"


def latency(runs: Sequence[Run]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    return " / ".join(
        f"{statistics.median(times):.2f}"
        for times in zip(*((each.load.median, each.load.p99) for each in runs), strict=True)
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Sessions in uvicorn, under load.")
    parser.add_argument("--seconds", type=float, default=0.4, help="of load, for each figure (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short run of each, by few visitors")
    options = parser.parse_args()
    seconds, runs = (0.3, 1) if options.quick else (options.seconds, options.runs)
    found = measure(seconds, runs, VISITORS[:3:2] if options.quick else VISITORS)
    busiest = max(each.load.share for runs in found.values() for each in runs)
    notes = (
        f"By the number of visitors who ask at once, each with a session of {kilobytes(SIZE)}.\n"
        f"Medians of {runs} runs of {seconds} s. The generator took up to {busiest:.0%} of a core.\n"
        "What is in Litestar's figures besides is Litestar itself."
    )
    console = printer()
    console.print(environment("cookiesession", "uvicorn", "starlette", "starsessions", "litestar"))
    report("Answers per second of one uvicorn process", notes, found, rate).show(console)
    report("µs of the server's CPU time for an answer", "", found, cost).show(console)
    report("Milliseconds until the answer: median / 99th percentile", "", found, latency).show(console)


if __name__ == "__main__":
    main()
