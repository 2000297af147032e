"""What the benchmarks have in common: the request, the session, and the tables that they print. Measures nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    Handler = Callable[[Scope], object]
    Headers = list[tuple[bytes, bytes]]

# Figures are of the package alone, without the extra that makes it faster, unless one asks for that.
SPEED: Final = "--speed" in sys.argv
if not SPEED:
    sys.modules["pybase64"] = None  # type: ignore[assignment]  # as if it were not installed

USER_AGENT: Final = (
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
)
ACCEPT: Final = (
    b"text/html,application/xhtml+xml,application/xml;q=0.9,image/jxl,image/avif,image/webp,image/apng,*/*;q=0.8,"
    b"application/signed-exchange;v=b3;q=0.7"
)
# What Chromium 156 sends over HTTP/1.1 when a link to a page of the same site is followed, less the cookies.
NAVIGATION: Final = [
    (b"host", b"shop.example.com"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua", b'"Not:A-Brand";v="8", "Chromium";v="156"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", USER_AGENT),
    (b"accept", ACCEPT),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-user", b"?1"),
    (b"sec-fetch-dest", b"document"),
    (b"referer", b"https://shop.example.com/cart"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
]
OTHER_COOKIES: Final = (
    "_ga=GA1.1.1234567890.1790000000",
    "theme=dark",
    "locale=en-GB",
    "csrftoken=hV3nX0qkYb7LwP2sTz9RdC5mJfG8uA1e",
    "_ga_7QX2M4K9ZD=GS2.1.s1790000000$o12$g1$t1790000345$j60$l0$h0",
    "consent=necessary.statistics",
)
# 100 bytes of JSON, spelled as json.dumps() and so Starlette's middleware does.
SMALL: Final = {"user_id": 1234567, "name": "Ada", "theme": "dark", "admin": False, "views": 112, "at": 1790000000}
# The same with something inside something.
SMALL_CART: Final = {
    "user_id": 123,
    "views": 112,
    "cart": [{"sku": "TEA-0", "name": "Tea", "count": 1, "cents": 1250}],
}

# Columns of words; all others are of numbers.
WORDS: Final = frozenset(
    {"case", "algorithm", "session", "import", "third-party packages", "unwanted", "protection", "of"}
    | {"store", "library", "time", "request", "commands"}
)


def session(size: int) -> dict[str, Any]:
    """A session of `size` bytes of JSON: the small one, a cart, and a note that makes up the rest."""
    data: dict[str, Any] = dict(SMALL)
    if size == json_size(data):
        return data
    data |= {"cart": [], "note": ""}
    while json_size(data) < size - 80:
        count = len(data["cart"])
        item = {"sku": f"TEA-{count:06d}", "name": "Oolong, 100 g", "count": 1 + count % 3, "cents": 1250}
        data["cart"].append(item)
    data["note"] = "." * (size - json_size(data))
    return data


def json_size(data: dict[str, Any]) -> int:
    """The bytes of `data` as Starlette's middleware encodes it."""
    return len(json.dumps(data))


def kilobytes(size: int) -> str:
    """A size as people say it."""
    return f"{size / 1024:.1f} KB".replace(".0 ", " ")


def other_cookies(count: int) -> list[bytes]:
    """Cookies that are not the session's."""
    more = [f"preference_{index}=value-{index}" for index in range(count)]
    return [cookie.encode() for cookie in (*OTHER_COOKIES, *more)][:count]


def application(handler: Handler) -> ASGIApp:
    """An application that runs `handler` and answers with two bytes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handler(scope)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def receive() -> Message:
    """The request's body: none."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def ignore(message: Message) -> None:
    """Sends nothing anywhere."""


def middle(values: Sequence[float], digits: int = 1) -> str:
    """The median with half of the distance between the quartiles; of one round the figure itself."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} ± {(high - low) / 2:.{digits}f}"


@dataclass(frozen=True)
class Report:
    """A table with what has to be known to read it."""

    title: str
    notes: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def show(self, console: Console) -> None:
        """Prints it; as Markdown where the output is not a terminal."""
        if not console.is_terminal:
            notes = (self.notes, "") if self.notes else ()
            console.print("\n".join(("", f"### {self.title}", "", *notes, *self._lines())), markup=False)
            return
        table = Table(box=box.ROUNDED)
        for column in self.columns:
            # In a narrow terminal a name goes on in the next line: its end may be all that tells it from another.
            table.add_column(column, justify="left" if column in WORDS else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(f"\n[bold]{self.title}[/bold]\n{self.notes}", table)

    def _lines(self) -> Iterator[str]:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        padded = [(width, name in WORDS) for width, name in zip(widths, self.columns, strict=True)]
        rule = [f"{'-' * (width + 1)}{'-' if is_text else ':'}" for width, is_text in padded]
        yield f"| {' | '.join(name.ljust(width) for width, name in zip(widths, self.columns, strict=True))} |"
        yield f"|{'|'.join(rule)}|"
        for row in self.rows:
            cells = (
                cell.ljust(width) if is_text else cell.rjust(width)
                for cell, (width, is_text) in zip(row, padded, strict=True)
            )
            yield f"| {' | '.join(cells)} |"


def processor() -> str:
    """The processor's name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment(*names: str) -> str:
    """What was measured, in which versions of these packages, on what."""
    versions = ", ".join(f"{package} {version(package)}" for package in names)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; {python}; {versions}"


def printer() -> Console:
    """Where to print: with the width of the terminal, or no line broken."""
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
