"""A store on a disk that fails, fills up or hangs, and processes that are killed: at every system call of every verb.

The system calls are made to fail by strace, in a process that was forked for one call.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest
from harness import START, Clock
from victims import STRACE, Victims, victims

from cookiesession import StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.file import FileStore
from cookiesession.stores.file.directory import RecordDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 100  # seconds, for one process

needs_strace = pytest.mark.skipif(
    STRACE is None and "CI" not in os.environ, reason="no strace on the PATH (Debian: apt install strace)"
)

KEY = bytes(range(KEY_LENGTH))
ANN, BOB = b"a" * KEY_LENGTH, b"b" * KEY_LENGTH
OLD = Record(b"old" * 100, 1, START + 60, ANN)
NEW = Record(b"new" * 2000, 2, START + 60, BOB)

VICTIM = """
import threading
from pathlib import Path
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.file.directory import RecordDirectory

START = 1_800_000_000
KEY = bytes(range(KEY_LENGTH))
ANN, BOB = b"a" * KEY_LENGTH, b"b" * KEY_LENGTH
OLD = Record(b"old" * 100, 1, START + 60, ANN)
NEW = Record(b"new" * 2000, 2, START + 60, BOB)

def in_place(path):  # what a store must not do
    with open(path / "records" / KEY.hex()[:2] / KEY.hex(), "wb", buffering=0) as file:
        for part in (b"csrecord", bytes(100), NEW.value):
            file.write(part)

def made(verb, path):
    records = RecordDirectory(path, sync=True, clock=lambda: START)
    given_up = threading.Event()
    if verb == "create":
        return records.create(KEY, OLD, given_up)
    if verb == "replace":
        return records.replace(KEY, NEW, 1, given_up)
    if verb == "delete":
        return records.delete(KEY, given_up)
    if verb == "load":
        return records.load(KEY) == OLD
    if verb == "find":
        return records.find(ANN, given_up) == {KEY: OLD}
    return in_place(path)

def call(verb, path):
    try:
        return 1 if made(verb, Path(path)) else 0
    except OSError:
        return 2
