"""The store on a disk: the contract, the files it makes, and the files it is given."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import stat
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import START, Clock

from cookiesession import ConfigurationError, StoreUnavailable
from cookiesession.stores import KEY_LENGTH, Record, Store
from cookiesession.stores.file import FileStore, posix, recordfile
from cookiesession.testing.contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = bytes(range(KEY_LENGTH))
OTHER = bytes(range(1, KEY_LENGTH + 1))
SUBJECT = b"s" * KEY_LENGTH
RECORD = Record(b"sealed", 1, START + 60, SUBJECT)
LATER = Record(b"later", 2, START + 60)
LAYOUT = """
    63737265636f7264 01 01 0000000000000007 000000006b49d200 0000000000000006
    7373737373737373737373737373737373737373737373737373737373737373
    505c3204c66198f17a3e2d6515246b7a20986a87c77a3f9663585dfeaf47ee14
    7365616c6564
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store makes its directory."""
    return tmp_path / "sessions"


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Sets the umask of the process, and puts it back in the end."""
    before = os.umask(0)
    os.umask(before)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(before)


def opened(path: Path, clock: Callable[[], float] | None = None) -> FileStore:
    """A store whose clock stands still, and which waits longer than any busy machine needs."""
    return FileStore(path, timeout=timedelta(seconds=30), sync=False, clock=clock or Clock())


def file_of(path: Path, key: bytes = KEY) -> Path:
    """The file of a record."""
    return path / "records" / key.hex()[:2] / key.hex()


def files(path: Path) -> set[str]:
    """All that is no directory."""
    return {str(each.relative_to(path)) for each in path.rglob("*") if not each.is_dir()}


def said_by(call: Any) -> StoreUnavailable:
    """What a call says that the disk does not answer."""
    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(call)
    return caught.value


class TestFileStore(StoreContract):
    """The contract of all stores."""

    @pytest.fixture(autouse=True)
    def _place(self, path: Path) -> None:
        self._path = path

    async def open_store(self) -> Store:
        return FileStore(self._path, timeout=timedelta(seconds=30))


# The files it makes


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o177, 0o777], ids=oct)
def test_everything_belongs_to_its_owner_alone(path: Path, umask: Callable[[int], None], mask: int) -> None:
    """Whatever the umask is: neither more nor less. Case G88."""
    umask(mask)
    store = opened(path)

    asyncio.run(store.create(KEY, RECORD))
    asyncio.run(store.replace(KEY, RECORD._replace(version=2), 1))

    modes = {stat.S_IMODE(each.stat().st_mode) for each in [path, *path.rglob("*")] if each.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE((path / each).stat().st_mode) for each in files(path)} == {0o600}
    assert len(files(path)) == 2  # the record and its entry


def test_distinct_keys_are_distinct_files_everywhere(path: Path) -> None:
    """Also where "K", "k" and the Kelvin sign are one letter to the file system. Case G89."""
    store = opened(path)
    keys = [letter.encode().ljust(KEY_LENGTH, b"k") for letter in ("k", "K", "\u212a", "k-", "k45", "..", "/", "\0")]

    for key in keys:
        asyncio.run(store.create(key, LATER._replace(value=key)))

    assert len(keys) == len({name.casefold() for name in files(path)})
    assert all(set(name) <= set("records/0123456789abcdef") for name in files(path))
    assert keys == [asyncio.run(_value(store, key)) for key in keys]


async def _value(store: FileStore, key: bytes) -> bytes | None:
    record = await store.load(key)
    return None if record is None else record.value


@pytest.mark.parametrize("key", [b"", b"k", b"k" * 10_240, b"../x", b"\0", "k" * KEY_LENGTH, None, 7], ids=repr)
def test_key_of_another_length_never_touches_the_disk(tmp_path: Path, key: Any) -> None:
    """It is the caller's mistake, whatever state the disk is in. Case F69."""
    store = opened(tmp_path / "sessions")
    (tmp_path / "sessions").rename(tmp_path / "elsewhere")
    record = RECORD._replace(subject=key)

    calls: list[Any] = [store.load(key), store.create(key, LATER), store.replace(key, LATER, 1), store.delete(key)]
    if key is not None:  # which is nobody's
        calls += [store.find(key), store.create(KEY, record), store.replace(KEY, record, 1)]
    for call in calls:
        with pytest.raises(ValueError, match="is 32 bytes"):
            asyncio.run(call)


