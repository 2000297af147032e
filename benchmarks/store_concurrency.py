"""Sessions in stores behind a real server: a uvicorn for each library, on one Redis, and visitors who ask at once."""

from __future__ import annotations

import os
import statistics
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from load import cookies_of, load, request, served
from measuring import NAVIGATION, Report, other_cookies, session
from store_libraries import OURS, libraries
from store_requests import OTHERS, filling, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from load import Load
    from measuring import Handler
    from starlette.types import ASGIApp, Receive, Scope, Send

VISITORS: Final = (1, 4, 16, 64, 256)
SIZE: Final = 1024  # bytes of JSON
ACTIONS: Final[dict[str, Handler]] = {"read": read, "write": write}
NAMES: Final = (
    *(("Redis", OURS), ("Redis", f"{OURS}, same client"), ("Redis", "starsessions"), ("Redis", "Litestar")),
    ("SQLite", OURS),
)
NOTHING: Final = "no sessions"

_Found = dict[tuple[str, str, str, int], list["Load"]]


def application() -> ASGIApp:
    """What uvicorn serves: the library that the environment names, with an action for each path."""
    name, store, folder, port = (os.environ[key] for key in ("LIBRARY", "STORE", "FOLDER", "REDIS_PORT"))
    # What is opened here ends with the process.
    every = libraries(Path(folder), int(port), AsyncExitStack())
    library = next(each for each in every if (each.store, each.name) == (store, name))
    apps: dict[str, Any] = {f"/{action}": library.behind(handler) for action, handler in ACTIONS.items()}
    apps |= {"/fill": library.behind(filling(session(SIZE))), "/nothing": library.bare}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[scope["path"]]({**scope, "path": "/", "raw_path": b"/"}, receive, send)

    return app


def visitor(port: int, action: str) -> bytes:
    """The request of somebody who has a session."""
    cookies = cookies_of(port, "/fill", NAVIGATION)
    return request(f"/{action}", [*NAVIGATION, (b"cookie", b"; ".join((*other_cookies(OTHERS), *cookies)))])


def measure(folder: Path, redis: int, runs: int, seconds: float, crowds: Sequence[int]) -> _Found:
    """The loads by action, store, library and number of visitors, in an order that turns from run to run."""
    found: _Found = {}
    with ExitStack() as stack:
        ports = {}
        for number, (store, name) in enumerate(NAMES):
            own = folder / f"server-{number}"
            own.mkdir()
            settings = {"LIBRARY": name, "STORE": store, "FOLDER": str(own), "REDIS_PORT": str(redis)}
            ports[store, name] = stack.enter_context(served("store_concurrency:application", settings))
        contenders = {
            (action, store, name): (port, [visitor(port, action) for _ in range(max(crowds))])
            for action in ACTIONS
            for (store, name), port in ports.items()
        }
        for framework, place in {"": NAMES[0], " in Litestar": ("Redis", "Litestar")}.items():
            bare = [request("/nothing", NAVIGATION)] * max(crowds)
            contenders["", "", NOTHING + framework] = (ports[place], bare)
        order = list(contenders.items())
        for run in range(runs):
            for crowd in crowds:
                for (action, store, name), (port, requests) in order[run % len(order) :] + order[: run % len(order)]:
                    result = load(port, requests[:crowd], seconds)
                    found.setdefault((action, store, name, crowd), []).append(result)
    return found


def concurrency_reports(folder: Path, redis: int, *, quick: bool) -> list[Report]:
    """Answers per second and latencies, by the number of visitors."""
    runs, seconds, crowds = (1, 0.3, VISITORS[:3:2]) if quick else (7, 0.4, VISITORS)
    found = measure(folder, redis, runs, seconds, crowds)
    busiest = max(each.share for loads in found.values() for each in loads)
    notes = (
        "By the number of visitors, each with a connection and a session of 1 KB, who ask again once answered.\n"
        f"Medians of {runs} runs of {seconds} s. The generator took up to {busiest:.0%} of a core."
    )
    return [
        _report("Answers per second of one uvicorn process", notes, found, crowds, _rate),
        _report("Milliseconds until the answer: median / 99th percentile", "The same runs.", found, crowds, _latency),
    ]


def _report(
    title: str, notes: str, found: _Found, crowds: Sequence[int], cell: Callable[[Sequence[Load]], str]
) -> Report:
    contenders = dict.fromkeys(key[:3] for key in found)
    rows = [(*key, *(cell(found[(*key, crowd)]) for crowd in crowds)) for key in contenders]
    return Report(title, notes, ("request", "store", "library", *map(str, crowds)), rows)


def _rate(loads: Sequence[Load]) -> str:
    return f"{statistics.median(each.rate for each in loads):,.0f}"


def _latency(loads: Sequence[Load]) -> str:
    medians = [statistics.median(times) for times in ([each.median for each in loads], [each.p99 for each in loads])]
    return " / ".join(f"{milliseconds:.1f}" for milliseconds in medians)
