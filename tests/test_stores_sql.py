"""The store in a database: the contract on SQLite and PostgreSQL, many writers, its table, and what it costs."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from harness import START, Clock
from postgres_server import USER, PostgresServer, Wire, postgres  # noqa: F401  a fixture
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import create_async_engine

from cookiesession import ConfigurationError
from cookiesession.stores import KEY_LENGTH, Record, Store
from cookiesession.stores.sql import SQLStore, sessions_table
from cookiesession.stores.sql.table import Statements
from cookiesession.testing.contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection


PATIENT = timedelta(seconds=20)  # for tests of what is done, and not of when, on a busy machine
SUBJECT = bytes(KEY_LENGTH)
LATER = 2**32 - 1


def key_of(number: int) -> bytes:
    """One key for each number."""
    return number.to_bytes(KEY_LENGTH, "big")


def asynchronous(url: str) -> str:
    """The same with the name of the driver, for SQLAlchemy alone."""
    return url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file of this test's own."""
    return f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Either database."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    return str(request.getfixturevalue("postgres").url())


@pytest.fixture
def table() -> str:
    """The name of a table that no other test has."""
    return f"t{os.urandom(8).hex()}"


# The contract


class TestSQLite(StoreContract):
    """The contract of all stores, in a file."""

    @pytest.fixture(autouse=True)
    def _database(self, sqlite_url: str) -> None:
        self.url = sqlite_url

    async def open_store(self) -> Store:
        return SQLStore(self.url, timeout=PATIENT, purge_every=1)


class TestPortableStatements(TestSQLite):
    """The contract by the statements for databases without upsert, such as MySQL."""

    async def open_store(self) -> Store:
        store = SQLStore(self.url, timeout=PATIENT)
        store._statements.upsert = None
        return store


class TestPostgreSQL(StoreContract):
    """The contract of all stores, on a server."""

    @pytest.fixture(autouse=True)
    def _database(self, postgres: PostgresServer) -> None:  # noqa: F811
        self.url = postgres.url()

    async def open_store(self) -> Store:
        return SQLStore(self.url, timeout=PATIENT, purge_every=1)


class LentEngineStore(SQLStore):
    """A store on an engine that the test owns, and closes."""

    async def aclose(self) -> None:
        await super().aclose()
        await self._engine.dispose()


class TestLentSQLite(TestSQLite):
    """The contract on an engine with SQLAlchemy's defaults."""

    async def open_store(self) -> Store:
        return LentEngineStore(create_async_engine(asynchronous(self.url)), timeout=PATIENT)


class TestLentPostgreSQL(TestPostgreSQL):
    """The contract on an engine with SQLAlchemy's defaults."""

    async def open_store(self) -> Store:
        return LentEngineStore(create_async_engine(asynchronous(self.url)), timeout=PATIENT)


# Many writers

dice = random.Random()  # noqa: S311  of when, and of nothing else


async def increment(store: SQLStore, key: bytes) -> None:
    """Adds one to the number in a record, as often as it takes, after a while that is longer each time."""
    for attempt in range(1000):
        present = await store.load(key)
        assert present is not None
        value = b"%d" % (int(present.value) + 1)
        if await store.replace(key, Record(value, present.version + 1, LATER), present.version):
            return
        await asyncio.sleep(dice.random() * 0.05 * min(attempt, 10))
    raise AssertionError("a thousand conflicts")


def test_no_increment_is_lost(url: str, table: str) -> None:
    """200 of them by 50 writers at once. Case F74."""

    async def scenario() -> Record | None:
        store = SQLStore(url, table=table, timeout=PATIENT)
        await store.create(key_of(1), Record(b"0", 1, LATER))

        async def writer() -> None:
            for _ in range(4):
                await increment(store, key_of(1))

        await asyncio.gather(*(writer() for _ in range(50)))
        try:
            return await store.load(key_of(1))
        finally:
            await store.aclose()

    assert asyncio.run(scenario()) == Record(b"200", 201, LATER)


