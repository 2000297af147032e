"""A file that is changed by one process at a time, and is always whole: a lock beside it, and a rename."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from cookiesession.keyfile import SIZE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0
"""Seconds to wait for another process that changes the file. A change takes milliseconds."""

_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
_OTHERS: Final = 0o077  # permissions of anybody but the owner


class LockedFile:
    """A file that no other process changes meanwhile.

    `text` is what it holds, None where it does not exist. `others_may` is as the function of that name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = _status(path)
        self.others_may: Final = 0 if self._status is None else _mode_for_others(self._status)
        self.text: Final = None if self._status is None else read(path)

    def write(self, text: bytes) -> None:
        """Replaces the file at once: whoever reads it, even after a crash, finds the old text or this one.

        Nobody but the owner may use the new file; the owner and, where possible, the group are those of the old one.
        Raises `OSError`, and the old file is then as it was.
        """
        fresh = _beside(self._path, "new")
        fresh.unlink(missing_ok=True)  # of a writer that was killed
        _create(fresh, text, self._status)
        try:
            fresh.replace(self._path)
        except OSError:
            fresh.unlink()
            raise
        with suppress(OSError):  # the new file is in place, whether or not it is so after a power cut
            _sync_directory(self._path.parent)


@contextmanager
def locked(path: Path, *, create: bool = False) -> Iterator[LockedFile]:
    """The file at `path`, or at what this links to, under its lock.

    The lock is an empty file beside it, `.keys.toml.lock` for `keys.toml`, which stays on the disk: without one inode
    that all agree on there is no lock. Raises `OSError`: also where the lock is not to be had in `PATIENCE` seconds,
    and where there is no file and none to `create`.
    """
    target = Path(os.path.realpath(path))
    lock = _beside(target, "lock")
    status = _status(target)
    if status is None and not create:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with suppress(FileExistsError):
        _create(lock, b"", status)
    try:
        with FileLock(lock, timeout=PATIENCE, mode=0o600):
            yield LockedFile(target)
    except Timeout:
        raise TimeoutError(errno.ETIMEDOUT, f"another process has held {lock} for {PATIENCE:g} s", str(path)) from None


def others_may(path: Path) -> int:
    """The mode of a file, if others than its owner may do anything with it; else 0. Raises `OSError`."""
    return _mode_for_others(path.stat())


def read(path: Path) -> bytes:
    """What a file holds. Raises `OSError`, also for what is longer than any key file."""
    with path.open("rb") as file:
        text = file.read(SIZE_LIMIT + 1)
    if len(text) > SIZE_LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return text


def _beside(path: Path, purpose: str) -> Path:
    return path.with_name(f".{path.name}.{purpose}")


def _mode_for_others(status: os.stat_result) -> int:
    mode = stat.S_IMODE(status.st_mode)
    return mode if os.name == "posix" and mode & _OTHERS else 0


def _status(path: Path) -> os.stat_result | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):  # a rename would put a file in the place of a device
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return status


def _create(path: Path, text: bytes, like: os.stat_result | None) -> None:
    """Makes a new file, which belongs to the owner of another and is for nobody else from the start."""
    with open(path, "xb", opener=_open_for_owner) as file:
        try:
            if like is not None and os.name == "posix":  # pragma: no branch - Windows has no owners of this kind
                _give(file.fileno(), like)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags | _NOFOLLOW, 0o600)


def _give(descriptor: int, like: os.stat_result) -> None:
    """Gives the owner and the group of another file. The group may stay, since nothing is permitted to it."""
    with suppress(PermissionError):
        os.fchown(descriptor, like.st_uid, like.st_gid)
    if os.fstat(descriptor).st_uid != like.st_uid:
        raise PermissionError(errno.EPERM, "it belongs to another user: run this as that user, or as root")


def _sync_directory(path: Path) -> None:
    if os.name == "posix":  # pragma: no branch - Windows opens no directories
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