"""
NO, YES, FAILED, KILLED = 0, 1, 2, -9  # what the child says of the call

# The system calls that reach the disk, by all the names that they have on one system or another.
CALLS = "openat,mkdir,mkdirat,chmod,fchmod,fchmodat,write,fsync,flock,read,fstat,newfstatat,getdents64,close"
CALLS += ",rename,renameat,renameat2,unlink,unlinkat,rmdir"


class Fault(NamedTuple):
    """What happens at which system call of a kind, counted from 1."""

    name: str
    number: int
    effect: str  # as strace spells it


class Verbs:
    """What stores do, each time in a process in which a system call fails, or is the last."""

    def __init__(self, victims: Victims) -> None:
        self._victims = victims

    def call(self, verb: str, path: Path, *, fault: Fault | None = None, trace: Path | None = None) -> int:
        """What becomes of it."""
        inject = () if fault is None else ("-e", f"inject={fault.name}:{fault.effect}:when={fault.number}")
        shown = () if trace is None else ("-y",)  # files beside descriptors
        return self._victims.call((verb, str(path)), *shown, "-e", f"trace={CALLS}", *inject, log=trace)

    def faults(self, verb: str, path: Path, effect: str, names: str = CALLS) -> list[Fault]:
        """One for each system call of these names that a call makes."""
        trace = path.with_name("trace")
        self.call(verb, path, trace=trace)
        made = re.findall(r"^(\w+)\(", trace.read_text(), re.MULTILINE)
        return [
            Fault(name, made[: place + 1].count(name), effect)
            for place, name in enumerate(made)
            if name in names.split(",")
        ]


@pytest.fixture(scope="module")
def verbs() -> Iterator[Verbs]:
    """As many processes as are asked for."""
    assert STRACE, "CI has to install strace"
    with victims(VICTIM) as processes:
        yield Verbs(processes)


def put(path: Path, record: Record | None) -> RecordDirectory:
    """A directory with this record, or with none."""
    records = RecordDirectory(path, sync=False, clock=Clock())
    records.prepare()
    if record is not None:
        assert records.create(KEY, record, threading.Event())
    return records


BEFORE_AND_AFTER: dict[str, tuple[Record | None, Record | None]] = {
    "create": (None, OLD),
    "replace": (OLD, NEW),
    "delete": (OLD, None),
}
every_change = pytest.mark.parametrize("verb", BEFORE_AND_AFTER)


def examine(path: Path, verb: str, result: int) -> None:
    """The old record is there, or the new one; it is found; it can be changed; and nothing else stays for ever."""
    clock, given_up = Clock(), threading.Event()
    records = RecordDirectory(path, sync=False, clock=clock)
    before, after = BEFORE_AND_AFTER[verb]

    record = records.load(KEY)
    found = {subject: records.find(subject, given_up) for subject in (ANN, BOB)}
    if record is None:
        changed = records.create(KEY, OLD, given_up)
    else:
        changed = records.replace(KEY, record._replace(version=7), record.version, given_up)
    removed = records.delete(KEY, given_up)
    clock.now += 600
    records.purge(1000, given_up)

    assert record in ([after] if result == YES else [before, after])
    assert found == {subject: {KEY: record} if record and record.subject == subject else {} for subject in (ANN, BOB)}
    assert (changed, removed) == (True, True)
    assert [each for each in path.rglob("*") if not each.is_dir() or len(each.name) > 10] == []


@needs_strace
@every_change
def test_process_killed_at_any_system_call_leaves_the_old_record_or_the_new_one(
    verbs: Verbs, tmp_path: Path, verb: str
) -> None:
    """And no lock, and nothing that is not cleaned up. Case G88."""
    before, after = BEFORE_AND_AFTER[verb]
    put(tmp_path / "first", before)
    seen = set()

    faults = verbs.faults(verb, tmp_path / "first", "signal=KILL")
    for number, fault in enumerate(faults):
        path = tmp_path / str(number)
        put(path, before)
        result = verbs.call(verb, path, fault=fault)
        assert (fault, KILLED) == (fault, result)
        seen.add(put(path, None).load(KEY))
        examine(path, verb, result)

    assert {fault.name for fault in faults} >= {"flock", "fsync", "renameat" if after else "unlinkat"}
    assert seen == {before, after}


@needs_strace
@every_change
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_disk_that_fails_at_any_system_call_leaves_the_old_record_or_the_new_one(
    verbs: Verbs, tmp_path: Path, verb: str, error: str
) -> None:
    """And says so. The next call does what it is asked. Cases G88 and G90."""
    before, _ = BEFORE_AND_AFTER[verb]
    names = CALLS if error == "EIO" else "openat,mkdir,mkdirat,write,fsync,rename,renameat,renameat2"
    put(tmp_path / "first", before)

    for number, fault in enumerate(verbs.faults(verb, tmp_path / "first", f"error={error}", names)):
        path = tmp_path / str(number)
        put(path, before)
        result = verbs.call(verb, path, fault=fault)
        assert (fault, FAILED) == (fault, result)
        examine(path, verb, result)


@needs_strace
@pytest.mark.parametrize("verb", ["load", "find"])
def test_disk_that_fails_to_read_is_no_disk_without_the_record(verbs: Verbs, tmp_path: Path, verb: str) -> None:
    """Whichever system call it is: nobody is signed out by a broken disk."""
    path = tmp_path / "sessions"
    put(path, OLD)

    faults = verbs.faults(verb, path, "error=EIO", CALLS.replace(",close", ""))  # by then all has been read
    results = [verbs.call(verb, path, fault=fault) for fault in faults]

    assert results == [FAILED] * len(faults)
    assert len(faults) >= 5
    assert verbs.call(verb, path) == YES


@needs_strace
def test_writing_in_place_would_be_seen_here(verbs: Verbs, tmp_path: Path) -> None:
    """What kills a store that does is what the tests above look for."""
    seen = set()
    put(tmp_path / "first", OLD)

    for number, fault in enumerate(verbs.faults("in place", tmp_path / "first", "signal=KILL")):
        records = put(tmp_path / str(number), OLD)
        verbs.call("in place", tmp_path / str(number), fault=fault)
        seen.add(records.load(KEY))

    assert seen == {OLD, None}


@needs_strace
def test_everything_is_on_the_disk_in_its_order(verbs: Verbs, tmp_path: Path) -> None:
    """The entry and the whole new file before the name, and all before the answer. A power cut keeps what was said."""
    path, trace = tmp_path / "sessions", tmp_path / "trace"
    put(path, OLD)
    record, entry = f"{path}/records/00", f"{path}/subjects/62/{BOB.hex()}"

    verbs.call("replace", path, trace=trace)
    replaced = _order(trace)
    verbs.call("delete", path, trace=trace)
    deleted = _order(trace)

    assert replaced == [
        ("fsync", f"{record}/{KEY.hex()}.{START}"),
        ("fsync", f"{path}/subjects"),
        ("fsync", f"{path}/subjects/62"),
        ("fsync", entry),
        ("rename", record),
        ("unlink", f"{path}/subjects/61/{ANN.hex()}"),
        ("unlink", record),
        ("fsync", record),
    ]
    assert deleted == [("unlink", record), ("unlink", entry), ("fsync", record)]


def _order(trace: Path) -> list[tuple[str, str]]:
    """What was written, linked or removed in which directory, without the random end of a name."""
    lines = trace.read_text()
    return re.findall(r"^(fsync|rename|unlink)\w*\(\d+<([^.>]+(?:\.\d+)?)", lines, re.MULTILINE)


# A disk that hangs

HANGING = """
import asyncio, json, sys, threading, time
from datetime import timedelta
from cookiesession import StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record
from cookiesession.stores.file import FileStore

