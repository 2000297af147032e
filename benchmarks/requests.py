"""What a session adds to a request: cookiesession beside the other libraries and beside the primitives, in one run.

The applications of a case take blocks of requests in turn, with a bare application between them; what a session adds is
the difference to the bare application of the same round, and a share is the quotient of two such differences of one
round. `contest.py` is the clock, `cases.py` the cases, `peers.py` and `frameworks.py` are who takes part, `floor.py` is
the primitives by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import frameworks  # noqa: F401 - puts the frameworks among the peers
from actions import GLANCE, NESTED, READ, WRITE, Action
from cases import FLOOR, MARKS, SIZES, Case, Entry, contest, entries
from contest import BLOCK, measure, shares
from measuring import NAVIGATION, Report, environment, kilobytes, middle, printer
from peers import MISSING, OURS, PEERS, STARLETTE, UNSEEN
from plot import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peers import Peer

PACKAGES: Final = (
    *("cookiesession", "starlette", "starsessions", "litestar", "starlette-securecookies"),
    *("aiohttp-session", "aiohttp", "Flask", "itsdangerous", "cryptography", "msgspec", "pydantic"),
)
OTHERS: Final = 4  # cookies besides the session's
PLOT: Final = Path(__file__).with_name("requests.svg")

Results = dict[Case, list[Entry]]


@dataclass(frozen=True)
class Table:
    """The cases of one action, by the size of the session."""

    title: str
    action: Action | None
    sizes: Sequence[int | None] = SIZES
    rotated: bool = False

    def cases(self) -> list[Case]:
        """In the order of the columns."""
        return [Case(self.action, size, self.rotated) for size in self.sizes]


TABLES: Final = (
    Table("The session is there and nobody touches it", None, (None, *SIZES)),
    Table("There is no session, and the handler looks for an entry", GLANCE, (None,)),
    Table("The handler reads an entry", READ),
    Table("The handler changes an entry", WRITE),
    Table("The handler changes what is inside an entry", NESTED),
    Table("The handler reads an entry of a session under an older key", READ, rotated=True),
)
STRUCT, PYDANTIC = (next(peer for peer in PEERS if peer.name.endswith(model)) for model in ("Struct", "pydantic"))


@dataclass(frozen=True)
class Target:
    """What issue 7 asks for: that ours costs at most `most` times what `peer` costs."""

    name: str
    case: Case
    most: float
    peer: Peer = STARLETTE
    ours: Peer = OURS


def targets() -> list[Target]:
    """All of them, by peer."""
    encrypted = [peer for peer in PEERS if peer.name in ("starsessions", "Litestar") and "AES" in peer.protection]
    encrypted += [peer for peer in PEERS if peer.name == "starsessions" and "Fernet" in peer.protection]
    small, large, larger = 100, 1536, 4096
    return [
        Target("untouched, 0.1 KB", Case(None, small), 0.12),
        Target("anonymous, untouched", Case(None, None), 0.4),
        Target("anonymous, read", Case(GLANCE, None), 0.4),
        Target("read, 0.1 KB", Case(READ, small), 0.4),
        Target("write, 0.1 KB", Case(WRITE, small), 0.33),
        Target("read, 1.5 KB", Case(READ, large), 0.5),
        Target("write, 1.5 KB", Case(WRITE, large), 0.35),
        Target("write, 4 KB", Case(WRITE, larger), 0.3),
        Target("read of a pydantic model, 0.1 KB", Case(READ, small), 0.6, ours=PYDANTIC),
        *(Target("read, 0.1 KB", Case(READ, small), 0.25, peer) for peer in encrypted),
        *(
            Target(f"{action.name}, {kilobytes(size)}", Case(action, size), 2.0, FLOOR)
            for action in (READ, WRITE)
            for size in (small, large, larger)
        ),
    ]


async def results(tables: Sequence[Table], rounds: int, requests: int, others: int) -> Results:
    """Runs the cases of these tables, and those of the targets."""
    found: Results = {}
    for case in [case for table in tables for case in table.cases()] + [target.case for target in targets()]:
        if case not in found:
            peers = PEERS if case.size in (None, *SIZES) else [OURS, UNSEEN, STARLETTE]
            found[case] = await entries(case, peers, others)
    await measure([contest(each) for each in found.values()], rounds, requests)
    return found


def of(found: Sequence[Entry], peer: Peer) -> list[float]:
    """What a library added, round by round."""
    contender = next(each.contender for each in found if each.peer is peer)
    if contender is None:
        raise RuntimeError(f"{peer.name} cannot do what it is compared by")
    return contender.added()


def target_report(found: Results) -> Report:
    """What was asked for, and what is."""
    rows = []
    for target in targets():
        mine, theirs = of(found[target.case], target.ours), of(found[target.case], target.peer)
        share = shares(mine, theirs)
        met = "yes" if statistics.median(share) <= target.most else "no"
        unseen = middle(shares(of(found[target.case], UNSEEN), theirs), 2) if target.ours is OURS else ""
        costs = middle(theirs), middle(mine), middle(share, 2)
        rows.append((target.name, target.peer.title, *costs, f"{target.most}", met, unseen))
    return Report(
        "cookiesession as a share of another's cost",
        "µs of CPU time that the session adds to a request. Share: ours of the other's, round by round.\n"
        "Unseen: the same share where this process has not opened the cookie before.",
        ("case", "of", "the other", "cookiesession", "share", "at most", "met", "unseen"),
        rows,
    )


def table_report(table: Table, found: Results) -> Report:
    """One action, for every library and size."""
    cases = table.cases()
    rows, used = [], set[str]()
    for peer in [*PEERS, FLOOR]:
        row = [next((each for each in found[case] if each.peer is peer), None) for case in cases]
        if not any(row):
            continue
        cells = [cell(each) for each in row]
        used.update(mark for each in row if each is not None for mark in MARKS if mark in each.marks)
        compared = row[0] is not None and row[0].contender is not None
        share = middle(shares(of(found[cases[0]], OURS), of(found[cases[0]], peer)), 2) if compared else ""
        rows.append((peer.name, peer.protection, *cells, share))
    notes = [f"{mark}: {meaning}." for mark, meaning in MARKS.items() if mark in used]
    if table.rotated:
        notes.append("The other libraries take one key alone.")
    columns = ["no cookie" if case.size is None else kilobytes(case.size) for case in cases]
    return Report(table.title, "\n".join(notes), ("library", "protection", *columns, f"share, {columns[0]}"), rows)


def cell(entry: Entry | None) -> str:
    """The cost of a library in a case."""
    if entry is None:
        return ""
    if entry.contender is None:
        return entry.marks
    return middle(entry.contender.added()) + (f" {entry.marks}" if entry.marks else "")


async def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description="What a session adds to a request, beside other libraries.")
    parser.add_argument("--rounds", type=int, help="how often each case runs (default: 30, or 5)")
    parser.add_argument("--block", type=int, default=BLOCK, help="requests that are timed together")
    parser.add_argument(
        "--cookies",
        type=int,
        default=OTHERS,
        help="cookies besides the session's (default: %(default)s; no plot of another number)",
    )
    parser.add_argument("--quick", action="store_true", help="5 rounds, and no plot")
    parser.add_argument("--speed", action="store_true", help="with the extra `speed`; the targets alone")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 30)
    logging.getLogger("cookiesession").setLevel(logging.ERROR)  # it warns of the second chunk
    tables = () if options.speed else TABLES
    found = await results(tables, rounds, options.block, options.cookies)
    console = printer()
    optional = ("pybase64",) if options.speed else () if "authx-extra" in MISSING else ("authx-extra",)
    console.print(environment(*PACKAGES, *optional))
    for name, reason in MISSING.items():
        console.print(f"Without {name}: {reason}.")
    console.print(
        f"\nRequest: a navigation by Chromium, {len(NAVIGATION)} headers; with a session also a Cookie header, with "
        f"{options.cookies} other cookies.\n"
        f"µs of CPU time over the same application without sessions: medians of {rounds} rounds of {options.block} "
        "requests, ± half of the interquartile range.\n"
        "Share: what ours costs of it, with the defaults, in the first column of costs."
    )
    target_report(found).show(console)
    for table in tables:
        table_report(table, found).show(console)
    if tables and not options.quick and options.cookies == OTHERS:  # the README shows the plot beside these figures
        draw(PLOT, found, environment("cookiesession", "starlette", "cryptography", "msgspec"))


if __name__ == "__main__":
    asyncio.run(main())
