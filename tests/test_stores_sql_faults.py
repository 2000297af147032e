"""The store when its database is not well: real servers and files, stopped, full, locked, broken and gone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from postgres_server import PASSWORD, PostgresServer, Wire, postgres  # noqa: F401  a fixture
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from test_stores_sql import LATER, PATIENT, SUBJECT, asynchronous, key_of, run, sqlite_url, table  # noqa: F401  fixtures

from cookiesession import StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.sql import SQLStore
from cookiesession.stores.sql.engine import open_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


SHORT = timedelta(seconds=0.3)
OVERHEAD = 4.0  # seconds that a busy machine may add to a deadline; what has none takes 5 s, or for ever
RECORD = Record(b"sealed", 1, LATER)


async def failure(call: Awaitable[object], *, within: float = SHORT.total_seconds() + OVERHEAD) -> str:
    """What a call that fails, in time, says."""
    start = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await call
    assert time.monotonic() - start < within
    return str(caught.value)


async def eventually(happened: Callable[[], Awaitable[object]], what: str) -> None:
    """Polls until it is so."""
    deadline = time.monotonic() + 20
    while not await happened():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def recovered(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call returns as soon as it returns: on a busy machine a short deadline may be missed once more."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await call()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def open_sockets() -> int:
    """How many this process has."""
    links = (each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink())
    return sum(str(link).startswith("socket:") for link in links)


# PostgreSQL, silent


def test_deadline_holds_against_a_frozen_server(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Before a connection is made, with one in the pool, and during a call. Cases G86, G90."""

    async def use(store: SQLStore) -> Any:
        postgres.freeze()
        try:
            said = [await failure(store.load(key_of(1)))]
            postgres.thaw()
            await recovered(lambda: store.create(key_of(1), RECORD))
            postgres.freeze()
            said.append(await failure(store.load(key_of(1))))
            said.append(await failure(store.replace(key_of(2), RECORD, 1)))
        finally:
            postgres.thaw()
        return said, await recovered(lambda: store.load(key_of(1)))

    said, after = run(postgres.url(), table, use, timeout=SHORT)

    assert said == ["the store did not answer within 0.3 s"] * 3
    assert after == RECORD


