"""Writing key files: one process at a time, whole files only, and nobody else's business."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from filelock import FileLock
from victims import STRACE, Victims, victims

from cookiesession import Key, KeyFile
from cookiesession.cli import cli, files
from cookiesession.cli.documents import document
from cookiesession.cli.files import locked, others_may, read
from cookiesession.keyfile import SIZE_LIMIT
from cookiesession.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = (sys.executable, "-W", "error")
KEYS = (*PYTHON, "-m", "cookiesession", "keys")
LIMIT = 60  # seconds: no process of these tests needs that long
NOBODY = 65534
LOCK, FRESH = ".keys.toml.lock", ".keys.toml.new"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a key that was due for rotation ten days ago."""
    added = datetime.now(UTC).replace(microsecond=0) - timedelta(days=40)
    path = tmp_path / "keys.toml"
    path.touch(0o600)
    path.write_bytes(document(Schedule().add(Key.generate(), added, timedelta(0))))
    return path


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory in which every user may write, with nothing above it that keeps them out."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def mode(path: Path) -> int:
    """What is permitted to whom."""
    return path.stat().st_mode & 0o7777


def version(path: Path) -> tuple[int, int, int]:
    """What changes with every change of a file."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def names(directory: Path) -> set[str]:
    """All that is in a directory."""
    return {entry.name for entry in directory.iterdir()}


def ids(path: Path) -> list[str]:
    """The keys of a file, which is whole."""
    return [each.key.id for each in Schedule.parse(path.read_bytes()).keys]


def rewrite(path: Path, text: bytes) -> None:
    """The whole of a change."""
    with locked(path, create=True) as file:
        file.write(text)


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """A process that may write files of no byte at all: as a full disk is, but for the number of the error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def unprivileged() -> Iterator[int]:
    """A process that is not root's."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    os.seteuid(NOBODY)
    try:
        yield NOBODY
    finally:
        os.seteuid(0)


# What is on the disk


def test_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask grants. The lock stays beside it, and is empty."""
    path = tmp_path / "keys.toml"
    old = os.umask(0)
    try:
        rewrite(path, b"text")
    finally:
        os.umask(old)

    assert b"text" == path.read_bytes()
    assert {"keys.toml": 0o600, LOCK: 0o600} == {name: mode(tmp_path / name) for name in names(tmp_path)}
    assert b"" == (tmp_path / LOCK).read_bytes()


@pytest.mark.parametrize("permissions", [0o644, 0o640, 0o600, 0o400], ids=oct)
def test_rewritten_file_is_for_its_owner_alone(path: Path, permissions: int) -> None:
    """A new secret never goes where others read."""
    path.chmod(permissions)

    with locked(path) as file:
        file.write(b"text")

    assert 0o600 == mode(path)
    assert (permissions if permissions > 0o600 else 0) == file.others_may


def test_text_is_what_the_file_holds(path: Path) -> None:
    """None where it does not exist."""
    text = path.read_bytes()

    with locked(path) as file, locked(path.with_name("other"), create=True) as other:
        assert text == file.text
        assert other.text is None


def test_reading_changes_nothing(path: Path) -> None:
    """Neither the file nor its time: only the lock is new."""
    before = version(path)

    with locked(path):
        pass

    assert before == version(path)
    assert {"keys.toml", LOCK} == names(path.parent)


def test_lock_is_not_left_where_there_is_no_file(tmp_path: Path) -> None:
    """A slip of the pen leaves nothing."""
    with pytest.raises(FileNotFoundError), locked(tmp_path / "keys.toml"):
        raise AssertionError

    assert set() == names(tmp_path)


def test_symbolic_link_stays_one(tmp_path: Path, path: Path) -> None:
    """What it links to is rewritten, under the lock that everybody takes who goes there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "link.toml"
    link.symlink_to(path)

    rewrite(link, b"text")

    assert link.is_symlink()
    assert (b"text", 0o600) == (path.read_bytes(), mode(path))
    assert {"link.toml"} == names(elsewhere)
    assert {"keys.toml", LOCK, "elsewhere"} == names(tmp_path)


def test_link_to_nothing_makes_what_it_links_to(tmp_path: Path) -> None:
    """And stays a link."""
    (tmp_path / "link").symlink_to("keys.toml")

    rewrite(tmp_path / "link", b"text")

    assert b"text" == (tmp_path / "keys.toml").read_bytes()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_remains_of_a_killed_writer_are_replaced(tmp_path: Path, path: Path, kind: str) -> None:
    """Whatever stands there under its name: a link is not followed."""
    victim, fresh = tmp_path / "victim", tmp_path / FRESH
    victim.write_bytes(b"precious")
    if kind == "link":
        fresh.symlink_to(victim)
    else:
        fresh.touch(0o666)

    rewrite(path, b"text")

    assert (b"text", 0o600) == (path.read_bytes(), mode(path))
    assert b"precious" == victim.read_bytes()
    assert {"keys.toml", LOCK, "victim"} == names(tmp_path)


def test_lock_that_is_a_link_is_not_followed(tmp_path: Path, path: Path) -> None:
    """It may have been planted."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / LOCK).symlink_to(victim)

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        rewrite(path, b"text")

    assert b"precious" == victim.read_bytes()


