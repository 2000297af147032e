"""The store of a URL: every kind, and nothing shown of what a URL may hold."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cookiesession import ConfigurationError
from cookiesession.stores import Store
from cookiesession.stores.file import FileStore
from cookiesession.stores.memory import MemoryStore
from cookiesession.stores.redis import RedisStore
from cookiesession.stores.sql import SQLStore
from cookiesession.stores.url import store_from_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT = timedelta(seconds=3)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryStore),
        ("memory://", MemoryStore),
        ("sqlite:///sessions.db", SQLStore),
        ("sqlite+aiosqlite:///sessions.db", SQLStore),
        ("postgresql://user:hunter2@localhost/name", SQLStore),
        ("REDIS://localhost:6379/0", RedisStore),
        ("rediss://:hunter2@localhost", RedisStore),
        ("valkey://localhost", RedisStore),
        ("redis+cluster://localhost:7000,localhost:7001", RedisStore),
        ("unix:///run/redis.sock", RedisStore),
    ],
)
def test_scheme_chooses_the_store(url: str, kind: type[Any]) -> None:
    """Nothing is connected to before the first call."""
    store = store_from_url(url, timeout=TIMEOUT)

    assert isinstance(store, Store)
    assert type(store) is kind
    assert "hunter2" not in repr(store)


@pytest.mark.parametrize(("query", "sync"), [("", True), ("?sync=true", True), ("?sync=false", False)])
def test_path_of_a_file_store_is_percent_decoded(tmp_path: Path, query: str, *, sync: bool) -> None:
    """And absolute, of this machine."""
    store = store_from_url(f"file://localhost{tmp_path}/my%20sessions{query}")

    assert isinstance(store, FileStore)
    assert tmp_path / "my sessions" == store.directory
    assert sync is store._records._sync


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        "gopher://user:hunter2@localhost",
        "hunter2",
        "file://example.org/hunter2",
        "file:hunter2",
        "file:///tmp/hunter2?sync=maybe",
        "file:///tmp/hunter2?sync",
        "file:///tmp/x?hunter2=1",
    ],
)
def test_url_that_is_no_stores_is_refused(url: Any, everything_said: Callable[[BaseException], str]) -> None:
    """With what there is, and without what was given."""
    with pytest.raises(ConfigurationError, match=r"a (file )?store's URL") as refusal:
        store_from_url(url)

    assert "hunter2" not in everything_said(refusal.value)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("redis://localhost", "redis", "redis"),
        ("sqlite:///sessions.db", "sqlalchemy", "sqlite"),
        ("postgresql://localhost/name", "sqlalchemy", "postgresql"),
        ("postgres://localhost/name", "sqlalchemy", "postgresql"),
        ("mysql+asyncmy://localhost/name", "sqlalchemy", "sql"),
    ],
)
def test_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str) -> None:
    """With the command that installs it."""
    for name in list(sys.modules):
        if name.startswith(("cookiesession.stores.redis", "cookiesession.stores.sql")):
            monkeypatch.delitem(sys.modules, name)
        if name == package or name.startswith(f"{package}."):
            monkeypatch.setitem(sys.modules, name, None)  # what a missing one looks like

    with pytest.raises(ConfigurationError, match=rf'pip install "cookiesession\[{extra}\]"'):
        store_from_url(url)
