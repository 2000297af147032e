"""The system calls of a store on a disk: directories, whole files and locks, for their owner alone.

No symbolic link is followed but on the way to a directory. Every function raises `OSError`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import fcntl
    import threading
    from collections.abc import Iterator
    from pathlib import Path
else:
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None

LOCKING: Final = fcntl is not None
"""Whether this system has the locks that `locked()` needs."""

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: Final[int] = _NOFOLLOW | getattr(os, "O_DIRECTORY", 0)
_READ: Final[int] = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for a writer
_SHORT_PAUSE, _LONG_PAUSE = 0.000_5, 0.01  # seconds between two attempts to get a lock: it is held for less


def open_directory(path: str | Path) -> int:
    """A descriptor of a directory."""
    return os.open(path, os.O_RDONLY | _DIRECTORY)


@contextmanager
def directory(path: str | Path) -> Iterator[int]:
    """A descriptor of a directory, closed in the end."""
    descriptor = open_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_directory(path: Path, *, sync: bool) -> None:
    """Makes a directory, if there is nothing of its name. Whatever the umask is."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    with suppress(FileNotFoundError):  # empty ones are removed by whoever sees them
        path.chmod(_DIRECTORY_MODE)
    if sync:
        with directory(path.parent) as parent:
            os.fsync(parent)


@contextmanager
def created(parent: int, name: str) -> Iterator[int]:
    """A descriptor of a new file, to write. Whatever the umask is."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, _FILE_MODE, dir_fd=parent)
    try:
        os.fchmod(descriptor, _FILE_MODE)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def temporary_file(parent: int, name: str, content: bytes, *, sync: bool) -> Iterator[None]:
    """A whole new file, which is removed in the end unless it has got another name."""
    try:
        with created(parent, name) as descriptor:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if sync:
                os.fsync(descriptor)
        yield
    finally:
        remove(parent, name)


@contextmanager
def existing_file(parent: int, name: str) -> Iterator[tuple[int, int] | None]:
    """A descriptor of a regular file, to read, and its size in bytes. None where there is nothing of its name."""
    try:
        descriptor = os.open(name, os.O_RDONLY | _READ, dir_fd=parent)
    except FileNotFoundError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "what is in the place of a record is no file")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def names(path: str | Path) -> list[str]:
    """What is in a directory; nothing where there is none."""
    try:
        with directory(path) as descriptor:
            return os.listdir(descriptor)  # noqa: PTH208  by its descriptor, which is of no link
    except FileNotFoundError:
        return []


def remove(parent: int, name: str) -> bool:
    """Removes a file's name. Whether it was there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    return True


def read(descriptor: int, length: int) -> bytes:
    """The next `length` bytes of a file, or all where there are fewer."""
    parts = []
    while length > 0 and (part := os.read(descriptor, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


@contextmanager
def locked(descriptor: int, given_up: threading.Event | None) -> Iterator[None]:
    """The lock of a directory, among processes and threads. A process that is killed has it no longer.

    Waits until `given_up` is set, or not at all where it is None, and raises `TimeoutError` then.
    """
    pause = _SHORT_PAUSE
    while not _lock(descriptor):
        if given_up is None or given_up.wait(pause):
            raise TimeoutError(errno.ETIMEDOUT, "another process holds a lock")
        pause = min(2 * pause, _LONG_PAUSE)
    try:
        yield
    finally:
        # Closing is not enough: a process that has forked meanwhile left a descriptor in its child.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def go_on(given_up: threading.Event | None) -> None:
    """Raises `TimeoutError` where `given_up` is set."""
    if given_up is not None and given_up.is_set():
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def permissions(path: str | Path) -> int:
    """The mode of a directory that can be locked, as `chmod` takes it."""
    with directory(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, since others may try this very moment
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return stat.S_IMODE(os.fstat(descriptor).st_mode)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