WRITER = """
import asyncio, sys
from datetime import timedelta
from cookiesession.stores import Record
from cookiesession.stores.sql import SQLStore
from test_stores_sql import LATER, PATIENT, increment, key_of

async def main():
    store = SQLStore(sys.argv[1], table=sys.argv[2], timeout=PATIENT)
    sys.stdin.readline()
    await store.create(key_of(1), Record(b"0", 1, LATER))
    for _ in range(30):
        await increment(store, key_of(1))
    await store.aclose()

asyncio.run(main())
"""


def test_processes_share_a_database(url: str, table: str) -> None:
    """Two that start at once, with no table yet, and count in one record."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(  # noqa: S603  our own script
            (sys.executable, "-c", WRITER, url, table), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        for _ in range(2)
    ]
    said = [b"", b""]
    try:
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        said = [writer.communicate(timeout=60)[1] for writer in writers]
    finally:
        for writer in writers:
            writer.kill()

    async def count() -> Record | None:
        store = SQLStore(url, table=table, timeout=PATIENT)
        try:
            return await store.load(key_of(1))
        finally:
            await store.aclose()

    assert said == [b"", b""]
    assert asyncio.run(count()) == Record(b"60", 61, LATER)


# The table


def run(url: str, table: str, use: Callable[[SQLStore], Awaitable[Any]], **options: Any) -> Any:
    """What `use` makes of a store, which is closed then."""
    before = threading.active_count()

    async def scenario() -> Any:
        store = SQLStore(url, table=table, **{"timeout": PATIENT, "purge_every": None, **options})
        try:
            return await use(store)
        finally:
            await store.aclose()
            for _ in range(1000):  # aiosqlite does not wait for the thread of a file that it could not open
                if threading.active_count() <= before:
                    break
                await asyncio.sleep(0.01)

    return asyncio.run(scenario())


def test_table_is_made_once_by_many(url: str, table: str) -> None:
    """By whoever comes first, any number at once, and again when it is there."""

    async def use(store: SQLStore) -> Any:
        others = [SQLStore(url, table=table, timeout=PATIENT) for _ in range(4)]
        everyone = [store, *others]
        await asyncio.gather(*(each.create_table() for each in everyone), *(each.load(key_of(1)) for each in everyone))
        await store.create_table()
        for each in others:
            await each.aclose()
        return await store.create(key_of(1), Record(b"", 1, LATER))

    assert run(url, table, use) is True


def test_table_that_another_is_making_is_waited_for(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """PostgreSQL takes IF NOT EXISTS to mean before, and refuses what is made at the same time."""
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{table}%'"  # noqa: S608

    async def use(store: SQLStore) -> Any:
        async with create_async_engine(asynchronous(postgres.url())).begin() as other:
            await other.execute(sa.schema.CreateTable(store.table))
            call = asyncio.ensure_future(store.create(key_of(1), Record(b"", 1, LATER)))
            for _ in range(1000):
                if await postgres.run(waiting):
                    break
                await asyncio.sleep(0.01)
            await other.commit()
            engine = other.engine
        await engine.dispose()
        return await call

    assert run(postgres.url(), table, use) is True


def test_ddl_makes_the_table(url: str, table: str) -> None:
    """The text alone, with both indexes, for whoever does not let an application make tables."""

    async def use(store: SQLStore) -> Any:
        async with store._engine.connect() as connection:
            for statement in store.ddl().split(";\n")[:-1]:
                await connection.execute(sa.text(statement))
            indexes = await connection.run_sync(lambda inner: sa.inspect(inner).get_indexes(table))
        created = await store.create(key_of(1), Record(b"", 1, LATER, SUBJECT))
        return created, sorted(str(index["name"]) for index in indexes)

    assert run(url, table, use) == (True, [f"ix_{table}_expires_at", f"ix_{table}_subject"])


def test_table_of_ones_own_metadata(sqlite_url: str) -> None:
    """As a migration tool finds it, with other tables and under another name."""

    async def scenario() -> tuple[bool, list[str]]:
        metadata = sa.MetaData()
        store = SQLStore(sqlite_url, table=sessions_table("visits", metadata), timeout=PATIENT)
        try:
            return await store.create(key_of(1), Record(b"", 1, LATER)), list(metadata.tables)
        finally:
            await store.aclose()

    assert asyncio.run(scenario()) == (True, ["visits"])


def test_user_without_the_right_to_create_uses_the_table(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """With SELECT, INSERT, UPDATE and DELETE on it, and nothing else."""
    user = f"u{table}"

    async def scenario() -> tuple[bool, bool, Record | None, bool, int]:
        owner = SQLStore(postgres.url(), table=table, timeout=PATIENT)
        await owner.create_table()
        await owner.aclose()
        await postgres.run(
            f"CREATE ROLE {user} LOGIN PASSWORD 'limited'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user}",
        )
        store = SQLStore(postgres.url(user=user, password="limited"), table=table, timeout=PATIENT)  # noqa: S106
        try:
            return (
                await store.create(key_of(1), Record(b"", 1, LATER)),
                await store.replace(key_of(1), Record(b"2", 2, LATER), 1),
                await store.load(key_of(1)),
                await store.delete(key_of(1)),
                await store.purge(),
            )
        finally:
            await store.aclose()

    assert asyncio.run(scenario()) == (True, True, Record(b"2", 2, LATER), True, 0)


@pytest.mark.parametrize("column", ["key", "subject", "expires_at"])
def test_statements_use_an_index(sqlite_url: str, table: str, column: str) -> None:
    """Whatever is asked for: a key, a subject, what has expired."""

    async def use(store: SQLStore) -> Any:
        await store.create_table()
        statements = store._statements
        statement = {"key": statements.load, "subject": statements.find, "expires_at": statements.purge(9)}[column]
        text = str(statement.compile(dialect=store._engine.dialect))
        async with store._engine.connect() as connection:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (1,) * text.count("?"))
            return "\n".join(row[-1] for row in plan)

    plan = run(sqlite_url, table, use)

    assert ("sqlite_autoindex" if column == "key" else f"ix_{table}_{column}") in plan
    assert "SCAN" not in plan


def test_mysql_has_its_own_words() -> None:
    """No server, but the text: binary columns with room, nothing that MySQL has no syntax for."""
    table = sessions_table()
    statements = Statements(table, "mysql")
    every = [statements.load, statements.find, statements.insert, statements.replace, statements.delete]

    text = " ".join(str(each.compile(dialect=mysql.dialect())) for each in [*every, statements.bury])
    purge = str(statements.purge(7).compile(dialect=mysql.dialect()))
    ddl = SQLStore("sqlite:///unused.db").ddl("mysql")

    assert statements.upsert is None
    assert "`key` = %s" in text
    assert purge.endswith("expires_at <= %s LIMIT 7")
    assert "`key` VARBINARY(32) NOT NULL" in ddl
    assert "value LONGBLOB NOT NULL" in ddl
    assert "CREATE INDEX ix_cookiesession_subject ON cookiesession (subject);" in ddl


# Time


def test_record_ends_in_its_second(url: str, table: str) -> None:
    """By the clock of the store. Case F76."""
    clock = Clock()

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), Record(b"", 1, START + 60, SUBJECT))
        seen = []
        for now in (START + 59.9, START + 60, START + 61, START - 3600):
            clock.now = now
            seen.append((await store.load(key_of(1)) is not None, list(await store.find(SUBJECT))))
        return seen

    nobody: list[bytes] = []
    alive, dead = (True, [key_of(1)]), (False, nobody)

    assert run(url, table, use, clock=clock) == [alive, dead, dead, alive]


def test_purge_deletes_the_dead_in_batches(url: str, table: str) -> None:
    """Never more than it was told, those longest dead first, and none that lives."""
    clock = Clock()

    async def use(store: SQLStore) -> Any:
        for number in range(10):
            await store.create(key_of(number), Record(b"", 1, START + number + 1))
        clock.now += 7
        batches = [await store.purge(limit=5) for _ in range(3)]
        clock.now = START
        return batches, [number for number in range(10) if await store.load(key_of(number)) is not None]

    assert run(url, table, use, clock=clock) == ([5, 2, 0], [7, 8, 9])


def test_purge_leaves_what_another_transaction_holds(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Two purges at once do not wait for each other."""
    clock = Clock()

    async def use(store: SQLStore) -> Any:
        for number in range(4):
            await store.create(key_of(number), Record(b"", 1, START + 1))
        clock.now += 1
        async with create_async_engine(asynchronous(postgres.url())).begin() as other:
            held = store.table.select().where(store.table.c.key == key_of(2)).with_for_update()
            await other.execute(held)
            first = await store.purge()
            await other.rollback()
            engine = other.engine
        await engine.dispose()
        return first, await store.purge()

    assert run(postgres.url(), table, use, clock=clock) == (3, 1)


