"""What a session adds to a request: cookiesession beside Starlette's own SessionMiddleware, in one run.

A bare ASGI application is driven by stepping its coroutine by hand: no event loop, no sockets, no routing. Every round
runs each case with the bare application, with Starlette's middleware and with ours, in an order that turns from round
to round; what a middleware adds is the difference to the bare application of the same round. Time is the thread's CPU
time, so that other processes disturb little. The collector is off within a block and runs between rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from measuring import (
    NAVIGATION,
    SMALL,
    Report,
    application,
    environment,
    ignore,
    json_size,
    middle,
    other_cookies,
    printer,
    receive,
    session,
)
from msgspec import Struct
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware as StarletteMiddleware

from cookiesession import Key, KeyRing, SessionManager, SessionMiddleware
from cookiesession.testing import cookies_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from measuring import Handler, Headers
    from starlette.types import ASGIApp, Message, Scope, Send

    from cookiesession.aead import Algorithm

BLOCK: Final = 100  # requests that are timed together
WARM_UP: Final = 20  # requests before them, or whoever comes after the largest would pay for its caches

SIZES: Final = (100, 512, 1024, 2048, 4096)  # bytes of JSON

UNWANTED: Final = frozenset({"fastapi", "pydantic", "redis", "sqlalchemy"})  # with an import of ours


def worst_session(size: int) -> dict[str, Any]:
    """A session of `size` bytes of JSON in which there is least to save: one long text."""
    return {"note": "." * (size - json_size({"note": ""}))}


def untouched(scope: Scope) -> None:
    """Leaves the session alone."""


def glance(scope: Scope) -> None:
    """What `request.session.get("views")` does."""
    session = scope["session"]
    session.mark_accessed()
    session.get("views")


def read(scope: Scope) -> None:
    """What `request.session["views"]` does."""
    session = scope["session"]
    session.mark_accessed()
    session["views"]


def write(scope: Scope) -> None:
    """What `request.session["views"] += 1` does."""
    session = scope["session"]
    session.mark_accessed()
    session["views"] += 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """A handler, the session that the request brings, and the share of Starlette's cost that issue 2 asks for."""

    name: str
    handler: Handler
    data: dict[str, Any] | None = None
    algorithm: Algorithm = "xaes-256-gcm"
    target: float | None = None


CASES: Final = (
    Case(name="untouched, no cookie", handler=untouched, target=0.5),
    Case(name="anonymous read, no cookie", handler=glance),
    Case(name="untouched, 100 B", handler=untouched, data=SMALL, target=0.15),
    Case(name="read, 100 B", handler=read, data=SMALL, target=0.45),
    Case(name="write, 100 B", handler=write, data=SMALL, target=0.4),
    Case(name="read, 1.5 KB", handler=read, data=session(1536), target=0.6),
    Case(name="write, 1.5 KB", handler=write, data=session(1536), target=0.4),
    Case(name="write, 4 KB", handler=write, data=session(4096)),
    Case(name="read, 100 B", handler=read, data=SMALL, algorithm="aes-256-gcm"),
    Case(name="write, 100 B", handler=write, data=SMALL, algorithm="aes-256-gcm"),
    Case(name="read, 100 B", handler=read, data=SMALL, algorithm="fernet"),
    Case(name="write, 100 B", handler=write, data=SMALL, algorithm="fernet"),
)


def starlette(app: ASGIApp) -> ASGIApp:
    """The application behind Starlette's middleware."""
    return StarletteMiddleware(app, secret_key="0123456789abcdef" * 2, https_only=True)


def ours(algorithm: Algorithm = "xaes-256-gcm") -> Callable[[ASGIApp], ASGIApp]:
    """What puts an application behind our middleware, with one key for all."""
    ring = KeyRing(Key.generate(algorithm))
    return lambda app: SessionMiddleware(app, keys=ring)


def drive(app: ASGIApp, headers: Headers, send: Send = ignore) -> None:
    """One request from its start to its end."""
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    try:
        app(scope, receive, send).send(None)  # type: ignore[attr-defined]  # of all awaitables these are coroutines
    except StopIteration:
        return
    raise RuntimeError("the application waits for something")


def cookies_set(app: ASGIApp, headers: Headers) -> list[bytes]:
    """The names and values of the cookies that the response to one request sets."""
    lines: list[bytes] = []

    async def keep(message: Message) -> None:
        lines.extend(value for name, value in message.get("headers", ()) if name == b"set-cookie")

    drive(app, headers, keep)
    return [line.partition(b";")[0] for line in lines]


