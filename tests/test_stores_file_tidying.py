"""What a store on a disk does about what is over: records that have expired, and what crashes have left."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from harness import START, Clock

from cookiesession import StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.file import FileStore
from cookiesession.stores.file.directory import RecordDirectory
from cookiesession.stores.file.subjects import SubjectIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUBJECT, STRANGER = b"s" * KEY_LENGTH, b"t" * KEY_LENGTH
MINUTE = 60  # seconds: what a record lives here
WAIT = 30  # seconds, for one thing to happen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store makes its directory."""
    return tmp_path / "sessions"


@pytest.fixture
def clock() -> Clock:
    """The time of the store."""
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> FileStore:
    """A store that waits longer than any busy machine needs."""
    return FileStore(path, timeout=timedelta(seconds=WAIT), sync=False, clock=clock)


def key_of(number: int, *, last: int = 1) -> bytes:
    """One key for each number, spread as hashes are; only one in 256 of which ends in 0."""
    return bytes([number % 256]) + number.to_bytes(KEY_LENGTH - 2, "big") + bytes([last])


def record(*, version: int = 1, subject: bytes | None = SUBJECT) -> Record:
    """A record that lives for a minute."""
    return Record(b"sealed", version, START + MINUTE, subject)


def files(path: Path) -> list[str]:
    """All that is no directory, by its kind. Other threads may remove it meanwhile."""
    return sorted(kind for kind in ("records", "subjects") for _, _, names in os.walk(path / kind) for _ in names)


def entry_of(path: Path, subject: bytes, key: bytes) -> Path:
    """The file by which a subject has a key."""
    return path / "subjects" / subject.hex()[:2] / subject.hex() / key.hex()


def file_of(path: Path, key: bytes) -> Path:
    """The file of a record."""
    return path / "records" / key.hex()[:2] / key.hex()


def fill(store: FileStore, count: int) -> None:
    """Makes records, in an order that is not that of their keys."""

    async def scenario() -> None:
        await asyncio.gather(*(store.create(key_of(number), record()) for number in reversed(range(count))))

    asyncio.run(scenario())


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The lock of a directory, as another process has it that was stopped."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_rest(store: FileStore) -> bool:
    """Whether no thread of a store has, or is about to have, anything to do."""
    crew = store._threads._crew
    with crew._changed:
        return not crew._waiting and crew._running == crew._idle


# Expired records


def test_expired_records_are_removed_with_their_entries(store: FileStore, path: Path, clock: Clock) -> None:
    """And no other: to the second."""
    fill(store, 10)
    asyncio.run(store.create(key_of(10), record(subject=None)._replace(expires_at=START + MINUTE + 1)))

    clock.now += MINUTE - 1
    early = asyncio.run(store.purge())
    clock.now += 1
    removed = asyncio.run(store.purge())

    assert (early, removed) == (0, 10)
    assert files(path) == ["records"]
    assert list((path / "subjects").glob("*/*")) == []


def test_purge_goes_round_in_bounded_batches(store: FileStore, path: Path, clock: Clock) -> None:
    """Each looks at the next names, however many there are, and none is left out."""
    fill(store, 30)

    looked_at_the_living = [asyncio.run(store.purge(7)) for _ in range(7)]
    clock.now += MINUTE
    removed = [asyncio.run(store.purge(7)) for _ in range(10)]

    assert looked_at_the_living == [0] * 7
    assert max(removed) == 7
    assert sum(removed) == 30
    assert files(path) == []


def test_creation_tidies_beside_itself(store: FileStore, path: Path, clock: Clock) -> None:
    """One in 256, by its key, when its caller has been answered: nobody has to call `purge()`."""
    fill(store, 20)
    clock.now += MINUTE
    late = record(subject=None)._replace(expires_at=START + 2 * MINUTE)

    asyncio.run(store.create(key_of(100), late))
    before = files(path)
    asyncio.run(store.create(key_of(5, last=0), late))

    assert before == ["records"] * 21 + ["subjects"] * 20
    until(lambda: files(path) == ["records"] * 2)