async def main():
    store = FileStore(sys.argv[1], timeout=timedelta(seconds=0.3))
    record = Record(b"sealed", 1, 2**32 - 1, b"s" * KEY_LENGTH)
    keys = [bytes([number]) * KEY_LENGTH for number in range(40)]
    started = time.monotonic()
    answers = await asyncio.gather(*(store.create(key, record) for key in keys), return_exceptions=True)
    waited = time.monotonic() - started
    threads = sum(thread.name == "cookiesession-store" for thread in threading.enumerate())
    others = await asyncio.to_thread(lambda: "free")
    tries = 0
    for tries in range(1000):
        try:
            await store.load(keys[0])
            break
        except StoreUnavailable:
            pass
    for thread in threading.enumerate():
        if thread.name == "cookiesession-store":
            thread.join(60)
    found = await store.find(record.subject)
    print(json.dumps([sorted({str(each) for each in answers}), waited, threads, others, tries, len(found)]))

asyncio.run(main())
"""


@needs_strace
def test_disk_that_hangs_holds_up_nobody_beyond_the_deadline(tmp_path: Path) -> None:
    """Few threads wait for it, asyncio's own do not, and late calls change nothing. Cases G86 and G90."""
    path = tmp_path / "sessions"
    put(path, None)
    fault = "inject=fsync:delay_enter=8s:when=1"  # in each thread

    trace = ("-f", "-qq", "-o", os.devnull, "-e", "trace=fsync", "-e", "signal=none", "-e", fault)
    command = (str(STRACE), *trace, sys.executable, "-W", "error", "-c", HANGING, str(path))
    process = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)  # noqa: S603
    answers, waited, threads, others, tries, found = json.loads(process.stdout)

    assert answers == ["the store did not answer within 0.3 s"]
    assert 0.3 <= waited < 8  # which is how long the disk hangs
    assert threads == 4
    assert others == "free"
    assert 1 <= tries < 1000
    assert found == 0
    assert list(path.rglob("*.*")) == []