def test_dead_rows_go_by_themselves(url: str, table: str) -> None:
    """After the first record that is created, and each hundredth. Case F77."""
    clock = Clock()

    async def rows(store: SQLStore) -> int:
        async with store._engine.connect() as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(store.table))).scalar_one())

    async def use(store: SQLStore) -> Any:
        counted = []
        for number in range(6):
            await store.create(key_of(number), Record(b"", 1, START + 1))
        clock.now += 1
        for number in range(6, 12):
            await store.create(key_of(number), Record(b"", 1, LATER))
            if store._tasks:
                await asyncio.wait(store._tasks)
            counted.append(await rows(store))
        return counted

    assert run(url, table, use, clock=clock, purge_every=10) == [7, 8, 9, 10, 5, 6]


def test_dead_row_that_goes_by_itself_meanwhile_is_in_nobodys_way(sqlite_url: str, table: str) -> None:
    """Where there is no upsert: a purge between the insertion that fails and the deletion of what it met."""

    async def use(store: SQLStore) -> bool:
        insert = store._insert

        async def insert_or_purge(connection: AsyncConnection, row: dict[str, Any]) -> bool:
            inserted = await insert(connection, row)
            if not inserted:
                assert await store.purge() == 1
            return inserted

        store._statements.upsert = None
        store._insert = insert_or_purge  # type: ignore[method-assign]
        await store.create(key_of(1), Record(b"", 1, START))
        return await store.create(key_of(1), Record(b"", 1, LATER))

    assert run(sqlite_url, table, use, clock=Clock(), purge_every=None)