def sealed(wrap: Callable[[ASGIApp], ASGIApp], data: dict[str, Any]) -> list[bytes]:
    """The names and values of the cookies that hold `data`."""
    return cookies_set(wrap(application(lambda scope: scope["session"].update(data))), NAVIGATION)


@dataclass(frozen=True)
class Contender:
    """An application, the request that it gets, and the microseconds that a request took in each round."""

    app: ASGIApp
    headers: Headers
    times: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Times one block of requests."""
        app, headers = self.app, self.headers
        for _ in range(WARM_UP):
            drive(app, headers)
        start = time.thread_time_ns()
        for _ in range(BLOCK):
            drive(app, headers)
        self.times.append((time.thread_time_ns() - start) / BLOCK / 1000)


def contenders(case: Case, others: int) -> list[Contender]:
    """The bare application, Starlette's middleware and ours, each with a cookie of its own making."""
    found = []
    for wrap in (starlette, ours(case.algorithm)):
        headers = list(NAVIGATION)
        if case.data is not None:
            headers.append((b"cookie", b"; ".join((*other_cookies(others), *sealed(wrap, case.data)))))
        app = wrap(application(case.handler))
        if bool(cookies_set(app, headers)) != (case.handler is write):
            raise RuntimeError(f"{case.name}: the wrong thing is measured")
        found.append(Contender(app, headers))
    return [Contender(application(untouched), found[0].headers), *found]


def measure(contests: Sequence[Sequence[Contender]], rounds: int) -> None:
    """Runs every contender in every round, in an order that turns."""
    gc.disable()
    for turn in range(rounds):
        for contest in contests:
            for index in range(len(contest)):
                contest[(turn + index) % len(contest)].run()
        gc.collect()
    gc.enable()


def request_report(rounds: int, others: int) -> Report:
    """What each middleware adds to a request."""
    contests = [contenders(case, others) for case in CASES]
    measure(contests, rounds)
    rows = []
    for case, (bare, theirs, mine) in zip(CASES, contests, strict=True):
        added = [[a - b for a, b in zip(each.times, bare.times, strict=True)] for each in (theirs, mine)]
        share = [b / a for a, b in zip(*added, strict=True)]
        target = "" if case.target is None else str(case.target)
        cost = (f"{statistics.median(bare.times):.1f}", *map(middle, added))
        rows.append((case.name, case.algorithm, *cost, middle(share, 2), target))
    return Report(
        "Added cost per request, in µs of CPU time over the bare application",
        f"Request: a navigation by Chromium, {len(NAVIGATION)} headers; with a session also a Cookie header, with "
        f"{others} other cookies.\n"
        f"Medians of {rounds} rounds of {BLOCK} requests, ± half of the interquartile range.\n"
        "Share: ours of Starlette's, round by round. Target: that of issue 2.",
        ("case", "algorithm", "bare", "Starlette", "cookiesession", "share", "target"),
        rows,
    )


class Fields(BaseModel):
    """The small session as a pydantic model."""

    user_id: int = 0
    name: str = ""
    theme: str = ""
    admin: bool = False
    views: int = 0
    at: int = 0


class FieldsStruct(Struct):
    """The small session as a msgspec.Struct."""

    user_id: int = 0
    name: str = ""
    theme: str = ""
    admin: bool = False
    views: int = 0
    at: int = 0


def read_typed(scope: Scope) -> None:
    """What `session.data.views` does."""
    _ = scope["session"].data.views


def write_typed(scope: Scope) -> None:
    """What `session.data.views += 1` does."""
    scope["session"].data.views += 1


def typed(model: Any, handler: Handler, others: int) -> Contender:
    """Our middleware with a model of the small session, or without one."""
    manager: SessionManager[Any] = SessionManager(KeyRing(Key.generate()), model=model)
    jar = cookies_for(manager, SMALL if model is None else model(**SMALL))
    cookies = b"; ".join((*other_cookies(others), *(f"{name}={value}".encode() for name, value in jar.items())))
    return Contender(SessionMiddleware(application(handler), manager), [*NAVIGATION, (b"cookie", cookies)])


