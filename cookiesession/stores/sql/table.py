"""The table of `SQLStore`: its columns, its DDL, and the statements on it, for every dialect. Nothing is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.schema import CreateIndex, CreateTable

from cookiesession.errors import ConfigurationError
from cookiesession.stores import KEY_LENGTH, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGEST: Final = sa.LargeBinary(KEY_LENGTH).with_variant(mysql.VARBINARY(KEY_LENGTH), "mysql", "mariadb")
# MySQL's BLOB ends at 64 KB.
_VALUE: Final = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def sessions_table(
    name: str = "cookiesession", metadata: sa.MetaData | None = None, *, schema: str | None = None
) -> sa.Table:
    """The table of a `SQLStore`, in `metadata` of your own for migrations, and for `SQLStore(table=...)`.

    >>> sorted(column.name for column in sessions_table().columns)
    ['expires_at', 'key', 'subject', 'value', 'version']
    """
    table = sa.Table(
        name,
        sa.MetaData() if metadata is None else metadata,
        sa.Column("key", _DIGEST, primary_key=True),
        sa.Column("value", _VALUE, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("subject", _DIGEST, nullable=True),
        schema=schema,
    )
    sa.Index(f"ix_{name}_expires_at", table.c.expires_at)
    somebodys = table.c.subject.is_not(None)
    sa.Index(f"ix_{name}_subject", table.c.subject, postgresql_where=somebodys, sqlite_where=somebodys)
    return table


def ddl_of(table: sa.Table, dialect: str) -> list[sa.schema.ExecutableDDLElement]:
    """What makes the table, and does nothing where it is. MySQL alone knows no IF NOT EXISTS for an index."""
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    return [
        CreateTable(table, if_not_exists=True),
        *(CreateIndex(index, if_not_exists=dialect != "mysql") for index in indexes),
    ]


def ddl_text(table: sa.Table, dialect: str) -> str:
    """The same as text, for whoever makes tables by other means."""
    try:
        compiler = sa.URL.create(dialect).get_dialect()()
    except NoSuchModuleError as error:
        raise ConfigurationError(f"{dialect!r} is no dialect of SQLAlchemy, as 'postgresql' is") from error
    return "".join(f"{str(each.compile(dialect=compiler)).strip()};\n" for each in ddl_of(table, dialect))


class Statements:
    """The statements on one table in one dialect. Their parameters are named as the columns, or begin with `the_`."""

    def __init__(self, table: sa.Table, dialect: str) -> None:
        columns = table.c
        self._table, self._dialect = table, dialect
        self._now = sa.bindparam("the_now", type_=sa.BigInteger)
        here = columns.key == sa.bindparam("the_key", type_=_DIGEST)
        lives = columns.expires_at > self._now
        fields = (columns.value, columns.version, columns.expires_at, columns.subject)

        self.load = sa.select(*fields).where(here, lives)
        self.find = sa.select(columns.key, *fields).where(
            columns.subject == sa.bindparam("the_subject", type_=_DIGEST), lives
        )
        self.insert = sa.insert(table)
        self.upsert = self._upsert()
        self.replace = (
            sa.update(table)
            .where(here, columns.version == sa.bindparam("the_version", type_=sa.BigInteger), lives)
            .values({column.name: sa.bindparam(column.name, type_=column.type) for column in fields})
        )
        self.delete = sa.delete(table).where(here, lives)
        self.bury = sa.delete(table).where(here, columns.expires_at <= self._now)

    def _upsert(self) -> sa.Insert | None:
        """An INSERT that takes the place of a dead row; None in a dialect that has no such condition."""
        insert: postgresql.Insert | sqlite.Insert
        if self._dialect == "postgresql":
            insert = postgresql.insert(self._table)
        elif self._dialect == "sqlite":
            insert = sqlite.insert(self._table)
        else:
            return None
        columns = self._table.c
        written = {column.name: insert.excluded[column.name] for column in columns if not column.primary_key}
        return insert.on_conflict_do_update(
            index_elements=[columns.key], set_=written, where=columns.expires_at <= self._now
        )

    def purge(self, limit: int) -> sa.Delete:
        """Deletes dead rows, `limit` at most. Those that another transaction has locked are left to it, if possible."""
        columns = self._table.c
        dead = columns.expires_at <= self._now
        delete = sa.delete(self._table).where(dead)
        if self._dialect in {"mysql", "mariadb"}:  # which have no LIMIT in a subquery
            return delete.with_dialect_options(**{f"{self._dialect}_limit": limit})
        batch = sa.select(columns.key).where(dead).order_by(columns.expires_at).limit(limit)
        if self._dialect == "postgresql":
            # What locks rows is a CTE of its own, which the planner does not ask twice.
            batch = sa.select(batch.with_for_update(skip_locked=True).cte("dead").c.key)
        return delete.where(columns.key.in_(batch))


def record_of(fields: Sequence[Any]) -> Record | None:
    """The record in a row's fields; None where they are not one's, as only somebody else writes them."""
    value, version, expires_at, subject = fields
    if (
        isinstance(value, bytes)
        and isinstance(version, int)
        and isinstance(expires_at, int)
        and isinstance(subject, bytes | None)
    ):
        return Record(value, version, expires_at, subject)
    return None


def records_of(rows: Sequence[Sequence[Any]]) -> dict[bytes, Record]:
    """The records in rows that begin with their keys, without what is none."""
    found = {row[0]: record_of(row[1:]) for row in rows if isinstance(row[0], bytes)}
    return {key: record for key, record in found.items() if record is not None}
