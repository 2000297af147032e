"""A process of its own, which increments counters of sessions: the arguments are on the lines of its input."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta

from cookiesession import KeyRing, SessionManager
from cookiesession.stores.url import store_from_url


async def increment(url: str, keys: str, cookie: str, times: int) -> int:
    """So many times, all at once. How many were acknowledged."""
    store = store_from_url(url, timeout=timedelta(seconds=20))
    manager = SessionManager(KeyRing.parse(keys), store=store)

    async def request() -> None:
        session = manager.session([(b"cookie", cookie.encode())])
        await manager.load(session)
        await session.transact(lambda data: data.update(n=data["n"] + 1))

    try:
        await asyncio.gather(*(request() for _ in range(times)))
    finally:
        await store.aclose()
    return times


if __name__ == "__main__":
    for line in sys.stdin:
        print(asyncio.run(increment(*json.loads(line))), flush=True)  # noqa: T201  to who started it