def test_only_files_are_rewritten(tmp_path: Path) -> None:
    """Root, who may, does not put a key file in the place of a device."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="not a regular file"):
        rewrite(tmp_path / "pipe", b"text")

    assert {"pipe"} == names(tmp_path)


def test_huge_file_is_not_read(path: Path) -> None:
    """It is no key file."""
    path.write_bytes(bytes(SIZE_LIMIT))
    assert SIZE_LIMIT == len(read(path))

    path.write_bytes(bytes(SIZE_LIMIT + 1))
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), locked(path):
        raise AssertionError


def test_permissions_of_others_are_told(path: Path) -> None:
    """The owner's own are nobody's business."""
    assert 0 == others_may(path)

    path.chmod(0o604)
    assert 0o604 == others_may(path)


# Whose it is


@as_root
@pytest.mark.parametrize("create", [False, True], ids=["no-lock", "lock"])
def test_root_leaves_a_file_to_its_owner(path: Path, create: bool) -> None:
    """Its cron job rotates the keys of an application that is somebody else, and that may want to do it by hand."""
    os.chown(path, NOBODY, NOBODY)
    if create:
        rewrite(path, b"before")

    rewrite(path, b"text")

    owners = {(entry.stat().st_uid, entry.stat().st_gid) for entry in path.parent.iterdir()}
    assert {(NOBODY, NOBODY)} == owners
    assert (b"text", 0o600) == (path.read_bytes(), mode(path))


@as_root
def test_group_that_is_out_of_reach_is_let_go(open_directory: Path) -> None:
    """Nothing is permitted to it anyway."""
    path = open_directory / "keys.toml"
    path.write_bytes(b"before")
    os.chown(path, NOBODY, 4711)

    with unprivileged():
        rewrite(path, b"text")

    assert b"text" == path.read_bytes()
    assert (NOBODY, os.getegid()) == (path.stat().st_uid, path.stat().st_gid)


@as_root
def test_file_of_another_user_is_left_alone(open_directory: Path) -> None:
    """Rewritten, it would be lost to its owner. Nor is there a lock that would keep the owner out."""
    path = open_directory / "keys.toml"
    path.write_bytes(b"before")
    path.chmod(0o644)

    with unprivileged(), pytest.raises(PermissionError, match="run this as that user, or as root"):
        rewrite(path, b"text")

    assert (b"before", 0o644, 0) == (path.read_bytes(), mode(path), path.stat().st_uid)
    assert {"keys.toml"} == names(open_directory)


def test_owner_that_cannot_be_kept_is_an_error(open_directory: Path) -> None:
    """As above, for those who are not root either."""
    refusal = pytest.raises(PermissionError, match="run this as that user, or as root")

    with unprivileged(), (open_directory / "file").open("wb") as file, refusal:
        files._give(file.fileno(), Path("/").stat())


# What goes wrong


def test_file_that_cannot_be_written_leaves_the_old_one(path: Path) -> None:
    """A full disk."""
    text = path.read_bytes()

    with locked(path) as file, no_room(), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        file.write(b"text")

    assert text == path.read_bytes()
    assert {"keys.toml", LOCK} == names(path.parent)


def test_file_that_cannot_be_replaced_leaves_nothing_behind(path: Path) -> None:
    """A directory that came in its place, say, or a mount point."""
    with locked(path) as file:
        path.unlink()
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            file.write(b"text")

    assert {"keys.toml", LOCK} == names(path.parent)


def test_read_only_directory_leaves_the_old_file(open_directory: Path) -> None:
    """Nobody can be locked out there."""
    path = open_directory / "keys.toml"
    path.write_bytes(b"before")
    open_directory.chmod(0o555)

    with unprivileged(), pytest.raises(PermissionError) as caught:
        rewrite(path, b"text")

    open_directory.chmod(0o777)
    assert LOCK in str(caught.value)
    assert b"before" == path.read_bytes()
    assert {"keys.toml"} == names(open_directory)


def test_lock_is_not_waited_for_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it, so that its holder can be found."""
    monkeypatch.setattr(files, "PATIENCE", 0.1)

    with FileLock(path.with_name(LOCK)), pytest.raises(TimeoutError) as caught, locked(path):
        raise AssertionError

    assert f"another process has held {path.with_name(LOCK)} for 0.1 s" == caught.value.strerror


