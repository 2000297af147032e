"""A key file in use: noticed when it changes, never waited for, and no worse for what becomes of it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import START, Clock

from cookiesession import ConfigurationError, Key, KeyFile, KeySource
from cookiesession.events import Event, KeysRead, KeysRefused
from cookiesession.keyfile import SIZE_LIMIT
from cookiesession.keys import RefreshingKeySource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = Key.generate(), Key.generate()
NOW = datetime.fromtimestamp(START, UTC)
HOUR = timedelta(hours=1)
CHECK = 5  # seconds, the default
WAIT = 30  # seconds, for one reading on a busy machine


def toml(*keys: Key, activates: datetime = NOW - HOUR, retires: datetime | None = None) -> str:
    """A document of keys that activate one second after the other."""
    text = "# the keys of the tests\n"
    for index, key in enumerate(keys):
        times = {"added": NOW - 2 * HOUR, "activates": activates + index * timedelta(seconds=1), "retires": retires}
        lines = [f"{name} = {time.isoformat()}\n" for name, time in times.items() if time]
        text += f'[[keys]]\nkey = "{key.export()}"\n' + "".join(lines)
    return text


def write(path: Path, text: str) -> None:
    """Writes a file that its owner alone may use."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds the old key."""
    path = tmp_path / "keys.toml"
    write(path, toml(OLD))
    return path


@pytest.fixture
def clock() -> Clock:
    """The clock of files and of those who use them."""
    return Clock()


@pytest.fixture
def seen() -> list[Event]:
    """The events of the file."""
    return []


