"""`SubjectIndex`: which keys a subject may have, on a disk. Directories of empty files, and nothing of records."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cookiesession.stores import KEY_LENGTH
from cookiesession.stores.file.posix import created, directory, go_on, make_directory, names, remove

if TYPE_CHECKING:
    import threading
    from pathlib import Path


class SubjectIndex:
    """`<two digits>/<subject>/<key>`, each in hexadecimal digits.

    It may name keys of which nothing is left, after a crash: whoever finds that out drops them. So that it never lacks
    one, a key is added before its record is there, and added and dropped under the lock of its record alone.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path: Final = path
        self._sync: Final = sync

    def keys(self, subject: bytes) -> list[bytes]:
        """The keys that this subject may have."""
        found = names(self._directory(subject))
        if not found:
            self._path.stat()  # that a disk is not mounted is no reason to say that there are none
        return [key for name in found if (key := key_of(name)) is not None]

    def add(self, subject: bytes, key: bytes, given_up: threading.Event) -> None:
        """Names a key, if it is not named already."""
        path = self._directory(subject)
        while True:
            go_on(given_up)
            with suppress(FileNotFoundError), directory(path) as entries:
                self._add(entries, key)
                return
            # There is no directory, or it was removed just now, after its last key.
            make_directory(path.parent, sync=self._sync)
            make_directory(path, sync=self._sync)

    def drop(self, subject: bytes, key: bytes) -> bool:
        """Names a key no longer. Whether it was named."""
        dropped = False
        with suppress(FileNotFoundError), directory(self._directory(subject)) as entries:
            dropped = remove(entries, key.hex())
        self.prune(subject)
        return dropped

    def prune(self, subject: bytes) -> None:
        """Removes the directory of a subject that has no keys."""
        try:
            self._directory(subject).rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):  # POSIX lets a full one be either
                raise

    def _add(self, entries: int, key: bytes) -> None:
        with suppress(FileExistsError), created(entries, key.hex()):
            if self._sync:  # before the record is: whatever a power cut leaves of it can be found
                os.fsync(entries)

    def _directory(self, subject: bytes) -> Path:
        name = subject.hex()
        return self._path / name[:2] / name


def key_of(name: str) -> bytes | None:
    """The key, or the subject, of which this is the file name; None for another file's name."""
    try:
        key = bytes.fromhex(name)
    except ValueError:
        return None
    return key if len(key) == KEY_LENGTH and key.hex() == name else None