@pytest.mark.parametrize("record", [Record(b"", 0, 0), Record(b"", 2**63, 0), Record(b"", 1, 2**63)], ids=str)
def test_record_that_does_not_fit_is_the_callers_mistake(path: Path, record: Record) -> None:
    """And none of the disk's."""
    with pytest.raises(ValueError, match="from 1 to 2"):
        asyncio.run(opened(path).create(KEY, record))

    assert files(path) == set()


def test_layout_of_a_record_stays() -> None:
    """What one release writes, the next one reads."""
    record = Record(b"sealed", 7, START, SUBJECT)

    assert bytes.fromhex(LAYOUT).hex() == recordfile.pack(KEY, record).hex()
    assert record == recordfile.unpack(KEY, bytes.fromhex(LAYOUT))


def test_representation_shows_the_directory_alone(path: Path) -> None:
    """Which is no secret."""
    assert f"<FileStore {path}>" == repr(FileStore(str(path)))


# The files it is given


@pytest.mark.parametrize("subject", [SUBJECT, None], ids=["a subject", "nobody"])
def test_file_that_is_not_whole_is_no_record(subject: bytes | None) -> None:
    """Cut at any length, or with any bit turned: None, or another layout. Case G88."""
    content = recordfile.pack(KEY, RECORD._replace(subject=subject))
    layout = len(recordfile.MAGIC)
    turned = [
        content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
        for place in range(len(content))
        for bit in range(8)
        if place != layout
    ]
    cut = [content[:length] for length in range(len(content))]

    assert {recordfile.unpack(KEY, each) for each in [*turned, *cut, content + b"\0"]} == {None}
    with pytest.raises(StoreUnavailable, match="layout 0, of another release"):
        recordfile.unpack(KEY, content[:layout] + b"\0" + content[layout + 1 :])


@pytest.mark.parametrize("fields", [(1, 0, b"\0"), (2, 1, b"\0"), (0, 1, b"s"), (1, 2**63, b"\0")], ids=repr)
def test_header_that_is_never_written_is_no_record(fields: tuple[int, int, bytes]) -> None:
    """Also where its checksum is right."""
    owned, version, letter = fields
    header = recordfile._HEADER.pack(recordfile.MAGIC, 1, owned, version, START, 0, letter * KEY_LENGTH)

    assert recordfile.unpack(KEY, header + recordfile._checksum(KEY, header, b"")) is None


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b"csrecord", b"{}", b"x" * 10_000], ids=["0", "0s", "magic", "{}", "x"]
)
def test_garbage_is_no_record_and_makes_room(path: Path, content: bytes) -> None:
    """A power cut may leave a file of no bytes. Case G88."""
    store = opened(path)
    asyncio.run(store.create(KEY, RECORD))
    file_of(path).write_bytes(content)

    assert asyncio.run(store.load(KEY)) is None
    assert asyncio.run(store.replace(KEY, LATER, 1)) is False
    assert asyncio.run(store.find(SUBJECT)) == {}
    file_of(path).write_bytes(content)
    assert asyncio.run(store.delete(KEY)) is False
    file_of(path).write_bytes(content)
    assert asyncio.run(store.create(KEY, LATER)) is True
    assert asyncio.run(store.load(KEY)) == LATER


def test_file_of_another_key_is_no_record(path: Path) -> None:
    """Who swaps two files swaps no sessions. Case F78."""
    store = opened(path)
    asyncio.run(store.create(KEY, RECORD))
    file_of(path, OTHER).parent.mkdir(exist_ok=True)

    file_of(path, OTHER).write_bytes(file_of(path).read_bytes())

    assert asyncio.run(store.load(OTHER)) is None