def test_creation_that_tidies_goes_around_what_is_in_the_way(store: FileStore, path: Path, clock: Clock) -> None:
    """A lock that is held, and what is no file: those can wait."""
    fill(store, 20)
    clock.now += MINUTE
    file_of(path, key_of(3)).unlink()
    file_of(path, key_of(3)).mkdir()
    late = record(subject=None)._replace(expires_at=START + 2 * MINUTE)

    with held(file_of(path, key_of(7)).parent):
        asyncio.run(store.create(key_of(5, last=0), late))
        until(lambda: at_rest(store))

    assert files(path) == ["records", "records", "subjects", "subjects"]
    assert file_of(path, key_of(7)).exists()


def test_record_that_is_renewed_meanwhile_is_not_removed(path: Path, clock: Clock) -> None:
    """Whoever finds it expired looks again when the lock is theirs."""
    records = RecordDirectory(path, sync=False, clock=clock)
    records.prepare()
    given_up = threading.Event()
    key = key_of(1)
    records.create(key, record(), given_up)
    clock.now += MINUTE

    with held(file_of(path, key).parent):
        purging = threading.Thread(target=records.purge, args=(10, given_up))
        purging.start()
        purging.join(0.05)
        waited = purging.is_alive()
        clock.now -= MINUTE  # as good as a replacement, and without the lock
    purging.join(WAIT)

    assert waited
    assert records.load(key) == record()
    assert records.find(SUBJECT, given_up) == {key: record()}


def test_entry_of_a_record_that_comes_meanwhile_is_not_dropped(path: Path, clock: Clock) -> None:
    """Whoever finds none looks again when the lock is theirs."""
    records = RecordDirectory(path, sync=False, clock=clock)
    records.prepare()
    given_up = threading.Event()
    key = key_of(1)
    records.create(key, record(), given_up)
    elsewhere = file_of(path, key).rename(path / "elsewhere")

    with held(file_of(path, key).parent):
        purging = threading.Thread(target=records.purge, args=(10, given_up))
        purging.start()
        purging.join(0.05)
        waited = purging.is_alive()
        elsewhere.rename(file_of(path, key))  # as a writer does, who has the lock
    purging.join(WAIT)

    assert waited
    assert records.find(SUBJECT, given_up) == {key: record()}


# What crashes leave


def test_temporary_file_is_removed_when_it_is_abandoned(store: FileStore, path: Path, clock: Clock) -> None:
    """Ten minutes after it was begun, by the clock of the store, and also where the clock was set back."""
    fill(store, 1)
    shard = file_of(path, key_of(0)).parent
    now = shard / f"{key_of(0).hex()}.{START}.0123456789abcdef"
    future = shard / f"{key_of(0).hex()}.{START + 3600}.0123456789abcdef"
    foreign = {shard / "README", shard / "x.1.y", shard / f"{key_of(0).hex()}.x.y", path / "subjects" / "73" / "README"}
    for each in (now, future, *foreign):
        each.touch()

    at_once = asyncio.run(store.purge())
    left = {each for each in (now, future) if each.exists()}
    clock.now += 600
    later = asyncio.run(store.purge())

    assert (at_once, left) == (1, {now})
    assert later == 2  # with the record, which has expired
    assert not now.exists()
    assert all(each.exists() for each in foreign)


def test_garbage_is_removed(store: FileStore, path: Path) -> None:
    """And its entry: both are counted."""
    fill(store, 2)
    file_of(path, key_of(0)).write_bytes(b"")

    assert asyncio.run(store.purge()) == 2
    assert files(path) == ["records", "subjects"]


def test_call_that_is_given_up_changes_nothing(path: Path, clock: Clock) -> None:
    """Its caller has been told already that the disk did not answer."""
    records = RecordDirectory(path, sync=False, clock=clock)
    records.prepare()
    given_up = threading.Event()
    records.create(key_of(1), record(), given_up)
    before = files(path)
    given_up.set()

    for call in (
        lambda: records.create(key_of(2), record(), given_up),
        lambda: records.create(key_of(2), record(subject=None), given_up),
        lambda: records.replace(key_of(1), record(version=2), 1, given_up),
        lambda: records.find(SUBJECT, given_up),
        lambda: records.purge(10, given_up),
    ):
        with pytest.raises(TimeoutError):
            call()

    assert before == files(path)
    assert records.load(key_of(1)) == record()


# The index of subjects


