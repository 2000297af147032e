"""The store in memory: the contract, its bound, and what a million records cost."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness import START, Clock

from cookiesession import ConfigurationError, StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record, Store
from cookiesession.stores.memory import MemoryStore
from cookiesession.testing.contract import StoreContract

SUBJECT = bytes(KEY_LENGTH)


def key_of(number: int) -> bytes:
    """One key for each number."""
    return number.to_bytes(KEY_LENGTH, "big")


class TestMemoryStore(StoreContract):
    """The contract of all stores."""

    async def open_store(self) -> Store:
        return MemoryStore()

    def test_another_store_object_sees_the_same(self) -> None:
        """It sees nothing: this one is gone with its process."""
        store, other = MemoryStore(), MemoryStore()
        asyncio.run(store.create(key_of(1), Record(b"sealed", 1, 2**32 - 1)))

        assert asyncio.run(other.load(key_of(1))) is None


def test_contract_needs_a_store() -> None:
    """Whoever forgets to say how to open one is told."""
    with pytest.raises(NotImplementedError, match=r"open_store\(\)"):
        StoreContract().test_it_is_a_store()


def test_full_store_takes_no_more_until_something_ends() -> None:
    """Nobody else is signed out to make room."""

    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(max_records=2, clock=clock)
        await store.create(key_of(1), Record(b"", 1, START + 60))
        await store.create(key_of(2), Record(b"", 1, START + 120))

        with pytest.raises(StoreUnavailable, match="holds 2 records, and takes no more"):
            await store.create(key_of(3), Record(b"", 1, START + 60))
        replaced = await store.replace(key_of(2), Record(b"", 2, START + 180), 1)
        clock.now += 60
        created = await store.create(key_of(3), Record(b"", 1, START + 120))

        assert (replaced, created, len(store)) == (True, True, 2)

    asyncio.run(scenario())


def test_record_ends_in_its_second() -> None:
    """By the clock of the store."""

    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        await store.create(key_of(1), Record(b"", 1, START + 60, SUBJECT))

        clock.now += 59
        before = await store.find(SUBJECT)
        clock.now += 1

        assert list(before) == [key_of(1)]
        assert await store.load(key_of(1)) is None
        assert await store.find(SUBJECT) == {}
        assert len(store) == 0

    asyncio.run(scenario())


def test_end_of_many_holds_up_no_single_call() -> None:
    """A few of them go with each call, and none is seen any more."""

    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(max_records=1000, clock=clock)
        for number in range(1000):
            await store.create(key_of(number), Record(b"", 1, START + 60, SUBJECT))
        clock.now += 60

        seen = await store.load(key_of(999)), await store.find(SUBJECT), await store.delete(key_of(998))
        places = len(store._queue)
        await store.load(key_of(1))

        assert seen == (None, {}, False)
        assert places - len(store._queue) <= 8
        assert await store.create(key_of(5), Record(b"", 1, START + 120))
        assert len(store) == 1

    asyncio.run(scenario())


def test_replacements_do_not_make_it_grow() -> None:
    """A session used for a year is one record, and a bounded number of places in the queue."""

    async def scenario() -> None:
        store = MemoryStore(clock=Clock())
        await store.create(key_of(1), Record(b"", 1, START + 60))

        for version in range(1, 10_000):
            await store.replace(key_of(1), Record(b"", version + 1, START + 60 + version, SUBJECT), version)

        assert len(store) == 1
        assert len(store._queue) < 200
        assert (await store.load(key_of(1)) or Record(b"", 0, 0)).version == 10_000

    asyncio.run(scenario())


def test_full_store_finds_the_one_that_has_ended() -> None:
    """Behind however much that is no longer true."""

    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(max_records=2, clock=clock)
        await store.create(key_of(1), Record(b"", 1, START + 1))
        await store.create(key_of(2), Record(b"", 1, START + 15_500))
        for version in range(1, 21):
            await store.replace(key_of(1), Record(b"", version + 1, START + version * 1000), version)

        clock.now += 29
        with pytest.raises(StoreUnavailable):
            await store.create(key_of(3), Record(b"", 1, START + 60))
        clock.now += 20 * 1000 - 30

        assert await store.create(key_of(3), Record(b"", 1, START + 60_000))
        assert [key_of(1), key_of(3)] == list(store._records)

    asyncio.run(scenario())


def test_no_replacement_takes_long() -> None:
    """Whatever is no longer true of the queue is left behind in many small steps."""

    async def scenario() -> None:
        clock, count = Clock(), 1000
        store = MemoryStore(clock=clock)
        for number in range(count):
            await store.create(key_of(number), Record(b"", 1, START + 60))
        steps, places = [], []

        for version in range(1, 10):
            for number in range(count):
                before = len(store._former)
                await store.replace(key_of(number), Record(b"", version + 1, START + 60 + version), version)
                steps.append(before - len(store._former))
                places.append(len(store._queue) + len(store._former))

        assert max(steps) == 4
        assert max(places) < 4 * count
        assert store._former  # it ends in the midst of it
        clock.now += 68
        assert len(store) == count
        clock.now += 1
        assert len(store) == 0
        assert [] == store._queue == store._former

    asyncio.run(scenario())


def test_what_is_over_leaves_nothing() -> None:
    """Neither records nor subjects nor places in the queue."""

    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        for number in range(1000):
            await store.create(key_of(number), Record(b"", 1, START + number % 7 + 1, key_of(number % 10)))
            if number % 3 == 0:
                await store.delete(key_of(number))

        clock.now += 7

        assert len(store) == 0
        assert (store._records, store._subjects, store._queue) == ({}, {}, [])

    asyncio.run(scenario())


@pytest.mark.parametrize("bound", [0, -1, 1.5, None], ids=str)
def test_bound_that_cannot_work_is_a_configuration_error(bound: Any) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match="max_records is a number of at least 1"):
        MemoryStore(max_records=bound)


def test_representation_shows_the_bound_alone() -> None:
    """No key, no value."""
    assert repr(MemoryStore(5)) == "<MemoryStore of at most 5>"


class SlowVersion(int):
    """A version that lets other threads go on while it is compared, as the interpreter may at any time."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        time.sleep(0.02)
        return int(self) != other

    __eq__ = int.__eq__
    __hash__ = int.__hash__


def test_threads_do_not_come_between_each_other() -> None:
    """Of several that replace one version at once, one does."""
    store, threads = MemoryStore(), 4
    asyncio.run(store.create(key_of(1), Record(b"", SlowVersion(1), 2**32 - 1)))
    start = threading.Barrier(threads)

    def replace(number: int) -> bool:
        start.wait()
        return asyncio.run(store.replace(key_of(1), Record(b"%d" % number, 2, 2**32 - 1), 1))

    with ThreadPoolExecutor(threads) as pool:
        replaced = list(pool.map(replace, range(threads)))

    assert replaced.count(True) == 1
    record = asyncio.run(store.load(key_of(1)))
    assert record is not None
    assert record.value == b"%d" % replaced.index(True)