def test_record_of_another_layout_is_left_alone(path: Path) -> None:
    """A newer release may run beside this one, and wants it back."""
    store = opened(path)
    asyncio.run(store.create(KEY, RECORD))
    content = file_of(path).read_bytes().replace(b"csrecord\1", b"csrecord\2")
    file_of(path).write_bytes(content)

    for call in (store.load(KEY), store.create(KEY, LATER), store.replace(KEY, LATER, 1), store.delete(KEY)):
        assert "layout 2, of another release" in str(said_by(call))
    said_by(store.find(SUBJECT))

    assert asyncio.run(store.purge()) == 0
    assert content == file_of(path).read_bytes()


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "fifo"])
def test_what_is_no_file_is_refused(
    path: Path, tmp_path: Path, kind: str, everything_said: Callable[[BaseException], str]
) -> None:
    """By every verb, and neither followed nor waited for nor changed; nor is the key told. Case G88."""
    store = opened(path)
    asyncio.run(store.create(KEY, RECORD))
    target = tmp_path / "target"
    place = file_of(path).replace(target)
    _put_in_its_place(kind, file_of(path), target)
    before = target.read_bytes() if target.exists() else None

    calls = (store.load(KEY), store.create(KEY, LATER), store.replace(KEY, LATER, 1), store.delete(KEY))
    said = [everything_said(said_by(call)) for call in (*calls, store.find(SUBJECT), store.purge())]

    assert place == target
    assert before == (target.read_bytes() if target.exists() else None)
    assert all(f"the store in {path} failed: " in each and KEY.hex() not in each for each in said)
    assert len(list(file_of(path).parent.iterdir())) == 1


def _put_in_its_place(kind: str, place: Path, target: Path) -> None:
    if kind == "link":
        place.symlink_to(target)
    elif kind == "dangling link":
        target.unlink()
        place.symlink_to(target)
    elif kind == "directory":
        place.mkdir()
    else:
        os.mkfifo(place)


def test_link_to_a_directory_of_records_is_refused(path: Path, tmp_path: Path) -> None:
    """Whoever can make one could show the files of another store. Case G88."""
    store = opened(path)
    asyncio.run(store.create(KEY, RECORD))
    shard = file_of(path).parent.rename(tmp_path / "shard")
    file_of(path).parent.symlink_to(shard)

    assert "Not a directory" in str(said_by(store.load(KEY)))


# The directory


def test_directory_that_is_gone_is_no_empty_store(path: Path, tmp_path: Path) -> None:
    """A disk that is not mounted signs nobody out, and works again when it is. Case G90."""
    store = opened(path)
    asyncio.run(store.create(KEY, RECORD))
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.mkdir()  # where it was mounted

    for call in (store.load(KEY), store.create(KEY, LATER), store.replace(KEY, LATER, 1), store.delete(KEY)):
        assert "No such file or directory" in str(said_by(call))
    said_by(store.find(SUBJECT))
    said_by(store.find(KEY))
    assert files(path) == set()
    path.rmdir()
    elsewhere.rename(path)

    assert asyncio.run(store.load(KEY)) == RECORD


@pytest.mark.parametrize("mode", [0o701, 0o770, 0o755, 0o1777], ids=oct)
def test_directory_of_others_is_a_configuration_error(path: Path, mode: int) -> None:
    """At construction, with what to do."""
    path.mkdir()
    path.chmod(mode)

    with pytest.raises(ConfigurationError, match="others than its owner may use it; chmod 700 it, or name one in it"):
        FileStore(path)

    assert list(path.iterdir()) == []


def test_directory_that_cannot_be_is_a_configuration_error(tmp_path: Path) -> None:
    """Under a directory that is not there, or a file."""
    (tmp_path / "file").touch(0o600)

    with pytest.raises(ConfigurationError, match="cannot be used for a store: No such file or directory"):
        FileStore(tmp_path / "missing" / "sessions")
    with pytest.raises(ConfigurationError, match="cannot be used for a store: Not a directory"):
        FileStore(tmp_path / "file")


@pytest.mark.parametrize("sync", ["no", None, 0], ids=repr)
def test_sync_is_true_or_false(path: Path, sync: Any) -> None:
    """A "no" from the environment would be true."""
    with pytest.raises(ConfigurationError, match="sync is True or False"):
        FileStore(path, sync=sync)


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=61), 1], ids=str)
def test_timeout_that_cannot_work_is_a_configuration_error(path: Path, timeout: Any) -> None:
    """At construction, before anything is made."""
    with pytest.raises(ConfigurationError, match="at most a minute"):
        FileStore(path, timeout=timeout)

    assert not path.exists()


def test_system_without_posix_locks_is_a_configuration_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the store does no harm there."""
    specification = importlib.util.spec_from_file_location("posix_elsewhere", posix.__file__)
    assert specification is not None
    assert specification.loader is not None
    elsewhere = importlib.util.module_from_spec(specification)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "fcntl", None)
        specification.loader.exec_module(elsewhere)

    monkeypatch.setattr("cookiesession.stores.file.LOCKING", elsewhere.LOCKING)

    with pytest.raises(ConfigurationError, match="which this system has not: use SQLStore"):
        FileStore(path)