def test_entries_of_nothing_are_dropped_by_who_finds_them(store: FileStore, path: Path) -> None:
    """A crash between the entry and its record leaves one; so does one between a deleted record and its entry."""
    fill(store, 2)
    file_of(path, key_of(0)).unlink()
    nowhere = key_of(77)
    entry_of(path, SUBJECT, nowhere).touch()

    found = asyncio.run(store.find(SUBJECT))

    assert found == {key_of(1): record()}
    assert [each.name for each in entry_of(path, SUBJECT, nowhere).parent.iterdir()] == [key_of(1).hex()]


def test_entries_of_other_subjects_are_dropped(store: FileStore, path: Path) -> None:
    """A crash after a record has changed hands leaves one. The record stays where it belongs."""
    fill(store, 1)
    for _ in range(2):
        entry = entry_of(path, STRANGER, key_of(0))
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()
        if not asyncio.run(store.find(STRANGER)):  # the first time by find(), the second by purge()
            assert not entry.parent.exists()
            entry.parent.mkdir()
            entry.touch()

        assert asyncio.run(store.purge()) == 1
        assert not entry.parent.exists()

    assert asyncio.run(store.find(SUBJECT)) == {key_of(0): record()}


def test_subject_of_no_keys_leaves_nothing(store: FileStore, path: Path) -> None:
    """A crash between its directory and the first entry."""
    entry_of(path, SUBJECT, key_of(0)).parent.mkdir(parents=True)

    assert asyncio.run(store.find(SUBJECT)) == {}
    assert asyncio.run(store.purge()) == 0
    assert list((path / "subjects").glob("*/*")) == []


def test_expired_record_goes_with_its_entry(store: FileStore, path: Path, clock: Clock) -> None:
    """If the clock is set back then, the record is not one that lives and cannot be found. Case F76."""
    fill(store, 1)
    clock.now += MINUTE

    assert asyncio.run(store.find(SUBJECT)) == {}
    clock.now -= 3600

    assert asyncio.run(store.load(key_of(0))) is None
    assert files(path) == []


def test_finding_needs_no_lock(store: FileStore, path: Path) -> None:
    """Where the dead cannot be dropped now, the living are found all the same."""
    fill(store, 2)
    file_of(path, key_of(0)).unlink()

    with held(file_of(path, key_of(0)).parent):
        found = asyncio.run(store.find(SUBJECT))

    assert found == {key_of(1): record()}
    assert entry_of(path, SUBJECT, key_of(0)).exists()


def test_finding_opens_no_others_records(store: FileStore, path: Path) -> None:
    """Its cost is that of one subject. Any other record would be refused here."""
    fill(store, 10)
    for number in range(20, 30):
        asyncio.run(store.create(key_of(number), record(subject=STRANGER)))
    for number in range(10):
        file_of(path, key_of(number)).unlink()
        file_of(path, key_of(number)).mkdir()

    assert asyncio.run(store.find(STRANGER)) == {key_of(number): record(subject=STRANGER) for number in range(20, 30)}
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.find(SUBJECT))


def test_entry_is_made_while_its_directory_comes_and_goes(tmp_path: Path) -> None:
    """The last key of a subject may be dropped in the moment in which another is added."""
    index = SubjectIndex(tmp_path, sync=False)
    stop, given_up = threading.Event(), threading.Event()

    def prune() -> None:
        while not stop.wait(0.001):  # or on some Pythons nothing else would get a turn
            for _ in range(100):
                index.prune(SUBJECT)

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        missing = []
        for number in range(200):
            index.add(SUBJECT, key_of(number), given_up)
            missing += [] if key_of(number) in index.keys(SUBJECT) else [number]
            index.drop(SUBJECT, key_of(number))
    finally:
        stop.set()
        pruning.join(WAIT)

    assert missing == []


def test_index_that_is_no_directory_is_no_answer(store: FileStore, path: Path) -> None:
    """Nor is it removed."""
    fill(store, 2)
    directory = entry_of(path, SUBJECT, key_of(0)).parent
    directory.rename(path / "elsewhere")
    directory.write_bytes(b"")

    for call in (store.find(SUBJECT), store.delete(key_of(0)), store.purge()):
        with pytest.raises(StoreUnavailable, match="Not a directory"):
            asyncio.run(call)
    assert asyncio.run(store.purge(1)) == 0  # goes on behind it
    assert directory.is_file()
