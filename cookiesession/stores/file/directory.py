"""`RecordDirectory`: records as files, and what happens to them. It blocks, and is called from threads."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from cookiesession.errors import StoreUnavailable
from cookiesession.stores.file import recordfile
from cookiesession.stores.file.places import RECORDS, START, SUBJECTS, places
from cookiesession.stores.file.posix import (
    directory,
    existing_file,
    go_on,
    locked,
    make_directory,
    open_directory,
    permissions,
    read,
    remove,
    temporary_file,
)
from cookiesession.stores.file.subjects import SubjectIndex, key_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cookiesession.stores import Record

_OTHERS: Final = 0o077  # permissions of anybody but the owner
_ABANDONED_AFTER: Final = 600  # seconds: ten times what a write may take


class RecordDirectory:
    """`records/<two digits>/<key>` and a `SubjectIndex`, `subjects`.

    A record is written to a file of another name, and gets its own by `rename()`, under the lock of its directory.
    Those who read need no lock: they find the old file or the new one. `given_up` is set when nobody waits any longer:
    then nothing is begun that has not been.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: bool,
        clock: Callable[[], float],
        token: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._path: Final = path
        self._sync: Final = sync
        self._clock: Final = clock
        self._token: Final = token
        self._shards: Final = [path / RECORDS / f"{number:02x}" for number in range(256)]
        self._subjects: Final = SubjectIndex(path / SUBJECTS, sync=sync)
        self._purged = START

    def prepare(self) -> None:
        """Makes the directories of which there is only one. Later they have to be there: a disk may be unmounted."""
        make_directory(self._path, sync=self._sync)
        if permissions(self._path) & _OTHERS:
            problem = "others than its owner may use it; chmod 700 it, or name one in it, which will be made"
            raise PermissionError(errno.EPERM, problem)
        for path in (self._path / RECORDS, self._path / SUBJECTS):
            make_directory(path, sync=self._sync)

    def load(self, key: bytes) -> Record | None:
        """The record that lives under a key."""
        with self._shard(key) as shard:
            return None if shard is None else self._living(_read(shard, key))

    def create(self, key: bytes, record: Record, given_up: threading.Event) -> bool:
        """Puts a record where none lives."""
        self._make_shard(key)
        return self._put(key, record, lambda present: present is None, given_up)

    def replace(self, key: bytes, record: Record, expected_version: int, given_up: threading.Event) -> bool:
        """Puts a record in the place of the one that lives with this version."""
        return self._put(
            key, record, lambda present: present is not None and present.version == expected_version, given_up
        )

    def delete(self, key: bytes, given_up: threading.Event) -> bool:
        """Removes the record under a key."""
        with self._shard(key) as shard:
            if shard is None:
                return False
            with locked(shard, given_up):
                present = _read(shard, key)
                removed = self._remove(shard, key, present)
            if removed and self._sync:
                os.fsync(shard)
            return self._living(present) is not None

    def find(self, subject: bytes, given_up: threading.Event) -> dict[bytes, Record]:
        """The records of a subject that live. Drops from the index what is dead."""
        found = {}
        for key in self._subjects.keys(subject):
            go_on(given_up)
            record = self.load(key)
            if record is not None and record.subject == subject:
                found[key] = record
            else:
                with suppress(OSError, StoreUnavailable):  # what is dead can wait, and those who ask need not
                    self._tidy_entry(subject, key, None)
        return found

    def _put(self, key: bytes, record: Record, may: Callable[[Record | None], bool], given_up: threading.Event) -> bool:
        content = recordfile.pack(key, record)
        with self._shard(key) as shard:
            if shard is None or not may(self._living(_read(shard, key))):  # spares the writing
                return False
            name = f"{key.hex()}.{int(self._clock())}.{self._token(8).hex()}"
            with temporary_file(shard, name, content, sync=self._sync), locked(shard, given_up):
                go_on(given_up)
                present = _read(shard, key)
                if not may(self._living(present)):
                    return False
                if record.subject is not None:
                    self._subjects.add(record.subject, key, given_up)
                os.rename(name, key.hex(), src_dir_fd=shard, dst_dir_fd=shard)
                if present is not None and present.subject not in (None, record.subject):
                    self._subjects.drop(present.subject, key)
            if self._sync:
                os.fsync(shard)
            return True

    # What is over

    def purge(self, limit: int, given_up: threading.Event) -> int:
        """Removes what is over among the next `limit` names, round and round. How many it has removed."""
        removed = 0
        for place in islice(places(self._path, self._purged), limit):
            go_on(given_up)
            self._purged = place
            with suppress(StoreUnavailable):  # of another release, which tidies it
                removed += self._tidy(place, given_up)
        return removed

    def tidy_beside(self, key: bytes, limit: int) -> None:
        """Removes what is over among the `limit` names beside a key, and what can be removed without waiting."""
        name = key.hex()
        for kind in (RECORDS, SUBJECTS):
            for place in islice(places(self._path, f"{kind}/{name[:2]}/{name}"), limit):
                with suppress(OSError, StoreUnavailable):
                    self._tidy(place, None)

    def _tidy(self, place: str, given_up: threading.Event | None) -> int:
        kind, _, name, entry = f"{place}/".split("/")[:4]
        identity, key = key_of(name), key_of(entry)
        if kind == RECORDS:
            return self._tidy_temporary(place) if identity is None else self._tidy_record(identity, given_up)
        if identity is None:
            return 0
        if key is None:
            self._subjects.prune(identity)
            return 0
        return self._tidy_entry(identity, key, given_up)

    def _tidy_record(self, key: bytes, given_up: threading.Event | None) -> int:
        with self._shard(key) as shard:
            if shard is None or self._living(_read(shard, key)) is not None:
                return 0
            with locked(shard, given_up):
                present = _read(shard, key)
                return 0 if self._living(present) is not None else self._remove(shard, key, present)

    def _tidy_temporary(self, place: str) -> int:
        path = self._path / place
        key, _, stamp = path.name.rpartition(".")[0].partition(".")
        if key_of(key) is None or not stamp.isdecimal() or abs(self._clock() - int(stamp)) < _ABANDONED_AFTER:
            return 0
        with directory(path.parent) as shard:
            return remove(shard, path.name)

    def _tidy_entry(self, subject: bytes, key: bytes, given_up: threading.Event | None) -> int:
        """Drops a key that is not, or no longer, a subject's. Its lock keeps out who is about to make it so."""
        record = self.load(key)
        if record is not None and record.subject == subject:
            return 0
        self._make_shard(key)
        with directory(self._shards[key[0]]) as shard, locked(shard, given_up):
            present = _read(shard, key)
            living = self._living(present)
            # An expired record goes with its entry: if the clock is set back, both are to be had or neither.
            removed = self._remove(shard, key, present) if living is None else 0
            if living is None or living.subject != subject:
                removed += self._subjects.drop(subject, key)
            return removed

    # Files

    def _remove(self, shard: int, key: bytes, present: Record | None) -> int:
        removed = remove(shard, key.hex())
        if present is not None and present.subject is not None:
            self._subjects.drop(present.subject, key)
        return removed

    def _living(self, record: Record | None) -> Record | None:
        return None if record is None or record.expires_at <= self._clock() else record

    @contextmanager
    def _shard(self, key: bytes) -> Iterator[int | None]:
        """A descriptor of the directory for a key; None where there has never been a record in it."""
        try:
            descriptor = open_directory(self._shards[key[0]])
        except FileNotFoundError:
            (self._path / RECORDS).stat()  # that a disk is not mounted is no reason to say that there is no record
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _make_shard(self, key: bytes) -> None:
        make_directory(self._shards[key[0]], sync=self._sync)


def _read(shard: int, key: bytes) -> Record | None:
    """The record in a file, expired or not; None where there is no file, or it is not the record of this key."""
    with existing_file(shard, key.hex()) as file:
        if file is None:
            return None
        descriptor, size = file
        start = read(descriptor, recordfile.HEADER_LENGTH)
        if recordfile.size(start) != size:
            return None
        return recordfile.unpack(key, start + read(descriptor, size - len(start)))