@pytest.fixture
def opened(path: Path, clock: Clock, seen: list[Event]) -> KeyFile:
    """The file in use."""
    return KeyFile(path, clock=clock, on_event=seen.append)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits for a reading waits until it is done, and not for a quarter of a second."""
    monkeypatch.setattr("cookiesession.keyfile._PATIENCE", WAIT)


def check(file: KeyFile, clock: Clock) -> tuple[Key, ...]:
    """Lets the next check pass, and gives the keys that are in use after it."""
    clock.now += CHECK
    file.current(clock())
    file._reader.join(WAIT)
    return file.current(clock()).keys


# The ring


def test_file_is_a_source_of_keys(opened: KeyFile, path: Path) -> None:
    """Wherever a ring is taken."""
    assert isinstance(opened, KeySource)
    assert isinstance(opened, RefreshingKeySource)
    assert opened.current(START).keys == (OLD,)
    assert KeyFile(str(path)).path == path


def test_representation_shows_the_path_alone(opened: KeyFile, path: Path) -> None:
    """Neither a key nor an id."""
    assert repr(opened) == f"<KeyFile {path}>"


def test_key_seals_when_its_time_comes(path: Path, clock: Clock) -> None:
    """Without another reading, to the second."""
    write(path, toml(OLD) + toml(NEW, activates=NOW + HOUR))
    file = KeyFile(path, clock=clock)

    before, at = file.current(START + 3599), file.current(START + 3600)

    assert before.keys == (OLD, NEW)
    assert at.keys == (NEW, OLD)


def test_key_opens_nothing_once_it_retires(path: Path, clock: Clock) -> None:
    """Without another reading, to the second."""
    write(path, toml(OLD, retires=NOW + HOUR) + toml(NEW))
    file = KeyFile(path, clock=clock)

    before, at = file.current(START + 3599), file.current(START + 3600)

    assert set(before.keys) == {OLD, NEW}
    assert at.keys == (NEW,)


def test_ring_is_one_object_between_two_changes(opened: KeyFile, clock: Clock) -> None:
    """A request that asks again pays nothing."""
    assert opened.current(START) is opened.current(START + 4)


# What there is to begin with


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(None, "No such file or directory; make one with: python -m cookiesession keys add", id="missing"),
        pytest.param("", "missing required field `keys`", id="empty"),
        pytest.param(toml(OLD)[:-40], "(JSON nor TOML|required field)", id="half"),
        pytest.param(toml(OLD, retires=NOW), "every key in it has retired", id="retired"),
        pytest.param("keys = []", "it holds no key", id="no key"),
        pytest.param(toml(OLD).ljust(SIZE_LIMIT + 1, "\n"), "it is longer than 1048576 bytes", id="endless"),
    ],
)
def test_file_that_is_no_good_to_begin_with_is_a_configuration_error(
    path: Path, clock: Clock, text: str | None, problem: str
) -> None:
    """At start-up, with the path and what is wrong."""
    path.unlink() if text is None else write(path, text)

    with pytest.raises(ConfigurationError, match=f"the key file {re.escape(str(path))} cannot be used: .*{problem}"):
        KeyFile(path, clock=clock)


def test_directory_is_no_key_file(tmp_path: Path) -> None:
    """Nor is anything else that cannot be read."""
    with pytest.raises(ConfigurationError, match="Is a directory"):
        KeyFile(tmp_path)


@pytest.mark.parametrize("path", [None, b"keys.toml", 1], ids=repr)
def test_what_is_no_path_is_a_configuration_error(path: Any) -> None:
    """Such as os.environ.get() gives where it is missing."""
    with pytest.raises(ConfigurationError, match="a key file is named by its path"):
        KeyFile(path)


@pytest.mark.parametrize("value", [timedelta(0), timedelta(milliseconds=999), timedelta(days=2), 5, None], ids=str)
def test_interval_that_cannot_work_is_a_configuration_error(path: Path, value: Any) -> None:
    """A second is the least, so that no file system is worn out."""
    with pytest.raises(ConfigurationError, match="check_every is a timedelta"):
        KeyFile(path, check_every=value)


async def _async_listener(event: Event) -> None:
    """What would never be awaited."""


@pytest.mark.parametrize("listener", [_async_listener, "print"], ids=["async", "no function"])
def test_listener_that_cannot_work_is_a_configuration_error(path: Path, listener: Any) -> None:
    """Rather than an error in the log at each reading."""
    with pytest.raises(ConfigurationError, match="on_event is a plain function"):
        KeyFile(path, on_event=listener)


def test_error_shows_nothing_of_a_key(path: Path, everything_said: Callable[[BaseException], str]) -> None:
    """Neither does what led to it. Case A17."""
    write(path, toml(OLD, OLD))

    with pytest.raises(ConfigurationError) as refusal:
        KeyFile(path)

    assert OLD.export().rpartition(".")[2][:10] not in everything_said(refusal.value)


def test_key_that_is_given_for_the_path_is_not_shown(everything_said: Callable[[BaseException], str]) -> None:
    """Nor tried to be opened, which would put it into an error."""
    with pytest.raises(ConfigurationError, match="a key stands where the path of a key file belongs") as refusal:
        KeyFile(OLD.export())

    assert OLD.export().rpartition(".")[2][:10] not in everything_said(refusal.value)


# Changes


def test_change_counts_after_the_interval_and_not_before(opened: KeyFile, path: Path, clock: Clock) -> None:
    """A file is looked at every few seconds at most."""
    write(path, toml(OLD, NEW))

    before = opened.current(START + CHECK - 1).keys
    opened._reader.join(WAIT) if opened._reader.ident else None
    still = opened.current(START + CHECK - 1).keys
    after = check(opened, clock)

    assert before == still == (OLD,)
    assert after == (NEW, OLD)


def test_reading_is_not_the_requests_work(opened: KeyFile, path: Path, clock: Clock) -> None:
    """A thread of its own reads, once for each interval."""
    readers: list[threading.Thread] = []
    opened._reporter._listener = lambda event: readers.append(threading.current_thread())
    write(path, toml(NEW))

    check(opened, clock)

    assert [reader.name for reader in readers] == ["cookiesession-keyfile"]
    assert readers[0].daemon


def test_file_that_is_the_same_is_not_taken_over_again(opened: KeyFile, clock: Clock, seen: list[Event]) -> None:
    """Not even when it was written again."""
    ring = opened.current(START)
    write(opened.path, toml(OLD))

    check(opened, clock)

    assert opened.current(START) is ring
    assert len(seen) == 1


def test_key_that_stays_keeps_its_object(opened: KeyFile, path: Path, clock: Clock) -> None:
    """With its ciphers, and its count of seals."""
    key = opened.current(START).primary
    write(path, toml(OLD, NEW))

    check(opened, clock)

    assert key is opened.current(START).keys[1]


def test_request_that_is_slower_than_a_reading_undoes_nothing(opened: KeyFile, path: Path, clock: Clock) -> None:
    """It may put the keys from before back into place, which the reader has replaced meanwhile."""
    before = opened._span
    write(path, toml(NEW))
    check(opened, clock)

    opened._span = before

    assert opened.current(clock()).keys == (NEW,)


def test_clock_that_is_put_back_does_not_stop_the_checks(opened: KeyFile, path: Path, clock: Clock) -> None:
    """By an hour, say."""
    write(path, toml(NEW))
    clock.now -= 3600

    assert check(opened, clock) == (NEW,)


def test_swap_of_a_symbolic_link_is_followed(tmp_path: Path, clock: Clock) -> None:
    """Kubernetes writes a new directory, and swaps the link that all files of a secret go through."""
    for name, keys in (("..1", (OLD,)), ("..2", (OLD, NEW))):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys", toml(*keys))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    file = KeyFile(tmp_path / "keys", clock=clock)

    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").replace(tmp_path / "..data")

    assert check(file, clock) == (NEW, OLD)


def test_reading_tells_what_is_in_use(opened: KeyFile, path: Path, clock: Clock, seen: list[Event]) -> None:
    """At the start, and at every change."""
    write(path, toml(OLD, NEW))

    check(opened, clock)

    assert seen == [
        KeysRead(path=str(path), key_id=OLD.id, keys=1),
        KeysRead(path=str(path), key_id=NEW.id, keys=2),
    ]


# Files that go bad


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param(toml(NEW)[:-30], id="half"),
        pytest.param("\0" * 100, id="zeros"),
        pytest.param("a = " + "1" * 5_000, id="number that Python does not convert"),
        pytest.param(toml(NEW, NEW), id="twice one key"),
        pytest.param(toml(NEW, retires=NOW), id="retired"),
    ],
)
def test_file_that_goes_bad_changes_nothing(
    opened: KeyFile, clock: Clock, seen: list[Event], caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    """The last good keys stay, with an event and an error each time, until it is good again."""
    path = opened.path
    path.unlink() if text is None else write(path, text)

    first, second = check(opened, clock), check(opened, clock)
    write(path, toml(NEW))
    last = check(opened, clock)

    assert first == second == (OLD,)
    assert last == (NEW,)
    assert [type(event) for event in seen] == [KeysRead, KeysRefused, KeysRefused, KeysRead]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(str(path) in error for error in errors)
    assert NEW.export().rpartition(".")[2][:10] not in caplog.text


def test_bad_file_is_an_error_in_the_log_though_the_clock_is_put_back(
    opened: KeyFile, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reading that fails is one, whatever the time."""
    write(opened.path, "")
    check(opened, clock)

    clock.now -= 3600
    check(opened, clock)

    assert 2 == len([record for record in caplog.records if record.levelno == logging.ERROR])


