"""The cases: what is done to which session, who can do it, and how what they add is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import floor
from actions import NESTED, READ, WRITE, Action, keep
from browser import Jar
from contest import Contender, cookie_lines, drive
from measuring import NAVIGATION, SMALL_CART, application, session
from peers import Peer, bare, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp

    Build = Callable[[Action | None, int], ASGIApp]

SIZES: Final = (100, 1024, 4096, 7168)  # bytes of JSON

TOO_LONG: Final = "†"
LOST: Final = "‡"
NOT_RESEALED: Final = "§"
REFUSED: Final = "refused"
GROWING: Final = "grows"
MARKS: Final = {
    TOO_LONG: "no browser keeps the cookie, which is longer than 4,096 bytes",
    LOST: "the change is lost",
    NOT_RESEALED: "the cookie stays under its old key",
    REFUSED: "the library raises an error, since the session does not fit into a cookie",
    GROWING: "each such request leaves a session in the process, and looks through all that there are",
}


@dataclass(frozen=True)
class Case:
    """What a handler does with a session of `size` bytes of JSON. None stands for nothing, and for no session."""

    action: Action | None
    size: int | None
    rotated: bool = False
    """The cookie is sealed under an older key than the first."""

    def data(self) -> dict[str, Any]:
        """The session that the request brings."""
        if self.size is None:
            return {}
        return dict(SMALL_CART) if self.action is NESTED and self.size == SIZES[0] else session(self.size)

    def has_six_fields(self) -> bool:
        """Whether the session is the smallest, or none, and no cart is looked for."""
        return self.size in (None, SIZES[0]) and self.action is not NESTED


@dataclass(frozen=True)
class Entry:
    """A library in a case: a contender and what there is to remark, or a contender that there cannot be."""

    peer: Peer
    contender: Contender | None
    marks: str = ""


FLOOR: Final = Peer("floor, by hand", "AES-256-GCM", lambda action, count: bare(), bare)


async def entries(case: Case, peers: Sequence[Peer], others: int = 4) -> list[Entry]:
    """The libraries that can take the case, each with a cookie of its own making."""
    found = [await entry(case, peer, others) for peer in peers if peer.rotates or not case.rotated]
    if case.size is not None and not case.rotated and case.action in (READ, WRITE):
        handler = floor.reading(case.data()) if case.action is READ else floor.writing(case.data())
        found.append(Entry(FLOOR, Contender(FLOOR.name, application(handler), [*NAVIGATION])))
    return found


async def entry(case: Case, peer: Peer, others: int) -> Entry:
    """One library, once it has been seen to do what it is measured for."""
    build = peer.small if peer.small and case.has_six_fields() else peer.application
    jar = Jar()
    if case.size is None and peer.name == "authx-extra":
        return Entry(peer, None, GROWING)
    if case.size is not None:
        try:
            jar.take(await cookie_lines(build(fill(case.data()), 1), NAVIGATION))
        except ValueError:  # starsessions, for a session that does not fit
            return Entry(peer, None, REFUSED)
    app = build(case.action, 2 if case.rotated else 1)
    marks = await remarks(case, build, app, jar, others)
    return Entry(peer, Contender(peer.name, app, jar.headers(others)), marks)


async def remarks(case: Case, build: Build, app: ASGIApp, jar: Jar, others: int) -> str:
    """What happens to the session. Raises `RuntimeError` where a case is not what it should be."""
    before: list[Any] = []
    after: list[Any] = []
    looking = build(keep(before), 2 if case.rotated else 1)
    if case.size is not None:
        await drive(looking, jar.headers(others))
        expected = case.data()
        if before[0] != expected["views"]:
            raise RuntimeError(f"{app} does not read its own cookie")
    marks = TOO_LONG if jar.refused else ""
    lines = await cookie_lines(app, jar.headers(others))
    if case.rotated and not lines:
        marks += NOT_RESEALED
    if case.action in (WRITE, NESTED):
        later = Jar()
        later.cookies.update(jar.cookies)
        later.take(lines)
        await drive(build(keep(after), 1), later.headers(others))
        changed = after[0] != before[0] if case.action is WRITE else after[1:] != before[1:]
        if case.action is WRITE and not changed:
            raise RuntimeError(f"{app} loses a write")
        marks += "" if changed else LOST
    return marks


def bares(found: Sequence[Entry]) -> list[Contender]:
    """The applications without sessions that the entries are measured over, with the request of the first of each."""
    by_app: dict[int, Contender] = {}
    for each in found:
        if each.contender is not None:
            app = each.peer.bare()
            each.contender.bare = by_app.setdefault(id(app), Contender("bare", app, each.contender.headers))
    return list(by_app.values())


def contest(found: Sequence[Entry]) -> list[Contender]:
    """Those who take a case in turn."""
    return [*bares(found), *(each.contender for each in found if each.contender is not None)]