def test_lock_is_waited_for(path: Path) -> None:
    """Whoever holds it is about to be done."""
    lock = FileLock(path.with_name(LOCK), thread_local=False)
    lock.acquire()
    release = threading.Timer(0.1, lock.release)
    release.start()

    with locked(path) as file:
        assert file.text

    release.join()


# Many at once


def test_nothing_is_lost_when_many_write(path: Path) -> None:
    """Eight processes add three keys each, while the file is read all the time: no key goes, and no half file shows."""
    script = (
        "import sys\nfrom cookiesession.cli import cli\nsys.stdin.readline()\n"
        "for _ in range(3): cli(['keys', 'add', sys.argv[1]], standalone_mode=False)\n"
    )
    command = (*PYTHON, "-c", script, str(path))
    held = ids(path)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  ours
            )
            for _ in range(8)
        ]
        limits = [threading.Timer(LIMIT, writer.kill) for writer in writers]
        for limit in limits:
            limit.start()
        for writer in writers:
            assert writer.stdin
            writer.stdin.write("go\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            before, held = held, ids(path)
            assert before == held[: len(before)]
        for limit in limits:
            limit.cancel()
        said = "".join(writer.communicate()[0] for writer in writers)

    added = re.findall(r"^key ([0-9a-f]{8}) ", said, flags=re.MULTILINE)
    assert [0] * 8 == [writer.returncode for writer in writers]
    assert 24 == len(added)
    assert set(added) == set(ids(path)[1:])
    assert {"keys.toml", LOCK} == names(path.parent)


def test_one_rotation_is_enough_when_many_rotate(path: Path) -> None:
    """Cron on four machines with one disk: one of them adds the key, and the others find nothing due."""
    command = (*KEYS, "rotate", str(path))
    with ThreadPoolExecutor(4) as pool:
        ended = list(
            pool.map(
                lambda _: subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True),  # noqa: S603  ours
                range(4),
            )
        )

    said = [process.stdout for process in ended]
    assert 3 == said.count("nothing is due\n")
    assert 2 == len(ids(path))


# Killed