def test_frozen_server_costs_no_connections(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """A hundred calls later the pool is as large as ever, nothing runs on, and each gets his own. Cases G84, G86."""

    async def use(store: SQLStore) -> Any:
        keys = [key_of(number) for number in range(20)]
        for key in keys:
            await recovered(lambda key=key: store.create(key, Record(key, 1, LATER)))  # type: ignore[misc]
        postgres.freeze()
        try:
            for _ in range(5):
                await asyncio.gather(*(failure(store.load(key)) for key in keys))
        finally:
            postgres.thaw()
        got = [(await recovered(lambda key=key: store.load(key)) or RECORD).value for key in keys]  # type: ignore[misc]
        await eventually(lambda: asyncio.sleep(0, not store._tasks), "every abandoned call ends")
        pool: Any = store._engine.pool
        return got == keys, pool.checkedout(), open_sockets()

    before = open_sockets()
    own, checked_out, sockets = run(postgres.url(), table, use, timeout=SHORT)

    assert (own, checked_out) == (True, 0)
    assert sockets - before <= 10 + 3  # the pool, and what the event loop has


def test_lent_engine_gets_its_connections_back(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Though it has no bounds of its own: what is abandoned is hung up after a second deadline. Case G86."""

    async def scenario() -> tuple[Record | None, int]:
        engine = create_async_engine(asynchronous(postgres.url()))
        store = SQLStore(engine, table=table, timeout=SHORT, purge_every=None)
        await recovered(lambda: store.create(key_of(1), RECORD))
        postgres.freeze()
        try:
            await asyncio.gather(*(failure(store.load(key_of(1))) for _ in range(30)))
            await eventually(lambda: asyncio.sleep(0, not store._tasks), "every abandoned call ends")
        finally:
            postgres.thaw()
        seen = await recovered(lambda: store.load(key_of(1)))
        await eventually(lambda: asyncio.sleep(0, not store._tasks), "every abandoned call ends")
        await store.aclose()
        pool: Any = engine.pool
        checked_out = pool.checkedout()
        await engine.dispose()
        return seen, checked_out

    assert asyncio.run(scenario()) == (RECORD, 0)


def test_closing_does_not_wait_for_a_frozen_server(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """The sockets are dropped."""

    async def scenario() -> float:
        before = open_sockets()
        store = SQLStore(postgres.url(), table=table, timeout=SHORT)
        await recovered(lambda: store.create_table())  # noqa: PLW0108  a new call each time
        await asyncio.gather(*(store.load(key_of(n)) for n in range(5)), return_exceptions=True)
        postgres.freeze()
        try:
            start = time.monotonic()
            await store.aclose()
            waited = time.monotonic() - start
            await eventually(lambda: asyncio.sleep(0, open_sockets() <= before), "the sockets are closed")
            return waited
        finally:
            postgres.thaw()

    assert asyncio.run(scenario()) < 2 * SHORT.total_seconds() + OVERHEAD


def test_row_that_is_locked_keeps_nobody_beyond_the_deadline(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """And the server does not go on waiting for it. Cases G86, G90."""
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{table}%'"  # noqa: S608  our own

    async def use(store: SQLStore) -> Any:
        await recovered(lambda: store.create(key_of(1), RECORD))
        other = create_async_engine(asynchronous(postgres.url()))
        async with other.begin() as holder:
            await holder.execute(store.table.select().with_for_update())
            await failure(store.replace(key_of(1), Record(b"2", 2, LATER), 1))
            seen = await recovered(lambda: store.load(key_of(1)))

            async def nobody_waits() -> bool:
                return not await postgres.run(waiting)

            await eventually(nobody_waits, "the server has given up too")
        await other.dispose()
        return seen, await recovered(lambda: store.replace(key_of(1), Record(b"3", 3, LATER), 1))

    assert run(postgres.url(), table, use, timeout=SHORT) == (RECORD, True)


# PostgreSQL, gone


def terminate(application: str) -> str:
    """Kills the processes that serve an application."""
    where = f"application_name = '{application}' AND pid <> pg_backend_pid()"
    return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}"  # noqa: S608  our own


def test_connections_that_the_server_has_closed_are_replaced(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Without an error and without a ping before each call. Cases G86, G90."""

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        await asyncio.gather(*(store.load(key_of(1)) for _ in range(20)))
        killed = await postgres.run(terminate(table))
        assert store._own is not None
        drivers = list(store._own._drivers)
        await eventually(lambda: asyncio.sleep(0, all(each.is_closed() for each in drivers)), "the end arrives")
        return len(killed) > 1, await asyncio.gather(*(store.load(key_of(1)) for _ in range(20)))

    url = f"{postgres.url()}?application_name={table}"

    assert run(url, table, use) == (True, [RECORD] * 20)


def test_server_process_dies_in_mid_statement(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """At once a typed error, nothing done, and the next call succeeds. Cases G86, G90."""
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{table}'"  # noqa: S608  our own

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        other = create_async_engine(asynchronous(postgres.url()))
        async with other.begin() as holder:
            await holder.execute(store.table.select().with_for_update())
            call = asyncio.ensure_future(store.replace(key_of(1), Record(b"2", 2, LATER), 1))
            await eventually(lambda: postgres.run(waiting), "the statement waits for the row")
            await postgres.run(terminate(table))
            said = await failure(call, within=PATIENT.total_seconds() / 2)
        await other.dispose()
        return said, await store.load(key_of(1))

    said, after = run(f"{postgres.url()}?application_name={table}", table, use)

    assert said in {  # whichever is read first, its last words or its end
        "the database failed: AdminShutdownError (57P01)",
        "the database failed: ConnectionDoesNotExistError (08003)",
    }
    assert after == RECORD


def test_connection_is_cut_in_mid_statement(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """RST, by something between. Cases G80, G90."""

    async def scenario() -> tuple[str, Record | None]:
        async with Wire(postgres.port) as wire:
            store = SQLStore(postgres.url(port=wire.port), table=table, timeout=PATIENT, purge_every=None)
            await store.create(key_of(1), RECORD)
            postgres.freeze()
            try:
                before = wire.round_trips
                call = asyncio.ensure_future(store.load(key_of(1)))
                await eventually(lambda: asyncio.sleep(0, wire.round_trips > before), "the statement is sent")
                wire.cut()
                said = await failure(call, within=PATIENT.total_seconds() / 2)
            finally:
                postgres.thaw()
            after = await store.load(key_of(1))
            await store.aclose()
            return said, after

    said, after = asyncio.run(scenario())

    assert said == "the database failed: ConnectionDoesNotExistError (08003)"
    assert after == RECORD


def test_server_stops_and_comes_back(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Refused connections are told at once, and nothing has to be restarted. Cases G80, G86, G90."""

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        try:
            postgres.stop()
            said = [await failure(store.load(key_of(1)), within=10) for _ in range(2)]
        finally:
            postgres.start()
        return said[-1], await store.load(key_of(1))

    said, after = run(postgres.url(), table, use)

    assert said == "the database failed: ConnectionRefusedError"
    assert after == RECORD


def test_table_that_is_gone_is_made_again(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """A server that was restored empty: everyone is signed out, and can sign in. Case G90."""

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        await postgres.run(f"DROP TABLE {table}", terminate(table))
        # The first call may be under way when the driver learns that its connection is closed.
        gone = await recovered(lambda: store.load(key_of(1)))
        return gone, await store.create(key_of(1), RECORD), await store.load(key_of(1))

    assert run(f"{postgres.url()}?application_name={table}", table, use) == (None, True, RECORD)


# PostgreSQL, unwilling


def test_exhausted_pool_is_a_typed_error(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """A lent one that others use up, within our deadline and not within its own. Cases G86, G90."""

    async def scenario() -> tuple[str, bool]:
        engine = create_async_engine(asynchronous(postgres.url()), pool_size=1, max_overflow=0)
        store = SQLStore(engine, table=table, timeout=SHORT, purge_every=None)
        async with engine.connect():
            said = await failure(store.load(key_of(1)))
        created = await recovered(lambda: store.create(key_of(1), RECORD))
        await store.aclose()
        await engine.dispose()
        return said, created

    assert asyncio.run(scenario()) == ("the store did not answer within 0.3 s", True)


def test_own_pool_tells_that_it_is_exhausted(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Twenty calls that wait for one row leave no connection for the others. Case G86."""

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        other = create_async_engine(asynchronous(postgres.url()))
        async with other.begin() as holder:
            await holder.execute(store.table.select().with_for_update())
            calls = [failure(store.replace(key_of(1), RECORD, 1), within=5 + OVERHEAD) for _ in range(20)]
            said = await asyncio.gather(*calls)
        await other.dispose()
        return set(said)

    said = run(postgres.url(), table, use, timeout=timedelta(seconds=1.5))

    assert "no connection to the database came free in time" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "pg-wr0ng"}, "InvalidPasswordError (28P01)"),
        ({"user": "nobody_at_all"}, "InvalidPasswordError (28P01)"),
        ({"database": "nowhere"}, "InvalidCatalogNameError (3D000)"),
    ],
    ids=["password", "user", "database"],
)
def test_server_that_refuses_says_why(
    postgres: PostgresServer,  # noqa: F811
    table: str,  # noqa: F811
    change: dict[str, Any],
    said: str,
) -> None:
    """By the database's own names for it."""
    url = postgres.url(**change)

    async def use(store: SQLStore) -> Any:
        return await failure(store.load(key_of(1)), within=10)

    assert run(url, table, use) == f"the database failed: {said}"


def test_table_of_others_is_refused(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """With other columns, or with columns of other types. It stays as it is."""

    async def use(store: SQLStore) -> Any:
        await postgres.run(f"CREATE TABLE {table} (id int, value text)")
        said = [await failure(store.load(key_of(1)), within=10)]
        await postgres.run(
            f"DROP TABLE {table}",
            f"CREATE TABLE {table} (key bytea primary key, value bytea, version text, expires_at text, subject text)",
        )
        said.append(await failure(store.load(key_of(1)), within=10))
        said.append(await failure(store.create(key_of(1), RECORD), within=10))
        return said

    assert run(postgres.url(), table, use) == [
        "the database failed: UndefinedColumnError (42703)",
        "the database failed: UndefinedFunctionError (42883)",
        "the database failed: UndefinedFunctionError (42883)",
    ]


def test_read_only_server_reads_and_refuses_to_write(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Case G82: a replica, or a primary that no longer is one. Once it is one again, the next call writes."""
    user = f"u{table}"

    async def scenario() -> tuple[Record | None, set[str], bool]:
        await postgres.run(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD 'limited'")
        store = SQLStore(postgres.url(user=user, password="limited"), table=table, timeout=PATIENT)  # noqa: S106
        await store.create(key_of(1), RECORD)
        await postgres.run(f"ALTER ROLE {user} SET default_transaction_read_only = on", terminate(""))
        seen = await recovered(lambda: store.load(key_of(1)))
        said = {
            await failure(store.create(key_of(2), RECORD), within=10),
            await failure(store.replace(key_of(1), RECORD, 1), within=10),
            await failure(store.delete(key_of(1)), within=10),
            await failure(store.purge(), within=10),
        }
        await postgres.run(f"ALTER ROLE {user} RESET default_transaction_read_only")
        deleted = await store.delete(key_of(1))
        await store.aclose()
        return seen, said, deleted

    seen, said, deleted = asyncio.run(scenario())

    assert seen == RECORD
    assert said == {"the database failed: ReadOnlySQLTransactionError (25006)"}
    assert deleted is True


def test_missing_table_and_no_right_to_make_it(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Told as what it is."""
    user = f"u{table}"

    async def use(store: SQLStore) -> Any:
        return await failure(store.load(key_of(1)), within=10)

    asyncio.run(postgres.run(f"CREATE ROLE {user} LOGIN PASSWORD 'limited'"))
    url = postgres.url(user=user, password="limited")  # noqa: S106

    assert run(url, table, use) == "the database failed: InsufficientPrivilegeError (42501)"


# Garbage


GARBAGE: list[tuple[Any, ...]] = [
    (None, 1, LATER, SUBJECT),
    (b"x", None, LATER, SUBJECT),
    ("text", 1, LATER, SUBJECT),
    (7, 1, LATER, SUBJECT),
    (b"x", "one", LATER, SUBJECT),
    (b"x", 1.5, LATER, SUBJECT),
    (b"x", 1, "never", SUBJECT),
    (b"x", 1, b"never", SUBJECT),
]


def test_rows_that_are_no_records_are_not_there(sqlite_url: str) -> None:  # noqa: F811
    """SQLite keeps any type in any column. Case F78."""

    async def use(store: SQLStore) -> Any:
        with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other, other:
            other.execute("CREATE TABLE cookiesession (key BLOB, value, version, expires_at, subject)")
            rows = [(key_of(number), *row) for number, row in enumerate(GARBAGE)]
            rows += [(key_of(100), b"x", 1, LATER, "somebody"), ("text", b"x", 1, LATER, SUBJECT)]
            other.executemany("INSERT INTO cookiesession VALUES (?, ?, ?, ?, ?)", [*rows, (None, *rows[0][1:])])
            other.execute("CREATE UNIQUE INDEX i ON cookiesession (key)")
        loaded = [await store.load(key_of(number)) for number in (*range(len(GARBAGE)), 100)]
        await store.create(key_of(101), Record(b"y", 1, LATER, SUBJECT))
        return loaded, list(await store.find(SUBJECT))

    assert run(sqlite_url, "cookiesession", use) == ([None] * (len(GARBAGE) + 1), [key_of(101)])


def test_nulls_are_no_records(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Where a table lets them in. Case F78."""

    async def use(store: SQLStore) -> Any:
        await store.create_table()
        await postgres.run(
            f"ALTER TABLE {table} ALTER value DROP NOT NULL, ALTER version DROP NOT NULL",
            f"INSERT INTO {table} VALUES ('\\x{key_of(1).hex()}', NULL, NULL, {LATER}, '\\x{SUBJECT.hex()}')",  # noqa: S608
        )
        return await store.load(key_of(1)), await store.find(SUBJECT), await store.delete(key_of(1))

    assert run(postgres.url(), table, use) == (None, {}, True)


@pytest.mark.parametrize("record", [Record(b"", 2**63, LATER), Record(b"", 1, 2**63)], ids=["version", "expires_at"])
def test_number_that_no_column_holds_is_refused(sqlite_url: str, record: Record) -> None:  # noqa: F811
    """By the driver, whatever it raises then."""

    async def use(store: SQLStore) -> Any:
        return await failure(store.create(key_of(1), record), within=10)

    assert run(sqlite_url, "cookiesession", use) == "the database failed: OverflowError"


# SQLite, locked


@contextlib.contextmanager
def writing(url: str) -> Iterator[None]:
    """Another process's transaction, as far as SQLite is concerned."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_locked_file_is_a_typed_error_within_the_deadline(sqlite_url: str) -> None:  # noqa: F811
    """Reads go on. Cases G87, G90."""

    async def use(store: SQLStore) -> Any:
        await recovered(lambda: store.create(key_of(1), RECORD))
        with writing(sqlite_url):
            said = await failure(store.create(key_of(2), RECORD))
            seen = await recovered(lambda: store.load(key_of(1)))
        return said, seen, await recovered(lambda: store.create(key_of(2), RECORD))

    said, seen, created = run(sqlite_url, "cookiesession", use, timeout=SHORT)

    assert said in {"the database failed: OperationalError (SQLITE_BUSY)", "the store did not answer within 0.3 s"}
    assert (seen, created) == (RECORD, True)


def test_wait_for_a_lock_is_shorter_than_the_deadline(sqlite_url: str) -> None:  # noqa: F811
    """So that what was waited for is told, and no write comes after its caller has gone. Case G87."""

    async def milliseconds() -> Any:
        engine = open_engine(sqlite_url, 0.5)
        async with engine.connect() as connection:
            answer = await connection.exec_driver_sql("PRAGMA busy_timeout")
            waits = answer.scalar()
        await engine.dispose()
        return waits

    assert asyncio.run(milliseconds()) == 400


def test_file_that_is_not_in_wal_mode_yet_can_be_locked(sqlite_url: str) -> None:  # noqa: F811
    """Whoever cannot change the mode at the moment works in the mode that there is. Case G87."""

    async def use(store: SQLStore) -> Any:
        with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other:
            other.executescript(store.ddl())
        with writing(sqlite_url):
            return await store.load(key_of(1)), await store.find(SUBJECT)

    assert run(sqlite_url, "cookiesession", use, timeout=timedelta(seconds=8)) == (None, {})


def test_lent_engine_with_more_patience_than_the_store(sqlite_url: str) -> None:  # noqa: F811
    """SQLAlchemy's default waits 5 s for a lock. The call is bounded all the same, and nothing is left. Case G87."""
    before = threading.active_count()

    async def scenario() -> tuple[str, bool]:
        engine = create_async_engine(asynchronous(sqlite_url))
        store = SQLStore(engine, timeout=SHORT, purge_every=None)
        await recovered(lambda: store.create(key_of(1), RECORD))
        with writing(sqlite_url):
            said = await failure(store.delete(key_of(1)))
            await asyncio.wait(store._tasks, timeout=2 * SHORT.total_seconds())
        deleted = await recovered(lambda: store.load(key_of(1)))
        await store.aclose()
        await eventually(lambda: asyncio.sleep(0, not store._tasks), "every abandoned call ends")
        await engine.dispose()
        await eventually(lambda: asyncio.sleep(0, threading.active_count() <= before), "every thread ends")
        return said, deleted in {RECORD, None}  # with the effect or without

    assert asyncio.run(scenario()) == ("the store did not answer within 0.3 s", True)


def test_call_waits_for_the_lock(sqlite_url: str) -> None:  # noqa: F811
    """And succeeds when the other lets go. Case G87."""

    async def use(store: SQLStore) -> Any:
        await store.create_table()
        with writing(sqlite_url):
            call = asyncio.ensure_future(store.create(key_of(1), RECORD))
            done, _ = await asyncio.wait({call}, timeout=0.1)
        return done, await call

    assert run(sqlite_url, "cookiesession", use) == (set(), True)


def test_abandoned_calls_pile_up_no_threads(sqlite_url: str) -> None:  # noqa: F811
    """A hundred of them are five at a time, and none when the store is closed. Cases E63, G87."""
    before = threading.active_count()

    async def use(store: SQLStore) -> Any:
        await recovered(lambda: store.create(key_of(1), RECORD))
        most = 0
        with writing(sqlite_url):
            for _ in range(5):
                calls = [asyncio.ensure_future(store.replace(key_of(1), RECORD, 1)) for _ in range(20)]
                await asyncio.wait(calls, timeout=0.05)
                for call in calls[::2]:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                most = max(most, threading.active_count())
        await eventually(lambda: asyncio.sleep(0, not store._tasks), "every abandoned call ends")
        return most, await recovered(lambda: store.load(key_of(1)))

    most, after = run(sqlite_url, "cookiesession", use, timeout=SHORT)

    assert most <= before + 5 + 2  # those of the pool, and those that end
    assert after == RECORD
    assert threading.active_count() <= before


ABANDON = """
import asyncio, sqlite3, sys
from datetime import timedelta
from cookiesession.stores import Record
from cookiesession.stores.sql import SQLStore

async def main():
    store = SQLStore("sqlite:///" + sys.argv[1], timeout=timedelta(seconds=2))
    await store.create_table()
    other = sqlite3.connect(sys.argv[1], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    calls = [asyncio.ensure_future(store.create(bytes(32), Record(b"", 1, 2**32 - 1))) for _ in range(20)]
    await asyncio.wait(calls, timeout=0.1)
    calls[0].cancel()
    await asyncio.wait(calls, timeout=0.1)

asyncio.run(main())
print("done")
"""


def test_interpreter_ends_with_calls_under_way(tmp_path: Path) -> None:
    """Waiting for a lock, abandoned and not, and the store not closed."""
    process = subprocess.run(  # noqa: S603  our own script
        (sys.executable, "-c", ABANDON, str(tmp_path / "sessions.db")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (process.returncode, process.stdout) == (0, "done\n")


# SQLite, on a bad disk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MB."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0 or libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, b"size=1m") != 0:
            pytest.skip("no file system can be mounted here")
        try:
            yield Path(folder)
        finally:
            libc.umount2(folder.encode(), 2)  # MNT_DETACH


def test_full_disk_is_a_typed_error(small_disk: Path) -> None:
    """What was there can be read, and with room again the next call writes. Cases G88, G90."""
    ballast = small_disk / "ballast"

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(0), RECORD)
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
        said = await failure(store.create(key_of(1), Record(bytes(300_000), 1, LATER)), within=10)
        seen = await store.load(key_of(0)), await store.load(key_of(1))
        ballast.unlink()
        return said, seen, await store.create(key_of(1), Record(bytes(300_000), 1, LATER))

    said, seen, created = run(f"sqlite:///{small_disk}/sessions.db", "cookiesession", use)

    assert said == "the database failed: OperationalError (SQLITE_FULL)"
    assert (seen, created) == ((RECORD, None), True)


def test_full_file_is_a_typed_error(sqlite_url: str) -> None:  # noqa: F811
    """Where no disk can be filled: SQLite's own bound on a file, in an engine that the test owns. Case G88."""

    async def scenario() -> tuple[str, Record | None, bool]:
        engine = create_async_engine(asynchronous(sqlite_url))

        @event.listens_for(engine.sync_engine, "connect")
        def bound(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA max_page_count = 20")
            cursor.close()

        store = SQLStore(engine, timeout=PATIENT, purge_every=None)
        await store.create(key_of(0), RECORD)
        said = await failure(store.create(key_of(1), Record(bytes(300_000), 1, LATER)), within=10)
        seen = await store.load(key_of(0))
        created = await store.create(key_of(1), RECORD)
        await engine.dispose()
        return said, seen, created

    assert asyncio.run(scenario()) == ("the database failed: OperationalError (SQLITE_FULL)", RECORD, True)


@contextlib.contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder that is not ours to write in, though root writes anywhere."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "sessions.db").touch(mode=0o644)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        else:
            Path(folder).chmod(0o555)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            Path(folder).chmod(0o755)


@pytest.mark.parametrize("name", ["sessions.db", "absent.db"])
def test_folder_that_cannot_be_written_is_a_typed_error(name: str) -> None:
    """Whether the file is there or not. Case G88."""

    async def use(store: SQLStore) -> Any:
        return await failure(store.load(key_of(1)), within=10)

    with unprivileged() as folder:
        said = run(f"sqlite:///{folder}/{name}", "cookiesession", use)

    assert said.startswith("the database failed: OperationalError (SQLITE_")


def test_folder_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    """Until it is. Case G90."""
    folder = tmp_path / "later"

    async def use(store: SQLStore) -> Any:
        said = await failure(store.load(key_of(1)), within=10)
        folder.mkdir()
        return said, await store.load(key_of(1))

    said, after = run(f"sqlite:///{folder}/sessions.db", "cookiesession", use)

    assert (said, after) == ("the database failed: OperationalError (SQLITE_CANTOPEN)", None)


@pytest.mark.parametrize(
    "damage", [b"no database at all" * 400, b"SQLite format 3\0" + bytes(8000)], ids=["text", "zeros"]
)
def test_broken_file_is_a_typed_error(sqlite_url: str, damage: bytes) -> None:  # noqa: F811
    """Put in the place of the good one while it is open. With the good one back, the next call reads it. Case G90."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))

    def exchange(content: bytes) -> bytes:
        before = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        return before

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        await store.aclose()  # all is in the one file
        await store.load(key_of(1))
        good = exchange(damage)
        said = [await failure(store.load(key_of(1)), within=10), await failure(store.delete(key_of(1)), within=10)]
        exchange(good)
        return said, await store.load(key_of(1))

    said, after = run(sqlite_url, "cookiesession", use)

    assert all(text.startswith("the database failed: DatabaseError (SQLITE_") for text in said)
    assert after == RECORD


def test_deleted_file_is_made_again(sqlite_url: str) -> None:  # noqa: F811
    """All connections leave the one that nobody else sees. Case G90."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), RECORD)
        await asyncio.gather(*(store.load(key_of(1)) for _ in range(10)))
        for each in path.parent.glob("sessions.db*"):
            each.unlink()
        seen = await asyncio.gather(*(store.load(key_of(1)) for _ in range(10)))
        created = await store.create(key_of(1), RECORD)
        with contextlib.closing(sqlite3.connect(path)) as other:
            rows = other.execute("SELECT count(*) FROM cookiesession").fetchone()
        return seen, created, rows

    assert run(sqlite_url, "cookiesession", use) == ([None] * 10, True, (1,))


# What is said


KEY, VALUE, OWNER = (letter * KEY_LENGTH for letter in (b"K", b"V", b"W"))
SECRETS = {
    part
    for secret in (KEY, VALUE, OWNER)
    for part in (secret[:16].decode(), secret[:8].hex(), secret[:8].hex().upper(), "\\x" + secret[:1].hex() * 4)
} | {PASSWORD}


def test_nothing_is_said_of_keys_values_and_passwords(
    postgres: PostgresServer,  # noqa: F811
    table: str,  # noqa: F811
    sqlite_url: str,  # noqa: F811
    everything_said: Callable[[BaseException], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By no exception, its causes included, and by no logger; SQLAlchemy's shows rows at DEBUG, but no statement's."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "sqlalchemy")
    record, before = Record(VALUE, 1, LATER, OWNER), threading.active_count()
    errors: list[BaseException] = []

    async def catch(call: Awaitable[object]) -> None:
        try:
            await call
        except StoreUnavailable as error:
            errors.append(error)

    async def each_verb(url: str, name: str, deadline: timedelta) -> None:
        store = SQLStore(url, table=name, timeout=deadline)
        await catch(store.create(KEY, record))
        await catch(store.replace(KEY, record, 7))
        await catch(store.load(KEY))
        await catch(store.find(OWNER))
        await catch(store.delete(KEY))
        await store.aclose()

    async def scenario() -> None:
        columns = "key bytea primary key, value bytea, version bigint, expires_at bigint, subject bytea"
        await postgres.run(
            f"CREATE TABLE {table} ({columns}, CHECK (version > 1), UNIQUE (value))",
            f"CREATE TABLE {table}_narrow ({columns.replace('value bytea', 'value text')})",
        )
        for url, name in (
            (postgres.url(), table),
            (postgres.url(), f"{table}_narrow"),
            (postgres.url(database="nowhere"), table),
            (f"{postgres.url()}?no_such_setting=1", table),
            (postgres.url(port=1), table),
            (sqlite_url, table),
            ("sqlite:////nowhere/at/all.db", table),
        ):
            await each_verb(url, name, PATIENT)
        with writing(sqlite_url):
            await each_verb(sqlite_url, table, SHORT)
        await eventually(lambda: asyncio.sleep(0, threading.active_count() <= before), "every thread ends")

    asyncio.run(scenario())

    text = caplog.text + "".join(map(everything_said, errors))
    assert len(errors) >= 15
    assert "INSERT INTO" in text
    assert {secret for secret in SECRETS if secret in text} == set()
