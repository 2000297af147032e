"""One browser and one site, in cookies and in a store: the same acts, on a clock that is told the time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness import Clock

from cookiesession import Key, KeyRing, Session, SessionManager
from cookiesession.revocation import Revocation
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cookiesession.events import Event
    from cookiesession.stores import Record

    Act = Callable[[Session[Any]], object]

RING: Final = KeyRing(Key.generate())
NAME: Final = b"__Host-session"
BOTH: Final = ("cookie", "store")
MODES: Final = (*BOTH, "overflow", "revocable")


class Books(MemoryStore):
    """A store that keeps a list of what it was asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.calls: list[str] = []

    async def load(self, key: bytes) -> Record | None:
        self.calls.append("load")
        return await super().load(key)

    async def create(self, key: bytes, record: Record) -> bool:
        self.calls.append("create")
        return await super().create(key, record)

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        self.calls.append("replace")
        return await super().replace(key, record, expected_version)

    async def delete(self, key: bytes) -> bool:
        self.calls.append("delete")
        return await super().delete(key)

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        self.calls.append("find")
        return await super().find(subject)


@dataclass
class Visit:
    """What a request saw, and what the browser was told."""

    session: Session[Any]
    data: dict[str, Any]
    lines: list[bytes]
    headers: list[tuple[bytes, bytes]]


class Site:
    """A manager in one of the modes, and a browser that keeps its cookies for as long as it likes."""

    def __init__(
        self, mode: str, keys: Any = RING, *, clock: Clock | None = None, store: Books | None = None, **options: Any
    ) -> None:
        self.mode = mode
        self.clock = clock or Clock()
        self.store = Books(self.clock) if store is None else store
        self.events: list[Event] = []
        if mode == "revocable":
            options["revocation"] = Revocation(self.store)
        elif mode != "cookie":
            options |= {"store": self.store, "overflow": mode == "overflow"}
        options |= {"clock": self.clock, "on_event": self.events.append}
        self.manager: SessionManager[Any] = SessionManager(keys, **options)
        self.jar: dict[bytes, bytes] = {}

    def another(self, keys: Any = RING, **options: Any) -> Site:
        """The same browser at another instance, with the same clock and store."""
        site = Site(self.mode, keys, clock=self.clock, store=self.store, **options)
        site.jar = dict(self.jar)
        return site

    def request(self, headers: Iterable[tuple[bytes, bytes]] = (), scope: Any = None) -> Session[Any]:
        """The session of a request, fetched."""
        cookie = b"; ".join(b"%s=%s" % pair for pair in self.jar.items())
        session = self.manager.session([*headers, *([(b"cookie", cookie)] if cookie else [])], scope)
        asyncio.run(self.manager.load(session))
        return session

    def respond(self, session: Session[Any]) -> list[tuple[bytes, bytes]]:
        """The headers of its response, which the browser takes."""
        headers = asyncio.run(self.manager.save(session))
        for name, line in headers:
            if name == b"set-cookie":
                cookie, _, rest = line.partition(b"=")
                self.jar[cookie] = rest.partition(b";")[0]
                if b"; Max-Age=0" in line:
                    del self.jar[cookie]
        return headers

    def visit(self, act: Act | None = None, *, headers: Iterable[tuple[bytes, bytes]] = (), scope: Any = None) -> Visit:
        """A request that looks at its session, does what it is told, and is answered."""
        session = self.request(headers, scope)
        seen = dict(session.data)
        if act is not None:
            act(session)
        answer = self.respond(session)
        return Visit(session, seen, [line for name, line in answer if name == b"set-cookie"], answer)

    def of(self, *kinds: type[Any]) -> list[Any]:
        """The events of these kinds."""
        return [event for event in self.events if type(event) in kinds]


def put(**data: Any) -> Act:
    """An act that stores data."""

    def act(session: Session[Any]) -> None:
        session.data.update(data)

    return act


def together(acts: Sequence[Act]) -> Act:
    """Several acts in one request."""

    def act(session: Session[Any]) -> None:
        for each in acts:
            each(session)

    return act
