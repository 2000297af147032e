"""How a command gets to one server and its answer back: a pool that lends quickly, and `exchange()`."""

from __future__ import annotations

from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

Part = bytes | str | float
"""Of a command: its name, a key or an argument."""


class QuickPool(ConnectionPool):
    """A pool that lends its connections with neither the lock nor the counters of the driver's.

    Those are three quarters of what lending costs, and the lock is for pools whose server may move.
    """

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connection that is ready for a command."""
        connection: Any = self.get_available_connection()  # type: ignore[no-untyped-call]  # the driver's
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Takes a connection back."""
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


async def exchange(pool: ConnectionPool, *parts: Part) -> Any:
    """The answer to a command. Raises what the driver does, which tries nothing twice here.

    `execute_command()` does the same within layers for retries, telemetry and kinds of commands that we have not, which
    are half of what it costs.
    """
    command = packed(*parts)
    connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]  # the driver's
    try:
        await connection.send_packed_command(command)
        return await connection.read_response()
    except ResponseError:
        raise  # an answer too, and has been read to its end
    except BaseException:
        await connection.disconnect(nowait=True)  # or the next one who has it would read the answer to this command
        raise
    finally:
        await pool.release(connection)


def packed(*parts: Part) -> bytes:
    """A command as it goes over the wire (RESP): an array of strings, each with its length."""
    texts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n%b" % (len(texts), b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]))