@pytest.fixture(scope="module")
def strace() -> str:
    """The tracer, if it is there and may trace. In CI it has to be."""
    if STRACE is None and "CI" not in os.environ:
        pytest.skip("no strace on the PATH (Debian: apt install strace)")
    assert STRACE, "CI has to install strace"
    probe = subprocess.run(  # noqa: S603  a tracer of our own child
        (STRACE, "-o", os.devnull, sys.executable, "-c", ""), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if probe.returncode and "CI" not in os.environ:
        pytest.skip(f"ptrace is forbidden here: {probe.stderr.strip().splitlines()[-1]}")
    assert probe.returncode == 0, probe.stderr
    return STRACE


# Runs a command in the same Python as the tests, but with nothing to import any more.
COMMAND = """
import contextlib, io, sys
from cookiesession.cli import cli

def call(*arguments):
    cli(["keys", *arguments], standalone_mode=False)
    return 0

with contextlib.redirect_stdout(io.StringIO()):
    call("add", sys.argv[1])
    call("rotate", sys.argv[1])
"""


@pytest.fixture(scope="module")
def commands(strace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    """Processes that run one command each."""
    with victims(COMMAND, str(tmp_path_factory.mktemp("commands") / "keys.toml")) as processes:
        yield processes


def traced(
    strace: str, path: Path, *arguments: str, inject: str | None = None, only: str | None = None
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A command on a key file, with all its system calls about this file, its directory, its lock and the new file.

    `inject` is what strace does at one of them; `only` narrows them down to those about one name.
    """
    log = path.parent.with_suffix(".log")
    command = (strace, "-o", str(log), *options(path, inject, only), *KEYS, arguments[0], str(path), *arguments[1:])
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)  # noqa: S603  ours
    return ended, calls_in(log)


def options(path: Path, inject: str | None, only: str | None = None) -> list[str]:
    """Those of strace."""
    about = [".", path.name, LOCK, FRESH] if only is None else [only]
    narrowed = [option for each in about for option in ("-P", str(path.parent / each))]
    return ["-e", "trace=%file,%desc", *narrowed, *([] if inject is None else ["-e", f"inject={inject}"])]


def calls_in(log: Path) -> list[str]:
    """The system calls that strace has noted."""
    return re.findall(r"^\w+\(.*", log.read_text(), flags=re.MULTILINE)


def name(call: str) -> str:
    """The name of a system call."""
    return call.partition("(")[0]


# A kill before any other call leaves on the disk what a kill before the next of these leaves.
CHANGING = re.compile(r"(mkdir|openat\(.*O_CREAT|fchown|write|fsync|rename|unlink|flock)")


@pytest.mark.parametrize(("command", "which"), [("rotate", re.compile("")), ("add", CHANGING)], ids=["rotate", "add"])
def test_writer_that_is_killed_leaves_a_whole_file(
    commands: Victims, tmp_path: Path, path: Path, command: str, which: re.Pattern[str]
) -> None:
    """By `kill -9` before each of its system calls in turn: the file is the old or the new one, and the next run works.

    `rotate` finds a file, for `add` there is none.
    """
    old = path.read_bytes() if command == "rotate" else None

    def directory(number: int) -> Path:
        made = tmp_path / f"{number:03}"
        made.mkdir()
        if old is not None:
            shutil.copy(path, made)
        return made / "keys.toml"

    def run(copy: Path, inject: str | None = None) -> tuple[int, list[str]]:
        log = copy.parent.with_suffix(".log")
        return commands.call((command, str(copy)), *options(copy, inject), log=log), calls_in(log)

    def killed(number: int) -> tuple[Path, int, list[str]]:
        so_far = [name(call) for call in calls[: number + 1]]
        copy = directory(number)
        return copy, *run(copy, f"{so_far[-1]}:signal=KILL:when={so_far.count(so_far[-1])}")

    returncode, calls = run(directory(999))
    assert returncode == 0
    lasting = [name(call)[:6] for call in calls if name(call).startswith(("flock", "write", "fsync", "rename"))]
    assert ["flock", "write", "fsync", "rename", "fsync", "flock"] == lasting[-6:]
    numbers = [number for number, call in enumerate(calls) if which.match(call)]
    ends = [killed(number) for number in numbers]

    assert len(ends) >= 10
    for number, (copy, returncode, until) in zip(numbers, ends, strict=True):
        replaced = any(name(call).startswith("rename") and call.endswith("= 0") for call in until)
        assert (-signal.SIGKILL, number + 1) == (returncode, len(until))
        assert {0o600} >= {mode(entry) for entry in copy.parent.iterdir()}
        if replaced:
            assert old != copy.read_bytes()
        else:
            assert old == (copy.read_bytes() if copy.exists() else None)
        before = ids(copy) if copy.exists() else []
        result = CliRunner().invoke(cli, ["keys", command, str(copy)])
        assert 0 == result.exit_code
        assert before == ids(copy)[: len(before)]
        assert (2 if command == "rotate" else 1 + replaced) == len(ids(copy))
        assert {"keys.toml", LOCK} == names(copy.parent)
        KeyFile(copy)


@pytest.mark.parametrize(
    ("inject", "only", "message"),
    [
        pytest.param("write:error=ENOSPC", FRESH, "No space left on device", id="full-disk"),
        pytest.param("fsync:error=EIO", FRESH, "Input/output error", id="broken-disk"),
        pytest.param("openat:error=EDQUOT", FRESH, "Disk quota exceeded: {fresh}", id="quota"),
        pytest.param("openat:error=EROFS", LOCK, "Read-only file system: {lock}", id="read-only"),
        pytest.param("rename:error=EBUSY", None, "Device or resource busy: {fresh}", id="mount-point"),
        pytest.param("unlink:error=EPERM", None, "Operation not permitted: {fresh}", id="immutable"),
    ],
)
def test_failure_is_one_line_and_leaves_the_old_file(
    strace: str, path: Path, inject: str, only: str | None, message: str
) -> None:
    """Whatever the kernel says."""
    text = path.read_bytes()

    ended, _ = traced(strace, path, "rotate", inject=inject, only=only)

    expected = message.format(fresh=path.with_name(FRESH), lock=path.with_name(LOCK))
    assert (1, f"Error: {path}: {expected}\n", "") == (ended.returncode, ended.stderr, ended.stdout)
    assert text == path.read_bytes()
    assert names(path.parent) <= {"keys.toml", LOCK}


def test_directory_that_cannot_be_synced_is_no_failure(strace: str, path: Path) -> None:
    """The new file is in its place by then, and some file systems have no such call for directories."""
    ended, calls = traced(strace, path, "rotate", inject="fsync:error=EINVAL", only=".")

    assert (0, "") == (ended.returncode, ended.stderr)
    assert ["fsync"] == [name(call) for call in calls if "EINVAL" in call]
    assert 2 == len(ids(path))