def typed_report(rounds: int, others: int) -> Report:
    """What a model costs beside the plain dict."""
    models: list[tuple[str, Any]] = [("dict", None), ("msgspec.Struct", FieldsStruct), ("pydantic", Fields)]
    actions: list[tuple[str, Handler, Handler]] = [
        ("untouched", untouched, untouched),
        ("read", read, read_typed),
        ("write", write, write_typed),
    ]
    contests = []
    for _, plain, of_model in actions:
        contest = [typed(model, plain if model is None else of_model, others) for _, model in models]
        contests.append([Contender(application(untouched), contest[0].headers), *contest])
    measure(contests, rounds)
    rows = []
    for (action, *_), (bare, *contest) in zip(actions, contests, strict=True):
        added = [[a - b for a, b in zip(each.times, bare.times, strict=True)] for each in contest]
        for (name, _), times in zip(models, added, strict=True):
            share = [mine / plain for mine, plain in zip(times, added[0], strict=True)]
            rows.append((action, name, middle(times), middle(share, 2)))
    return Report(
        "Added cost per request of a typed session of six fields, in µs over the bare application",
        "Share: of the dict without a model.",
        ("case", "session", "cookiesession", "share"),
        rows,
    )


def length_report() -> Report:
    """How long the cookies become."""
    rows = []
    for size in SIZES:
        for kind, data in (("several fields", session(size)), ("one long text", worst_session(size))):
            theirs, mine = (sum(map(value_length, sealed(wrap, data))) for wrap in (starlette, ours()))
            rows.append((kind, f"{size:,}", f"{theirs:,}", f"{mine:,}", f"{mine / theirs:.2f}"))
    return Report(
        "Bytes of cookie text, without names and attributes",
        f"Payload: bytes of JSON. Several fields, at 100 bytes: {json.dumps(SMALL)}\n"
        "Above 100 bytes there is a cart too, of items with four fields each, and a note that makes up the rest.\n"
        "What does not fit into one cookie is in two of ours; Starlette's is then too long for a browser to keep.",
        ("session", "payload", "Starlette", "cookiesession", "share"),
        rows,
    )


def value_length(cookie: bytes) -> int:
    """The bytes of a cookie's value."""
    return len(cookie.partition(b"=")[2])


# Prints the seconds that an import took and the modules it loaded; with a word after it, those it asked for, found or
# not.
IMPORT: Final = """
import json, sys, time
asked, before = [], set(sys.modules)
class Listener:
    def find_spec(name, path=None, target=None):
        asked.append(name)
if len(sys.argv) > 2:
    sys.meta_path.insert(0, Listener)
start = time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - start
print(json.dumps([seconds, asked or sorted(set(sys.modules) - before)]))
"""


def import_of(module: str, *arguments: str) -> tuple[float, set[str]]:
    """The seconds that the import of `module` takes in a new process, and the modules as `IMPORT` gives them."""
    command = (sys.executable, "-c", IMPORT, module, *arguments)
    output = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603 - this very Python
    seconds, names = json.loads(output)
    return seconds, set(names)


def packages(modules: set[str], *, besides: str) -> set[str]:
    """The third-party packages that `modules` belong to."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {besides.partition(".")[0]}


def import_report(processes: int) -> Report:
    """What an import takes, and takes along."""
    rows = []
    for module in ("cookiesession", "starlette.middleware.sessions"):
        runs = [import_of(module) for _ in range(processes)]
        loaded, asked = runs[0][1], import_of(module, "asked")[1]
        names = (packages(loaded, besides=module), packages(asked, besides=module) & UNWANTED)
        time_taken = middle([1000 * seconds for seconds, _ in runs])
        rows.append((module, time_taken, str(len(loaded)), *(", ".join(sorted(found)) or "none" for found in names)))
    return Report(
        "Import in a new process",
        f"Medians of {processes} processes, ± half of the interquartile range.\n"
        f"Unwanted: {', '.join(sorted(UNWANTED))}; an attempt to import one that is not installed would count.",
        ("import", "ms", "modules", "third-party packages", "unwanted"),
        rows,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Cookiesession beside Starlette's SessionMiddleware.")
    parser.add_argument("--rounds", type=int, default=300, help="how often each case runs (default: %(default)s)")
    parser.add_argument("--cookies", type=int, default=4, help="cookies besides the session's (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few seconds: 30 rounds, whatever --rounds says")
    options = parser.parse_args()
    rounds, processes = (30, 5) if options.quick else (options.rounds, 21)
    logging.getLogger("cookiesession").addHandler(logging.NullHandler())  # it warns of the second chunk
    console = printer()
    console.print(environment("cookiesession", "starlette", "itsdangerous", "cryptography", "msgspec", "pydantic"))
    request_report(rounds, options.cookies).show(console)
    typed_report(rounds, options.cookies).show(console)
    length_report().show(console)
    import_report(processes).show(console)


if __name__ == "__main__":
    main()
