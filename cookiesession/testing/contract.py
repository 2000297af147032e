"""`StoreContract`: what a store promises, as tests for any store."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, Final

from cookiesession.stores import KEY_LENGTH, Record, Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_HOUR: Final = 3600  # seconds
_WRITERS: Final = 20  # at once


def _on_a_loop(test: Callable[[Any, Store], Awaitable[None]]) -> Callable[[Any], None]:
    """Makes a test of a coroutine, which gets a store and leaves it to be closed."""

    async def scenario(contract: StoreContract) -> None:
        store = await contract.open_store()
        try:
            await test(contract, store)
        finally:
            await store.aclose()

    def run(contract: StoreContract) -> None:
        asyncio.run(scenario(contract))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def _key() -> bytes:
    return os.urandom(KEY_LENGTH)


def _record(
    value: bytes = b"sealed", *, version: int = 1, expires_in: int = _HOUR, subject: bytes | None = None
) -> Record:
    return Record(value, version, int(time.time()) + expires_in, subject)


class StoreContract:
    """Subclass it in your tests, under a name that starts with `Test`, and say how to open a store.

    Every test opens a store on an event loop of its own, and closes it. What earlier tests left there does no harm. For
    pytest, or whatever else calls the methods whose names start with `test_`.

        class TestMyStore(StoreContract):
            async def open_store(self) -> Store:
                return MyStore("/var/lib/sessions")
    """

    async def open_store(self) -> Store:
        """A store on the storage under test, opened anew."""
        raise NotImplementedError("say how to open a store: open_store()")

    def test_it_is_a_store(self) -> None:
        """With every method of the protocol."""

        async def scenario() -> None:
            store = await self.open_store()
            await store.aclose()
            assert isinstance(store, Store)

        asyncio.run(scenario())

    # One record

    @_on_a_loop
    async def test_nothing_is_where_nothing_was_put(self, store: Store) -> None:
        """An unknown key is no error, for any verb."""
        key = _key()

        assert await store.load(key) is None
        assert await store.replace(key, _record(version=2), 1) is False
        assert await store.delete(key) is False
        assert await store.find(_key()) == {}
        assert await store.load(key) is None

    @_on_a_loop
    async def test_record_comes_back_as_it_was_put(self, store: Store) -> None:
        """With every field."""
        key, record = _key(), _record(subject=_key())

        created = await store.create(key, record)

        assert created is True
        assert await store.load(key) == record

    @_on_a_loop
    async def test_any_bytes_are_a_value(self, store: Store) -> None:
        """None at all, zeros, every byte there is, and a megabyte of them."""
        for value in (b"", b"\0", b"\0\r\n'\"", bytes(range(256)), os.urandom(2**20)):
            key, record = _key(), _record(value)

            await store.create(key, record)

            assert await store.load(key) == record

    @_on_a_loop
    async def test_any_bytes_are_a_key(self, store: Store) -> None:
        """Keys that a file system, a database or a text might take for one another are several."""
        tails = (b"\0\0", b"\0", b"kK", b"KK", b"Kk", b"..", b"./", b"/.", b"%_", b"\xff\xfe", b"\r\n", b"  ")
        start = os.urandom(KEY_LENGTH - 2)
        keys = {start + tail.ljust(2, b"\1") for tail in tails}

        for key in keys:
            await store.create(key, _record(key))

        assert {key: record.value for key in keys if (record := await store.load(key))} == {key: key for key in keys}

    @_on_a_loop
    async def test_largest_version_and_last_second_come_back(self, store: Store) -> None:
        """2^63 - 1, and the year 2106."""
        key, record = _key(), Record(b"sealed", 2**63 - 1, 2**32 - 1)

        await store.create(key, record)

        assert await store.load(key) == record
        assert await store.replace(key, _record(version=1), 2**63 - 2) is False
        assert await store.replace(key, _record(version=1), 2**63 - 1) is True

    @_on_a_loop
    async def test_record_is_not_created_over_another(self, store: Store) -> None:
        """The first one stays as it was."""
        key, first = _key(), _record(b"first", subject=_key())
        await store.create(key, first)

        created = await store.create(key, _record(b"second", version=7, subject=_key()))

        assert created is False
        assert await store.load(key) == first

    @_on_a_loop
    async def test_record_is_replaced_by_its_version(self, store: Store) -> None:
        """With all its fields."""
        key, later = _key(), _record(b"later", version=2, expires_in=2 * _HOUR)
        await store.create(key, _record(subject=_key()))

        replaced = await store.replace(key, later, 1)

        assert replaced is True
        assert await store.load(key) == later

    @_on_a_loop
    async def test_record_is_not_replaced_by_another_version(self, store: Store) -> None:
        """Whoever comes second is told, and changes nothing."""
        key, second = _key(), _record(b"second", version=2)
        await store.create(key, _record(b"first"))
        await store.replace(key, second, 1)

        replaced = await store.replace(key, _record(b"late", version=2), 1)

        assert replaced is False
        assert await store.load(key) == second

    @_on_a_loop
    async def test_deleted_record_is_not_revived(self, store: Store) -> None:
        """A slow request that saves after a logout saves nothing."""
        key = _key()
        await store.create(key, _record())

        deleted = await store.delete(key)

        assert deleted is True
        assert await store.replace(key, _record(version=2), 1) is False
        assert await store.load(key) is None
        assert await store.delete(key) is False

    @_on_a_loop
    async def test_deleting_one_record_leaves_the_others(self, store: Store) -> None:
        """Those of the same subject too."""
        subject, key, other, record = _key(), _key(), _key(), _record()
        record = record._replace(subject=subject)
        await store.create(key, record)
        await store.create(other, record)

        await store.delete(key)

        assert await store.find(subject) == {other: record}

    # Time

    @_on_a_loop
    async def test_expired_record_is_nowhere_to_be_seen(self, store: Store) -> None:
        """In the second it names, it is gone. Another may take its place."""
        key, subject = _key(), _key()
        await store.create(key, _record(expires_in=0, subject=subject))

        assert await store.load(key) is None
        assert await store.find(subject) == {}
        assert await store.replace(key, _record(version=2), 1) is False
        assert await store.delete(key) is False
        assert await store.create(key, _record(b"another")) is True

    @_on_a_loop
    async def test_replacement_moves_the_end(self, store: Store) -> None:
        """To a later second, and to one that is past."""
        key, subject, later = _key(), _key(), _record(version=2, expires_in=48 * _HOUR)
        await store.create(key, _record(subject=subject))

        await store.replace(key, later, 1)
        lives = await store.load(key)
        await store.replace(key, _record(version=3, expires_in=-_HOUR, subject=subject), 2)

        assert lives == later
        assert await store.load(key) is None
        assert await store.find(subject) == {}

    # Subjects

    @_on_a_loop
    async def test_subject_has_all_its_records_and_no_others(self, store: Store) -> None:
        """Whether they were created or replaced with it."""
        subject, keys = _key(), [_key() for _ in range(5)]
        for number, key in enumerate(keys):
            await store.create(key, _record(b"%d" % number, subject=subject if number < 3 else None))
        await store.create(_key(), _record(subject=_key()))
        await store.replace(keys[3], _record(b"3", version=2, subject=subject), 1)

        found = await store.find(subject)

        assert {key: record.value for key, record in found.items()} == {keys[n]: b"%d" % n for n in range(4)}

    @_on_a_loop
    async def test_record_changes_hands(self, store: Store) -> None:
        """It is no longer its old subject's, and may be nobody's."""
        key, first, second = _key(), _key(), _key()
        await store.create(key, _record(subject=first))

        await store.replace(key, _record(version=2, subject=second), 1)
        moved = set(await store.find(first)), set(await store.find(second))
        await store.replace(key, _record(version=3), 2)

        assert moved == (set(), {key})
        assert await store.find(second) == {}
        assert await store.load(key) is not None

    # Many at once

    @_on_a_loop
    async def test_one_of_many_creates(self, store: Store) -> None:
        """However many try at once."""
        key = _key()

        created = await asyncio.gather(*(store.create(key, _record(b"%d" % n)) for n in range(_WRITERS)))

        winner = created.index(True)
        assert created.count(True) == 1
        assert (await store.load(key) or _record()).value == b"%d" % winner

    @_on_a_loop
    async def test_one_of_many_replaces(self, store: Store) -> None:
        """The others are told, and can try again with the newest record: no update is lost."""
        key = _key()
        await store.create(key, _record(b"0"))

        async def increment() -> None:
            for _ in range(_WRITERS + 1):  # pragma: no branch - likewise
                present = await store.load(key)
                assert present is not None
                value = b"%d" % (int(present.value) + 1)
                if await store.replace(key, _record(value, version=present.version + 1), present.version):
                    return
            raise AssertionError("more conflicts than writers")  # pragma: no cover - where updates are lost

        await asyncio.gather(*(increment() for _ in range(_WRITERS)))

        assert (await store.load(key) or _record()).value == b"%d" % _WRITERS

    @_on_a_loop
    async def test_deletion_wins_over_replacements(self, store: Store) -> None:
        """Whatever their order, nothing is left."""
        key = _key()
        await store.create(key, _record())

        async def replace(version: int) -> None:
            await store.replace(key, _record(version=version + 1), version)

        await asyncio.gather(*(replace(n) for n in range(1, 6)), store.delete(key), *(replace(n) for n in range(1, 6)))

        assert await store.load(key) is None

    @_on_a_loop
    async def test_cancelled_calls_leave_the_store_usable(self, store: Store) -> None:
        """And give nobody the answer to another's question."""
        keys = [_key() for _ in range(_WRITERS)]
        for key in keys:
            await store.create(key, _record(key))

        for key in keys:
            task = asyncio.ensure_future(store.load(key))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert [(await store.load(key) or _record()).value for key in keys] == keys

    @_on_a_loop
    async def test_another_store_object_sees_the_same(self, store: Store) -> None:
        """Another process, or this one after a restart. A store in memory alone overrides this test."""
        key, record = _key(), _record(subject=_key())
        await store.create(key, record)

        other = await self.open_store()
        try:
            seen = await other.load(key)
        finally:
            await other.aclose()

        assert seen == record