class Writer:
    """Writes the next piece of a file whenever its reader pauses."""

    def __init__(self, path: Path, pieces: list[str]) -> None:
        self.path = path
        self.pieces = pieces

    def wait(self, seconds: float) -> None:
        if self.pieces:
            with self.path.open("a") as file:
                file.write(self.pieces.pop(0))


def test_half_of_a_file_is_not_taken_for_the_whole(
    opened: KeyFile, path: Path, clock: Clock, seen: list[Event]
) -> None:
    """The first half of a TOML file is a good file that has lost its newest keys."""
    first, second = toml(NEW), toml(OLD)
    write(path, first)
    opened._pause = Writer(path, [second[:50], second[50:]])  # type: ignore[assignment]  # waits, and does no more

    keys = check(opened, clock)

    assert set(keys) == {OLD, NEW}
    assert len(seen) == 2


def test_file_that_never_settles_changes_nothing(opened: KeyFile, path: Path, clock: Clock, seen: list[Event]) -> None:
    """The next check has another try."""
    write(path, toml(NEW))
    opened._pause = Writer(path, ["# and on\n"] * 100)  # type: ignore[assignment]  # waits, and does no more

    keys = check(opened, clock)

    assert keys == (OLD,)
    assert seen[1:] == [KeysRefused(path=str(path), problem="it keeps changing while it is read")]


def test_last_key_stays_when_it_retires(path: Path, clock: Clock, seen: list[Event]) -> None:
    """Nobody has rotated for too long: an error for each interval, but no request fails."""
    write(path, toml(OLD, retires=NOW + HOUR))
    file = KeyFile(path, clock=clock, on_event=seen.append)
    clock.now += 3600

    keys = [check(file, clock) for _ in range(3)]

    assert keys == [(OLD,)] * 3
    assert [type(event) for event in seen] == [KeysRead, *[KeysRefused] * 3]
    assert "every key in it has retired" in repr(seen[1])


def test_wide_permissions_are_warned_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may read the file may read every session."""
    KeyFile(path)
    narrow = caplog.text

    path.chmod(0o640)
    KeyFile(path)

    assert narrow == ""
    assert f"others than its owner may use the key file {path}: chmod 600 it" in caplog.text


def test_permissions_that_become_wide_are_warned_of_once(
    opened: KeyFile, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the keys stay the same; and once more when they have been narrow in between."""

    def warnings_after(mode: int) -> int:
        caplog.clear()
        path.chmod(mode)
        check(opened, clock)
        check(opened, clock)
        return len(caplog.messages)

    assert [1, 0, 1] == [warnings_after(mode) for mode in (0o644, 0o600, 0o604)]


