"""`SQLStore`: records in a table, by SQLAlchemy. What it asks of a database, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cookiesession.errors import ConfigurationError, StoreUnavailable, brought_by

with brought_by("sql", "sqlalchemy"):
    import sqlalchemy as sa
    from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError
    from sqlalchemy.ext.asyncio import AsyncEngine

from cookiesession.stores.deadline import within
from cookiesession.stores.sql.engine import Line, OwnEngine, describe, lacks_table, spared
from cookiesession.stores.sql.table import Statements, ddl_of, ddl_text, record_of, records_of, sessions_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from cookiesession.stores import Record

__all__ = ["SQLStore", "sessions_table"]

T = TypeVar("T")

_BATCH: Final = 500  # dead rows that a purge of its own deletes: some milliseconds of work


class SQLStore:
    """A `Store` in a table of SQLite, PostgreSQL, or what else SQLAlchemy has an asynchronous driver for.

    `database` is a URL (`sqlite:///sessions.db`, `postgresql://user:password@host/name`), or an engine, which stays the
    caller's. Each operation is one statement and its own transaction. `timeout` bounds each call, connecting included;
    whatever keeps the database from answering until then is a `StoreUnavailable`. A call that finds its connection
    closed before it has sent anything takes another; nothing else is tried twice. Connections of asyncpg belong to an
    event loop, and so does a store that has them.

    A table that is missing is created by the first call that misses it, if the user may do that. A row that is not a
    record, because somebody else wrote it, is not there for `load()` and `find()`. After each `purge_every` records
    created, and after the first, a task of its own deletes up to 500 expired ones; None leaves that to `purge()`.

    >>> SQLStore("sqlite:///sessions.db")
    <SQLStore of table 'cookiesession', sqlite>
    """

    def __init__(
        self,
        database: AsyncEngine | sa.URL | str,
        *,
        table: sa.Table | str = "cookiesession",
        timeout: timedelta = timedelta(seconds=1),
        purge_every: int | None = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
            raise ConfigurationError("timeout is a positive timedelta")
        if purge_every is not None and not (isinstance(purge_every, int) and purge_every >= 1):
            raise ConfigurationError("purge_every is a number of at least 1, or None")
        if table == "" or not isinstance(table, sa.Table | str):
            raise ConfigurationError("table is a name, or a table that sessions_table() has made")
        self.table: Final = sessions_table(table) if isinstance(table, str) else table
        self._seconds = timeout.total_seconds()
        if isinstance(database, AsyncEngine):
            self._own, self._engine = None, database
        elif not isinstance(database, sa.URL | str):
            raise ConfigurationError("SQLStore takes an AsyncEngine, as create_async_engine() gives it, or a URL")
        else:
            self._own = OwnEngine(database, self._seconds)
            self._engine = self._own.engine
        self._statements = Statements(self.table, self._engine.dialect.name)
        self._purge_every = purge_every
        self._clock = clock
        self._created = 0
        self._purging: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # all there are, abandoned ones too

    def __repr__(self) -> str:
        return f"<SQLStore of table {self.table.fullname!r}, {self._engine.dialect.name}>"

    # The contract

    async def load(self, key: bytes) -> Record | None:
        """The record under `key`. None too for a row that is not a record."""
        rows = await self._execute(self._statements.load, _rows, the_key=key)
        return record_of(rows[0]) if rows else None

    async def create(self, key: bytes, record: Record) -> bool:
        """Puts a record where there is none that lives."""
        row = {"key": key, **record._asdict()}
        if self._statements.upsert is None:
            created = await self._call(lambda connection: self._create(connection, row))
        else:
            created = await self._execute(self._statements.upsert, _count, **row) == 1
        if created:
            self._purge_now_and_then()
        return created

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        """Puts a record in the place of the one with this version."""
        written = {"the_key": key, "the_version": expected_version, **record._asdict()}
        return await self._execute(self._statements.replace, _count, **written) == 1

    async def delete(self, key: bytes) -> bool:
        """Removes the record under `key`."""
        return await self._execute(self._statements.delete, _count, the_key=key) == 1

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        """All records of a subject, by the index on that column."""
        rows = await self._execute(self._statements.find, _rows, the_subject=subject)
        return records_of(rows)

    async def aclose(self) -> None:
        """Closes the engine, if it was made of a URL. Within the deadline, whatever the server does."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._seconds)
        if self._own is not None:
            await self._own.close()

    # The table

    def ddl(self, dialect: str | None = None) -> str:
        """The SQL that makes the table and its indexes, for `postgresql`, `sqlite`...; the engine's, by default."""
        return ddl_text(self.table, dialect or self._engine.dialect.name)

    async def create_table(self) -> None:
        """Makes the table and its indexes, as far as they are missing. Any number of processes may, at once."""
        await self._call(self._create_table)

    async def purge(self, limit: int = 1000) -> int:
        """Deletes up to `limit` expired rows. How many there were: fewer than `limit` when none are left."""
        if limit < 1:
            raise ConfigurationError("limit is a number of at least 1")
        return await self._execute(self._statements.purge(limit), _count)

    def _purge_now_and_then(self) -> None:
        every, created = self._purge_every, self._created
        self._created += 1
        if every is not None and created % every == 0 and (self._purging is None or self._purging.done()):
            self._purging = self._keep(asyncio.ensure_future(self._purge_quietly()))

    async def _purge_quietly(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # the next one deletes what this one did not
            await self.purge(_BATCH)

    # One call

    async def _execute(
        self, statement: sa.Executable, read: Callable[[sa.CursorResult[Any]], T], **parameters: object
    ) -> T:
        parameters["the_now"] = int(self._clock())

        async def work(connection: AsyncConnection) -> T:
            return read(await connection.execute(statement, parameters))

        return await self._call(work)

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _call(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        line = Line()
        attempt = self._keep(asyncio.ensure_future(self._attempt(work, line)))
        answer = await within(self._seconds, spared(attempt, line, self._seconds))
        if isinstance(answer, StoreUnavailable):
            raise answer  # here, where it has no context: the errors of drivers hold statements and rows
        return answer

    async def _attempt(self, work: Callable[[AsyncConnection], Awaitable[T]], line: Line) -> T | StoreUnavailable:
        try:
            return await self._connected(work, line, 2)
        except Exception as error:  # noqa: BLE001  a driver raises what it likes, and the contract knows one error
            return StoreUnavailable(describe(error))

    async def _connected(self, work: Callable[[AsyncConnection], Awaitable[T]], line: Line, repetitions: int) -> T:
        async with self._engine.connect() as connection:
            line.connection = connection
            if self._own is None:  # no BEGIN and COMMIT around one statement, whatever the engine does for others
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            try:
                return await work(connection)
            except Exception as error:
                if repetitions == 0 or not await self._mended(connection, error):
                    await connection.invalidate()  # it may be one to a server that is no longer in charge
                    raise
        return await self._connected(work, line, repetitions - 1)

    async def _mended(self, connection: AsyncConnection, error: Exception) -> bool:
        """Whether nothing has been done, and what was in the way is not any more."""
        if isinstance(error, InterfaceError) and error.connection_invalidated:
            return True  # it was closed before anything was sent, and SQLAlchemy has discarded all that are as old
        if not lacks_table(error):
            return False
        if not await self._has_table(connection):  # pragma: no branch - unseen, behind a greenlet
            await self._create_table(connection)
        return True  # or somebody else has created it meanwhile

    async def _create(self, connection: AsyncConnection, row: dict[str, Any]) -> bool:
        """For dialects without upsert: a dead row goes first, and the rest is the primary key's business."""
        if await self._insert(connection, row):  # pragma: no branch - unseen, behind a greenlet
            return True
        dead = {"the_key": row["key"], "the_now": int(self._clock())}  # pragma: no cover - unseen, as above
        await connection.execute(self._statements.bury, dead)  # pragma: no cover - unseen, as above
        # Whether or not there was one: a purge may have been faster.
        return await self._insert(connection, row)  # pragma: no cover - unseen, as above

    async def _insert(self, connection: AsyncConnection, row: dict[str, Any]) -> bool:
        try:
            await connection.execute(self._statements.insert, row)
        except IntegrityError:
            return False
        return True

    async def _has_table(self, connection: AsyncConnection) -> bool:
        name, schema = self.table.name, self.table.schema
        return await connection.run_sync(lambda inner: sa.inspect(inner).has_table(name, schema=schema))

    async def _create_table(self, connection: AsyncConnection) -> None:
        try:
            for statement in ddl_of(self.table, connection.dialect.name):
                await connection.execute(statement)
        except DBAPIError:
            if not await self._has_table(connection):  # pragma: no branch - unseen, behind a greenlet
                raise  # pragma: no cover - unseen, as above
            # Somebody else was at it at the same time.


def _rows(result: sa.CursorResult[Any]) -> list[sa.Row[Any]]:
    return list(result)


def _count(result: sa.CursorResult[Any]) -> int:
    return result.rowcount
