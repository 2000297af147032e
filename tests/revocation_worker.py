"""A process of its own, which begins, ends and watches sessions in cookies: a command on each line of its input."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any

from cookiesession import KeyRing, SessionManager
from cookiesession.revocation import Revocation
from cookiesession.stores.url import store_from_url

PAUSE = 0.01  # seconds between two requests


class Worker:
    """A manager, and what can be asked of it."""

    def __init__(self, url: str, keys: str, check_every: float) -> None:
        self.store = store_from_url(url, timeout=timedelta(seconds=20))
        revocation = Revocation(self.store, check_every=timedelta(seconds=check_every), track=True)
        self.manager = SessionManager(KeyRing.parse(keys), revocation=revocation)

    async def login(self, user: str) -> str:
        """The cookie of a new session."""
        session = self.manager.session([])
        session.subject = session.data["user"] = user
        [(_, line)] = await self.manager.save(session)
        return line.partition(b";")[0].decode()

    async def end(self, how: str, cookie: str) -> float:
        """Ends the session. The second since the epoch at which that was done."""
        session = self.manager.session([(b"cookie", cookie.encode())])
        await session.load()
        match how:
            case "id":
                await self.manager.end(session.id_hash)
            case "logout":
                session.clear()
                await self.manager.save(session)
            case "subject":
                await self.manager.end_all(str(session.subject))
            case "everything":
                await self.manager.end_everything()
        return time.time()

    async def watch(self, cookie: str, seconds: float) -> tuple[float, float]:
        """When requests began: the last that saw the session, and the first that did not. 0 for none in that time."""
        last, until = 0.0, time.monotonic() + seconds
        while time.monotonic() < until:
            now = time.time()
            session = self.manager.session([(b"cookie", cookie.encode())])
            await session.load()
            if not session.data:
                return last, now
            if not last:
                print(json.dumps("watching"), flush=True)  # noqa: T201  to who started it
            last = now
            await asyncio.sleep(PAUSE)
        return last, 0.0


async def work(*options: Any) -> None:
    """Does what comes in, until nothing does."""
    worker = Worker(*options)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *arguments = json.loads(line)
        print(json.dumps(await getattr(worker, command)(*arguments)), flush=True)  # noqa: T201  to who started it
    await worker.store.aclose()


if __name__ == "__main__":
    asyncio.run(work(*json.loads(sys.stdin.readline())))
