"""`store_from_url()`: the store that a URL names, so that another one is a change of configuration."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from cookiesession.errors import ConfigurationError

if TYPE_CHECKING:
    from cookiesession.stores import Store

_REDIS: Final = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})
_SQL: Final = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle"})
_EXTRAS: Final = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}  # others bring no driver
_SYNC: Final = {"true": True, "1": True, "false": False, "0": False}


def store_from_url(url: str, *, timeout: timedelta = timedelta(seconds=1)) -> Store:
    """The store of a URL, each call of which ends within `timeout`.

    - `memory:`: a `MemoryStore`.
    - `file:///var/lib/app/sessions`: a `FileStore`; with `?sync=false`, of quicker writes.
    - `sqlite:///sessions.db`, `postgresql://user:password@host/name` and what else SQLAlchemy knows: an `SQLStore`.
    - `redis://host:6379/0`, `rediss://...`, `unix://...`, `redis+sentinel://...`, `redis+cluster://...`, and the same
      with `valkey`: a `RedisStore`.

    Raises `ConfigurationError`, which shows nothing of the URL but its scheme.

    >>> store_from_url("memory:")
    <MemoryStore of at most 100000>
    """
    scheme = url.partition(":")[0].lower() if isinstance(url, str) else ""
    family = scheme.partition("+")[0]
    url = scheme + url[len(scheme) :] if scheme else ""
    try:
        if scheme == "memory":
            from cookiesession.stores.memory import MemoryStore  # noqa: PLC0415 - one store's module, and no other's

            return MemoryStore()
        if scheme == "file":
            return _file_store(url, timeout)
        if family in _REDIS:
            from cookiesession.stores.redis import RedisStore  # noqa: PLC0415 - its driver comes with an extra

            return RedisStore(url, timeout=timeout)
        if family in _SQL:
            from cookiesession.stores.sql import SQLStore  # noqa: PLC0415 - its drivers come with extras

            return SQLStore(url, timeout=timeout)
    except ModuleNotFoundError as error:
        extra = "redis" if family in _REDIS else _EXTRAS.get(family, "sql")
        raise ConfigurationError(f'{scheme}: needs {error.name}: pip install "cookiesession[{extra}]"') from error
    raise ConfigurationError("a store's URL starts with memory:, file:, sqlite:, postgresql:, redis: or valkey:")


def _file_store(url: str, timeout: timedelta) -> Store:
    from cookiesession.stores.file import FileStore  # noqa: PLC0415 - one store's module, and no other's

    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sync = _SYNC.get(options.pop("sync", "true").lower())
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/") or options or sync is None:
        raise ConfigurationError("a file store's URL is file:///path/of/a/directory, with ?sync=false or nothing after")
    return FileStore(unquote(parts.path), timeout=timeout, sync=sync)