# Costs


def test_call_is_one_round_trip(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """On PostgreSQL, once the connection has seen the statement; the transactions cost none."""

    async def scenario() -> list[int]:
        async with Wire(postgres.port) as wire:
            store = SQLStore(postgres.url(port=wire.port), table=table, timeout=PATIENT, purge_every=None)
            counted = []

            async def count(call: Awaitable[object]) -> None:
                before = wire.round_trips
                await call
                counted.append(wire.round_trips - before)

            for number in range(2):
                counted.clear()
                await count(store.create(key_of(number), Record(b"", 1, LATER, SUBJECT)))
                await count(store.load(key_of(number)))
                await count(store.replace(key_of(number), Record(b"", 2, LATER, SUBJECT), 1))
                await count(store.find(SUBJECT))
                await count(store.delete(key_of(number)))
            await store.aclose()
            return counted

    assert asyncio.run(scenario()) == [1, 1, 1, 1, 1]


def test_ten_megabytes_are_a_value(url: str, table: str) -> None:
    """Nobody should, but nothing breaks."""
    value = os.urandom(10 * 2**20)

    async def use(store: SQLStore) -> Any:
        created = await store.create(key_of(1), Record(value, 1, LATER, SUBJECT))
        replaced = await store.replace(key_of(1), Record(value[::-1], 2, LATER, SUBJECT), 1)
        return created, replaced, await store.load(key_of(1)), list(await store.find(SUBJECT))

    assert run(url, table, use) == (True, True, Record(value[::-1], 2, LATER, SUBJECT), [key_of(1)])


def test_cancelled_call_keeps_its_connection(postgres: PostgresServer, table: str) -> None:  # noqa: F811
    """Clients that go away cost no new connections. Case E63."""

    async def use(store: SQLStore) -> Any:
        await store.load(key_of(1))
        for _ in range(20):
            call = asyncio.ensure_future(store.load(key_of(1)))
            await asyncio.wait({call}, timeout=0.001)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await store.load(key_of(1))
        return len(await postgres.run("SELECT 1 FROM pg_stat_activity WHERE application_name = 'counted'"))

    assert run(f"{postgres.url()}?application_name=counted", table, use) <= 2


# Engines


def test_lent_engine_stays_open(sqlite_url: str) -> None:
    """Whoever opens it closes it."""

    async def scenario() -> int:
        engine = create_async_engine(asynchronous(sqlite_url))
        store = SQLStore(engine, timeout=PATIENT, purge_every=None)
        await store.create(key_of(1), Record(b"", 1, LATER))
        await store.aclose()
        async with engine.connect() as connection:
            rows = (await connection.execute(store.table.select())).all()
        await engine.dispose()
        return len(rows)

    assert asyncio.run(scenario()) == 1


def test_file_is_shared_with_readers(sqlite_url: str) -> None:
    """The file is in WAL mode: nobody who reads waits for whoever writes."""

    async def use(store: SQLStore) -> Any:
        await store.create(key_of(1), Record(b"", 1, LATER))
        with sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            seen = await store.load(key_of(1))
            other.execute("ROLLBACK")
        other.close()
        return seen

    assert run(sqlite_url, "cookiesession", use) == Record(b"", 1, LATER)


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("sqlite:///sessions.db", "sqlite"),
        ("sqlite+aiosqlite:///sessions.db", "sqlite"),
        ("postgres://user@localhost/name", "postgresql"),
        ("postgresql://user@localhost/name", "postgresql"),
        ("postgresql+asyncpg://user@localhost/name", "postgresql"),
    ],
    ids=str,
)
def test_url_gets_its_driver(url: str, dialect: str) -> None:
    """The asynchronous one, where none is named. Nothing is opened yet, and the representation shows no URL."""
    store = SQLStore(url)

    assert repr(store) == f"<SQLStore of table 'cookiesession', {dialect}>"
    assert store._engine.dialect.is_async