# A disk that is full, or may not be written to


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, with the options that are asked for."""
    path = tmp_path / "disk"
    path.mkdir()
    options = f"{request.param},mode=700"
    mounted = _run("mount", "-t", "tmpfs", "-o", options, "cookiesession", str(path))
    if mounted is None or mounted.returncode:
        pytest.skip(f"this user may not mount a file system: {mounted.stderr.strip() if mounted else 'no mount'}")
    yield path
    assert _run("umount", str(path))


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)  # noqa: S603


@pytest.mark.parametrize("small_disk", ["size=1m", "nr_inodes=200"], indirect=True)
def test_full_disk_keeps_every_record_that_it_has(
    small_disk: Path, everything_said: Callable[[BaseException], str]
) -> None:
    """It takes no more until there is room, and nothing partial is left. Cases G88 and G90."""
    path = small_disk / "sessions"
    store = FileStore(path, timeout=timedelta(seconds=30), clock=Clock())
    record = Record(bytes(5000), 1, START + 60, ANN)
    keys = [bytes([number]) * KEY_LENGTH for number in range(256)]
    created: list[bytes] = []

    async def fill() -> None:
        for key in keys:
            await store.create(key, record)
            created.append(key)

    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(fill())
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.replace(keys[0], NEW._replace(value=bytes(2**20)), 1))
    loaded = [asyncio.run(store.load(key)) for key in keys]
    found = asyncio.run(store.find(ANN))
    said = everything_said(caught.value)

    assert f"the store in {path} failed: No space left on device" in said
    assert not any(key.hex() in said for key in keys)
    assert 30 < len(created) < 250
    assert loaded == [record] * len(created) + [None] * (256 - len(created))
    assert set(found) == set(created)
    assert list(path.rglob("*.*")) == []
    for key in created[:5]:
        assert asyncio.run(store.delete(key)) is True
    assert asyncio.run(store.create(keys[-1], record)) is True


@pytest.mark.parametrize("small_disk", ["size=1m"], indirect=True)
def test_disk_that_may_only_be_read_is_read(small_disk: Path) -> None:
    """What cannot be written is said to be so. Cases G88 and G90."""
    path = small_disk / "sessions"
    store = FileStore(path, timeout=timedelta(seconds=30), clock=Clock())
    asyncio.run(store.create(KEY, OLD))
    assert _run("mount", "-o", "remount,ro", str(small_disk))

    for call in (store.create(ANN, OLD), store.replace(KEY, NEW, 1), store.delete(KEY)):
        with pytest.raises(StoreUnavailable, match="failed: Read-only file system"):
            asyncio.run(call)
    loaded, found = asyncio.run(store.load(KEY)), asyncio.run(store.find(ANN))
    assert _run("mount", "-o", "remount,rw", str(small_disk))

    assert (loaded, found) == (OLD, {KEY: OLD})
    assert asyncio.run(store.replace(KEY, NEW, 1)) is True


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: see the read-only disk")
def test_directory_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    """What cannot be written is said to be so. Case G88."""
    path = tmp_path / "sessions"
    store = FileStore(path, timeout=timedelta(seconds=30), clock=Clock())
    asyncio.run(store.create(KEY, OLD))
    shard = path / "records" / KEY.hex()[:2]
    shard.chmod(0o500)

    for call in (store.replace(KEY, NEW, 1), store.delete(KEY)):
        with pytest.raises(StoreUnavailable, match="failed: Permission denied"):
            asyncio.run(call)
    shard.chmod(0o700)

    assert asyncio.run(store.load(KEY)) == OLD
    assert asyncio.run(store.replace(KEY, NEW, 1)) is True