# Tokens that name an unknown key


@pytest.mark.usefixtures("patient")
def test_refresh_reads_at_once(opened: KeyFile, path: Path, clock: Clock) -> None:
    """The request that brought a token of a new key gets it opened."""
    write(path, toml(OLD, NEW))
    clock.now += 1

    assert opened.refresh(clock()).keys == (NEW, OLD)


@pytest.mark.usefixtures("patient")
def test_refresh_reads_once_a_second_at_most(opened: KeyFile, path: Path, clock: Clock) -> None:
    """Ten thousand forged tokens are one reading."""
    clock.now += 1
    opened.refresh(clock())
    reader = opened._reader
    write(path, toml(OLD, NEW))

    rings = [opened.refresh(clock() + tick / 10_000) for tick in range(10_000)]

    assert {ring.keys for ring in rings} == {(OLD,)}
    assert opened._reader is reader
    assert opened.refresh(clock() + 1).keys == (NEW, OLD)


def _let_go(reader: threading.Thread, pipe: Path) -> None:
    """Ends a reader that waits for the pipe's writer, and the pipe."""
    writer = os.open(pipe, os.O_WRONLY)
    write(pipe, toml(OLD))
    os.close(writer)
    reader.join(WAIT)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("verb", ["current", "refresh"])
def test_first_request_after_a_pause_waits_for_the_file(opened: KeyFile, path: Path, clock: Clock, verb: str) -> None:
    """Nobody has asked for hours: what this process knows is that old."""
    write(path, toml(NEW))
    clock.now += 8 * 3600

    ring = getattr(opened, verb)(clock())

    assert ring.keys == (NEW,)


class Held:
    """Has a reader pause until something has happened, however long that takes."""

    def __init__(self, happened: threading.Event) -> None:
        self.happened = happened

    def wait(self, seconds: float) -> None:
        assert self.happened.wait(WAIT)


@pytest.mark.usefixtures("patient")
def test_unknown_key_waits_for_a_reading_that_runs_already(opened: KeyFile, path: Path, clock: Clock) -> None:
    """The request itself has begun it, when it asked for the ring."""
    write(path, toml(OLD, NEW))
    clock.now += CHECK
    asked = threading.Event()
    opened._pause = Held(asked)  # type: ignore[assignment]  # waits, and does no more

    before = opened.current(clock())
    asked.set()
    after = opened.refresh(clock())

    assert before.keys == (OLD,)
    assert after.keys == (NEW, OLD)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_disk_that_hangs_holds_nobody_up(opened: KeyFile, path: Path, clock: Clock) -> None:
    """One reading waits, one request waits for it a quarter of a second, and no other does either."""
    path.unlink()
    os.mkfifo(path)  # whose reader waits for a writer

    clock.now += CHECK
    keys = [opened.refresh(clock()).keys]
    hanging = opened._reader
    for _ in range(1000):
        clock.now += CHECK
        keys.append(opened.current(clock()).keys)
        keys.append(opened.refresh(clock()).keys)

    assert set(keys) == {(OLD,)}
    assert hanging is opened._reader
    assert hanging.is_alive()
    _let_go(hanging, path)


def test_process_without_room_for_a_thread_keeps_its_keys(
    opened: KeyFile, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads at a later check."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    write(path, toml(NEW))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    clock.now += CHECK
    keys = opened.current(clock()).keys, opened.refresh(clock()).keys
    monkeypatch.undo()

    assert keys == ((OLD,), (OLD,))
    assert check(opened, clock) == (NEW,)


CHILD = """
import os, sys, time
from cookiesession import KeyFile, keyfile
path, old, new = sys.argv[1:]
file = KeyFile(path)
before = file.current(time.time())
os.unlink(path)
os.mkfifo(path)
file.refresh(time.time() + 10)  # the parent's reader hangs
if os.fork():
    status = os.waitstatus_to_exitcode(os.wait()[1])
    os._exit(status)
os.rename(new, path)
keyfile._PATIENCE = 20  # a quarter of a second may be too little on a busy machine
os._exit(0 if file.refresh(time.time() + 20).keys != before.keys else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_reads_for_itself(path: Path, tmp_path: Path) -> None:
    """Whatever its parent's reader was doing."""
    write(tmp_path / "new", toml(NEW))
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(path), OLD.id, str(tmp_path / "new")]

    assert subprocess.run(command, check=False, timeout=60).returncode == 0  # noqa: S603 - this very Python
