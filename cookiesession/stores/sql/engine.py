"""The engine of `SQLStore`: made of a URL with bounds on every wait, and left by a call that is late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InvalidRequestError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from cookiesession.errors import ConfigurationError, StoreUnavailable
from cookiesession.stores.deadline import within

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")

POOL_SIZE: Final = {"sqlite": 5, "postgresql": 10}
"""Connections that a process opens at most. In SQLite each has a thread, and one of them writes at a time.

The extras of the package have these names too.
"""

_SHARE: Final = 0.8  # of the deadline, for waits within it: what was waited for is told before the deadline cuts it off
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


class OwnEngine:
    """An engine made of a URL, and its end."""

    def __init__(self, url: str | URL, seconds: float) -> None:
        self.engine: Final = open_engine(url, seconds)
        self._seconds = seconds
        self._drivers: WeakSet[Any] = WeakSet()
        if self.engine.dialect.driver == "asyncpg":
            event.listen(self.engine.sync_engine, "connect", self._note)

    def _note(self, connection: Any, _record: Any) -> None:
        self._drivers.add(connection.driver_connection)

    async def close(self) -> None:
        """Takes leave of the database, and hangs up on one that does not answer that in time either."""
        try:
            await within(self._seconds, self.engine.dispose())
        except StoreUnavailable:
            for driver in list(self._drivers):
                driver.terminate()  # drops the socket


def open_engine(url: str | URL, seconds: float) -> AsyncEngine:
    """An engine on which no wait takes longer than `seconds`, and each statement is a transaction.

    Raises `ConfigurationError`, without the URL, which may hold a password.
    """
    target, arguments = _target(url)
    dialect = target.get_backend_name()
    options: dict[str, Any] = {"pool_timeout": _SHARE * seconds, "pool_size": POOL_SIZE.get(dialect, 10)}
    if target.drivername == "sqlite+aiosqlite":
        arguments["timeout"] = _SHARE * seconds  # how long SQLite waits for another writer
    elif target.drivername == "postgresql+asyncpg":
        arguments |= {"timeout": seconds, "command_timeout": seconds}
    complaint: str
    try:
        engine = create_async_engine(
            target,
            isolation_level="AUTOCOMMIT",  # no BEGIN and COMMIT around one statement
            pool_reset_on_return=None,  # and so nothing to roll back
            max_overflow=0,  # connections beyond the pool would be closed after each use
            hide_parameters=True,  # keys and values are nobody's business
            connect_args=arguments,
            **options,
        )
    except ModuleNotFoundError as error:
        remedy = f': pip install "cookiesession[{dialect}]"' if dialect in POOL_SIZE else ""
        complaint = f"the driver {error.name} is not installed{remedy}"
    except (ArgumentError, InvalidRequestError, TypeError):
        complaint = "the database's driver is not an asynchronous one; sqlite+aiosqlite and postgresql+asyncpg are"
    else:
        if dialect == "sqlite":
            _prepare_sqlite(engine, Path(str(target.database)))
        return engine
    raise ConfigurationError(complaint)


def _target(url: str | URL) -> tuple[URL, dict[str, Any]]:
    """The URL with an asynchronous driver, and what is left of it for the driver itself."""
    try:
        target = make_url(url)
    except (ArgumentError, ValueError):
        target = None
    if target is None:
        raise ConfigurationError("the store's URL is none that SQLAlchemy reads, as sqlite:///sessions.db is")
    if target.get_backend_name() == "sqlite" and target.database in {None, "", ":memory:"}:
        raise ConfigurationError("SQLite in memory ends with its connection: use MemoryStore, or name a file")
    if target.drivername not in _DRIVERS:
        return target, {}
    driven = target.set(drivername=_DRIVERS[target.drivername])
    if driven.drivername == "postgresql+asyncpg" and target.query:  # such as sslmode=, which SQLAlchemy does not read
        return driven.set(query={}), {"dsn": f"postgresql:///?{urlencode(target.query, doseq=True)}"}
    return driven, {}


def _prepare_sqlite(engine: AsyncEngine, path: Path) -> None:
    """Lets reads go on beside a write, and leaves a connection whose file is no longer the one at `path`."""

    def identity() -> tuple[int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def on_connect(connection: Any, record: Any) -> None:  # pragma: no cover - unseen, in a greenlet
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.close()
        except BaseException as error:
            # Of several that change the mode at once, SQLite lets one, and tells the others without letting them wait.
            if getattr(error, "sqlite_errorname", None) != "SQLITE_BUSY":
                connection.close()  # which SQLAlchemy does not
                raise
        record.info["file"] = identity()

    def on_checkout(_connection: Any, record: Any, _proxy: Any) -> None:  # pragma: no cover - unseen, in a greenlet
        # SQLite would go on with the deleted file, unseen by whoever opens the new one.
        if record.info["file"] != identity():
            raise DisconnectionError

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "checkout", on_checkout)


class Line:
    """The connection of one call, from when it has one."""

    connection: AsyncConnection | None = None

    def hang_up(self) -> bool:
        """Drops the socket, on which whatever waits for an answer fails at once. False if the driver cannot do that."""
        inner = None if self.connection is None else self.connection.sync_connection
        if inner is None or inner.closed or inner.invalidated:
            return False
        terminate = getattr(inner.connection.driver_connection, "terminate", None)  # asyncpg's
        if terminate is None:
            return False
        terminate()
        return True


async def spared(attempt: asyncio.Task[T], line: Line, seconds: float) -> T:
    """What `attempt` returns. If the caller is cancelled, it has `seconds` more to end by itself.

    Statements end by the bounds of the engine, and their connections can be used again. A driver that is cancelled
    loses its connection, may lose what is half open without closing it, and asyncpg before 0.32 waits for a server that
    does not answer.
    """
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        await asyncio.wait({attempt}, timeout=seconds)
        if not line.hang_up():
            attempt.cancel()
        raise


def describe(error: Exception) -> str:
    """What happened, for the operator: the names that the driver and the database have for it, and never their texts.

    Those quote rows, statements and the names of users.
    """
    if isinstance(error, PoolTimeoutError):
        return "no connection to the database came free in time"
    original: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        original = error.orig.__cause__ or error.orig
    code = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    return f"the database failed: {type(original).__name__}{f' ({code})' if code else ''}"


def lacks_table(error: Exception) -> bool:
    """Whether a missing table may be the cause."""
    if isinstance(error, OperationalError):
        return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_ERROR"
    return isinstance(error, ProgrammingError)
