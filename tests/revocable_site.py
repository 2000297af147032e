"""Instances of a site whose sessions live in cookies and can be ended, with one store and one clock for all of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from harness import Clock
from test_servermode import RING, Books

from cookiesession import SessionManager, StoreUnavailable
from cookiesession.revocation import Revocation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cookiesession import Session
    from cookiesession.events import Event
    from cookiesession.stores import Record, Store

Jar = dict[bytes, bytes]

EVERY: Final = 5  # seconds, the default of `check_every`


class Instance:
    """One process of the site."""

    def __init__(
        self,
        keys: Any = RING,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        check_every: float = EVERY,
        fail_open: bool = False,
        track: bool = False,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.store: Any = Books(self.clock) if store is None else store
        self.events: list[Event] = []
        self.settings: dict[str, Any] = {"check_every": check_every, "fail_open": fail_open, "track": track, **options}
        every = timedelta(seconds=check_every)
        revocation = Revocation(self.store, check_every=every, fail_open=fail_open, track=track)
        all_options: dict[str, Any] = {"clock": self.clock, "on_event": self.events.append, **options}
        self.manager: SessionManager[Any] = SessionManager(keys, revocation=revocation, **all_options)

    def another(self, keys: Any = RING, **settings: Any) -> Instance:
        """Another process, with the same store and clock."""
        return Instance(keys, store=self.store, clock=self.clock, **{**self.settings, **settings})

    async def open(self, jar: Mapping[bytes, bytes]) -> Session[Any]:
        """The session of a request with these cookies."""
        header = b"; ".join(b"%s=%s" % pair for pair in jar.items())
        session = self.manager.session([(b"cookie", header)] if header else [])
        await self.manager.load(session)
        return session

    async def save(self, session: Session[Any], jar: Jar) -> list[bytes]:
        """The lines of the response, which the cookies take in."""
        lines = [line for name, line in await self.manager.save(session) if name == b"set-cookie"]
        for line in lines:
            name, _, rest = line.partition(b"=")
            jar[name] = rest.partition(b";")[0]
            if b"Max-Age=0" in line:
                del jar[name]
        return lines

    async def read(self, jar: Mapping[bytes, bytes]) -> dict[str, Any]:
        """The data that a request with these cookies sees."""
        return dict((await self.open(jar)).data)

    async def put(self, jar: Jar, **data: Any) -> list[bytes]:
        """Changes these entries."""
        session = await self.open(jar)
        session.data.update(data)
        return await self.save(session, jar)

    async def login(self, user: str, jar: Jar | None = None, **data: Any) -> Jar:
        """Begins a session of a user, or renews the one there is. The cookies."""
        jar = {} if jar is None else jar
        session = await self.open(jar)
        session.renew()
        session.subject = user
        session.data.update(user=user, **data)
        await self.save(session, jar)
        return jar

    async def renew(self, jar: Jar) -> list[bytes]:
        """Gives the session a new id."""
        session = await self.open(jar)
        session.renew()
        return await self.save(session, jar)

    async def logout(self, jar: Jar) -> list[bytes]:
        """Ends the session by clear()."""
        session = await self.open(jar)
        session.clear()
        return await self.save(session, jar)

    async def hash(self, jar: Mapping[bytes, bytes]) -> str:
        """The `id_hash` of the session."""
        return (await self.open(jar)).id_hash

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of a kind since the last time."""
        found = [event for event in self.events if type(event) is kind]
        self.events[:] = [event for event in self.events if type(event) is not kind]
        return found

    def calls(self) -> list[str]:
        """What the store was asked since the last time."""
        calls: list[str] = self.store.calls
        self.store.calls = []
        return calls


class Slow(Books):
    """A store whose answers may be held up, each with what there was when it was asked."""

    held: asyncio.Event | None = None

    async def load(self, key: bytes) -> Record | None:
        held = self.held
        record = await super().load(key)
        if held is not None:
            await held.wait()
            if "load" in self.failing:
                raise StoreUnavailable("the store went away")
        return record


def slow_instance(**options: Any) -> Instance:
    """A process with such a store."""
    clock = Clock()
    return Instance(store=Slow(clock), clock=clock, **options)


async def until_waiting() -> None:
    """Lets the others go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)