@pytest.mark.parametrize(
    ("database", "complaint"),
    [
        ("no URL, hunter2", "none that SQLAlchemy reads"),
        ("postgresql://user:hunter2@host:port/name", "none that SQLAlchemy reads"),
        ("sqlite://", "use MemoryStore"),
        ("sqlite:///:memory:", "use MemoryStore"),
        ("nosuchthing://user:hunter2@localhost/name", "not an asynchronous one"),
        ("sqlite+pysqlite:///sessions.db", "not an asynchronous one"),
        ("mysql+asyncmy://user:hunter2@localhost/name", "the driver asyncmy is not installed"),
        ("postgresql+psycopg://user:hunter2@localhost/name", r'pip install "cookiesession\[postgresql\]"'),
    ],
    ids=str,
)
def test_database_that_cannot_work_is_a_configuration_error(
    database: str, complaint: str, everything_said: Callable[[BaseException], str]
) -> None:
    """At construction, and without the URL, which holds a password."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        SQLStore(database)

    assert "hunter2" not in everything_said(caught.value)


@pytest.mark.parametrize("database", [sa.create_engine("sqlite://"), None], ids=["engine", "none"])
def test_database_is_an_asynchronous_engine_or_a_url(database: Any) -> None:
    """An engine of the other kind is an easy slip."""
    with pytest.raises(ConfigurationError, match="SQLStore takes an AsyncEngine"):
        SQLStore(database)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"timeout": timedelta(0)}, "timeout is a positive timedelta"),
        ({"timeout": 1}, "timeout is a positive timedelta"),
        ({"table": ""}, "table is a name"),
        ({"table": None}, r"table is a name, or a table that sessions_table\(\) has made"),
        ({"purge_every": "100"}, "purge_every is a number of at least 1, or None"),
        ({"purge_every": 0}, "purge_every is a number of at least 1, or None"),
    ],
    ids=str,
)
def test_option_that_cannot_work_is_a_configuration_error(options: dict[str, Any], complaint: str) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match=complaint):
        SQLStore("sqlite:///sessions.db", **options)


def test_purge_of_nothing_is_a_configuration_error(sqlite_url: str) -> None:
    """So is a dialect that there is not."""
    store = SQLStore(sqlite_url)

    with pytest.raises(ConfigurationError, match="limit is a number of at least 1"):
        asyncio.run(store.purge(0))
    with pytest.raises(ConfigurationError, match="no dialect of SQLAlchemy"):
        store.ddl("nosuchthing")
