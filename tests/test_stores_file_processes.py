"""A store on a disk among processes: eight of them, at once, on one directory."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cookiesession import StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.file import FileStore
from cookiesession.stores.file.posix import directory, locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, SUBJECT = b"k" * KEY_LENGTH, b"s" * KEY_LENGTH
PROCESSES = 8
LIMIT = 60  # seconds, for one exercise on a busy machine

# Python 3.12 and newer warn of forks beside threads, which these children are too short-lived to be harmed by.
may_fork = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

WORKER = """
import asyncio, json, sys, time
from datetime import timedelta
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.file import FileStore

LIVES = 2**32 - 1
KEY, SUBJECT = b"k" * KEY_LENGTH, b"s" * KEY_LENGTH

async def increment(store, times):
    for _ in range(times):
        for _ in range(10_000):
            record = await store.load(KEY)
            value = b"%d" % (int(record.value) + 1)
            if await store.replace(KEY, Record(value, record.version + 1, LIVES, SUBJECT), record.version):
                break

async def create(store, name, count):
    keys = [bytes([number]) * KEY_LENGTH for number in range(count)]
    return [await store.create(key, Record(name.encode(), 1, LIVES, SUBJECT)) for key in keys]

async def race(store, name, count):
    won = []
    for number in range(count):
        key = bytes([number]) * KEY_LENGTH
        record = await store.load(key)
        if int(name) % 2:
            won.append(await store.delete(key))
        elif record is not None:
            await store.replace(key, record._replace(version=record.version + 1), record.version)
    return won

async def work(exercise, path, *arguments):
    return await globals()[exercise](FileStore(path, timeout=timedelta(seconds=60), sync=False), *arguments)

for line in sys.stdin:
    print(json.dumps(asyncio.run(work(*json.loads(line)))), flush=True)
"""


class Workers:
    """Processes that do what they are told, all at once."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self.processes = processes

    def do(self, exercise: str, path: Path, *arguments: Any, named: bool = True) -> list[Any]:
        """What each of them answers. Each gets its number as its name."""
        for number, process in enumerate(self.processes):
            assert process.stdin
            names = [str(number)] if named else []
            process.stdin.write(json.dumps([exercise, str(path), *names, *arguments]) + "\n")
        for process in self.processes:
            assert process.stdin
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self.processes if process.stdout]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Eight of them."""
    command = (sys.executable, "-W", "error", "-c", WORKER)
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own script
        for _ in range(PROCESSES)
    ]
    try:
        yield Workers(processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store that waits longer than any busy machine needs."""
    return FileStore(tmp_path / "sessions", timeout=timedelta(seconds=LIMIT), sync=False)


def living(value: bytes = b"0", version: int = 1) -> Record:
    """A record that outlives the test."""
    return Record(value, version, 2**32 - 1, SUBJECT)


def test_no_increment_of_eight_processes_is_lost(workers: Workers, store: FileStore) -> None:
    """Each reads, adds one, and replaces by version until it may: 200 are 200."""
    asyncio.run(store.create(KEY, living()))

    workers.do("increment", store.directory, 200 // PROCESSES, named=False)

    assert asyncio.run(store.load(KEY)) == living(b"200", 201)
    assert asyncio.run(store.find(SUBJECT)) == {KEY: living(b"200", 201)}


def test_one_of_eight_processes_creates(workers: Workers, store: FileStore) -> None:
    """Of each record, and it is the one that is there."""
    created = workers.do("create", store.directory, 50)

    for number in range(50):
        winners = [name for name, won in enumerate(created) if won[number]]
        record = asyncio.run(store.load(bytes([number]) * KEY_LENGTH))
        assert len(winners) == 1
        assert record == living(b"%d" % winners[0])
    assert len(asyncio.run(store.find(SUBJECT))) == 50


def test_deletion_wins_over_replacements_of_other_processes(workers: Workers, store: FileStore) -> None:
    """Four delete while four replace: nothing is left or comes back, and each deletion was one process's."""
    keys = [bytes([number]) * KEY_LENGTH for number in range(50)]
    for key in keys:
        asyncio.run(store.create(key, living()))

    won = workers.do("race", store.directory, 50)

    assert [asyncio.run(store.load(key)) for key in keys] == [None] * 50
    assert asyncio.run(store.find(SUBJECT)) == {}
    assert [sum(deleted) for deleted in zip(*won[1::2], strict=True)] == [1] * 50
    assert [each for each in store.directory.rglob("*") if not each.is_dir()] == []


def test_no_increment_of_two_hundred_tasks_is_lost(store: FileStore) -> None:
    """All at once; whoever comes second tries again, a little later and not in step with the others. Case F74."""
    apart = random.Random(74)  # noqa: S311  for no secret

    async def increment() -> None:
        for _ in range(1000):
            record = await store.load(KEY)
            assert record is not None
            later = living(b"%d" % (int(record.value) + 1), record.version + 1)
            if await store.replace(KEY, later, record.version):
                return
            await asyncio.sleep(apart.uniform(0, 0.5))
        raise AssertionError("too many conflicts")

    async def scenario() -> Record | None:
        await store.create(KEY, living())
        await asyncio.gather(*(increment() for _ in range(200)))
        return await store.load(KEY)

    assert asyncio.run(scenario()) == living(b"200", 201)


@may_fork
def test_process_that_is_forked_under_a_lock_does_not_keep_it(tmp_path: Path) -> None:
    """It has the descriptor, as long as it lives; the lock goes when its parent is done."""
    with directory(tmp_path) as descriptor, locked(descriptor, None):
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
    try:
        with directory(tmp_path) as descriptor, locked(descriptor, None):
            done = True
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    assert done


@may_fork
def test_process_that_is_stopped_holds_up_writers_of_its_directory_alone(store: FileStore) -> None:
    """Until their deadline; readers read, and when it is killed all is well. Cases G86 and G90."""
    hasty = FileStore(store.directory, timeout=timedelta(seconds=0.3), sync=False)
    elsewhere = b"e" * KEY_LENGTH
    asyncio.run(store.create(KEY, living()))
    shard = os.open(store.directory / "records" / KEY.hex()[:2], os.O_RDONLY)
    holder = os.fork()
    if holder == 0:
        while True:
            signal.pause()
    try:
        fcntl.flock(shard, fcntl.LOCK_EX)  # which the child, as it has the same descriptor, has too
        os.close(shard)
        os.kill(holder, signal.SIGSTOP)

        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.3 s"):
            asyncio.run(hasty.replace(KEY, living(b"1", 2), 1))
        waited = time.monotonic() - started
        read = asyncio.run(store.load(KEY))
        written = asyncio.run(store.create(elsewhere, living()))
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)

    assert waited < 5
    assert read == living()
    assert written is True
    assert asyncio.run(store.replace(KEY, living(b"1", 2), 1)) is True
