"""A program: how many answers reach the wrong reader where reads are cancelled on a slow network. CVE-2023-28858.

It runs on whatever version of the driver it finds, so that the oldest shows what is looked for.
"""

from __future__ import annotations

import asyncio
import sys

from redis.asyncio import Redis
from redis_servers import Network

READERS = 10
DELAY = 0.01  # seconds, on each way: without it there is always an answer before the cancellation


async def foreign_answers(port: int) -> int:
    """Each reader cancels a read and then asks for something else, as another request would."""
    foreign = 0
    async with Network(port) as network:
        client = Redis(port=network.port)
        await client.mset({f"key {number}": number for number in range(READERS + 1)})
        network.delay = DELAY
        for number in range(READERS):
            read = asyncio.ensure_future(client.get(f"key {number}"))
            await asyncio.sleep(DELAY / 2)
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)
            foreign += await client.get(f"key {number + 1}") != b"%d" % (number + 1)
        await client.connection_pool.disconnect()
    return foreign


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(foreign_answers(int(sys.argv[1])))}\n")
