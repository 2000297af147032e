"""The commands `keys`: what they say, what they leave in the file, and what they never show."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner
from filelock import FileLock
from harness import START, Clock

from cookiesession import Key, KeyFile
from cookiesession.cli import cli, files, tables
from cookiesession.cli.options import Duration
from cookiesession.errors import KEYGEN
from cookiesession.keys import ALGORITHMS
from cookiesession.schedule import ADD, Schedule, moment

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from cookiesession.schedule import ScheduledKey

HOUR, DAY = 3600, 86400
LIMIT = 60  # seconds: no process of these tests needs that long


class Shell:
    """A command line with a clock of its own, and a directory to work in."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.file = directory / "keys.toml"

    def run(self, command: str, *arguments: str, file: Path | None = None) -> Result:
        """The end of a command, which neither raises nor shows a secret of the file."""
        file = file or self.file
        before = secrets(file)
        result = CliRunner().invoke(cli, ["keys", command, str(file), *arguments], obj=self.clock)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert [] == [secret for secret in before | secrets(file) if secret in result.output]
        return result

    def succeed(self, command: str, *arguments: str, file: Path | None = None) -> str:
        """What a command says that ends well."""
        result = self.run(command, *arguments, file=file)
        assert (0, "") == (result.exit_code, result.stderr)
        return result.stdout

    def fail(self, command: str, *arguments: str, file: Path | None = None) -> str:
        """The error of a command: one line, and the status 1."""
        result = self.run(command, *arguments, file=file)
        assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
        assert result.stderr.startswith(f"Error: {file or self.file}: ")
        return result.stderr.removeprefix(f"Error: {file or self.file}: ").rstrip("\n")

    @property
    def keys(self) -> tuple[ScheduledKey, ...]:
        """What the file holds."""
        return Schedule.parse(self.file.read_bytes()).keys

    @property
    def ids(self) -> list[str]:
        """The ids of the keys in the file."""
        return [each.key.id for each in self.keys]


def secrets(file: Path) -> set[str]:
    """What must not be shown: the keys of a file, without their prefix."""
    return set(re.findall(r"[\w-]{43}", file.read_text())) if file.is_file() else set()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """One in a directory of its own."""
    return Shell(tmp_path)


# generate


@pytest.mark.parametrize("arguments", [(), *((name,) for name in ALGORITHMS)], ids=["default", *ALGORITHMS])
@pytest.mark.parametrize("command", [("keys", "generate"), ("keygen",)], ids=["generate", "keygen"])
def test_generate_is_keygen(command: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """One line that parses, by either name."""
    result = CliRunner().invoke(cli, [*command, *arguments])

    assert (0, 1) == (result.exit_code, result.stdout.count("\n"))
    assert (arguments or ("xaes-256-gcm",))[0] == Key.parse(result.stdout).algorithm


# add


def test_first_key_makes_the_file_and_seals_at_once(shell: Shell) -> None:
    """For its owner alone, and fit for use."""
    said = shell.succeed("add")

    (only,) = shell.keys
    assert (moment(START), moment(START), None) == (only.added, only.activates, only.retires)
    assert said == (
        f"key {only.key.id} (xaes-256-gcm) is new: "
        "it was added 2027-01-15T08:00:00Z and activates 2027-01-15T08:00:00Z\n"
    )
    assert 0o600 == shell.file.stat().st_mode & 0o777
    assert only.key == KeyFile(shell.file, clock=shell.clock).current(START).primary


def test_next_key_waits_for_an_hour(shell: Shell) -> None:
    """Until every instance has read it."""
    shell.succeed("add")
    shell.clock.now += DAY + 0.75

    said = shell.succeed("add", "--algorithm", "fernet")

    new = shell.keys[1]
    assert ("fernet", moment(START + DAY), moment(START + DAY + HOUR)) == (new.key.algorithm, new.added, new.activates)
    assert "it was added 2027-01-16T08:00:00Z and activates 2027-01-16T09:00:00Z\n" in said


@pytest.mark.parametrize(("text", "seconds"), [("2h", 2 * HOUR), ("1h30m", 5400), ("0s", 0)])
def test_key_waits_as_long_as_one_says(shell: Shell, text: str, seconds: int) -> None:
    """The first one too."""
    shell.succeed("add", "--activate-in", text)
    shell.succeed("add", "--activate-in", text)

    assert [moment(START + seconds)] * 2 == [each.activates for each in shell.keys]


def test_key_after_retired_ones_seals_at_once(shell: Shell) -> None:
    """There is nothing to wait for."""
    shell.succeed("add")
    shell.succeed("add", "--activate-in", "0s")
    text = shell.file.read_text().replace("\nactivates", "\nretires = 2027-01-16T08:00:00Z\nactivates")
    shell.file.write_text(text)
    shell.clock.now += DAY

    shell.succeed("add")

    assert moment(START + DAY) == shell.keys[-1].activates


@pytest.mark.parametrize("name", ["keys.json", "keys.JSON"])
def test_name_of_a_new_file_says_what_it_is(shell: Shell, name: str) -> None:
    """JSON where it ends so, and else TOML."""
    shell.file = shell.file.with_name(name)

    shell.succeed("add")
    shell.succeed("add")

    assert 2 == len(json.loads(shell.file.read_bytes())["keys"])


def test_blank_file_is_a_new_one(shell: Shell) -> None:
    """As `touch` makes it."""
    shell.file.touch(0o600)

    shell.succeed("add")

    assert [moment(START)] == [each.activates for each in shell.keys]


def test_comments_of_a_file_stay(shell: Shell) -> None:
    """Whatever is done to it."""
    shell.succeed("add")
    shell.file.write_text(shell.file.read_text().replace("\nadded", "  # Ada's\nadded") + "\n# The end.\n")

    shell.succeed("add")
    shell.succeed("rotate", "--every", "1s")
    shell.succeed("retire", shell.ids[-1])

    assert all(comment in shell.file.read_text() for comment in ("  # Ada's\n", "\n# The end.\n"))


def test_file_that_others_could_use_is_closed_and_that_is_said(shell: Shell) -> None:
    """It may be news to an application that reads it as one of the others."""
    shell.succeed("add")
    shell.file.chmod(0o640)

    result = shell.run("add")

    assert 0 == result.exit_code
    assert f"warning: {shell.file}: its mode was 0640 and is 0600: its owner's alone\n" == result.stderr
    assert 0o600 == shell.file.stat().st_mode & 0o777


# list


def test_list_shows_what_each_key_does(shell: Shell) -> None:
    """As aligned text where another program reads: nothing is cut off."""
    shell.succeed("add", "--algorithm", "aes-256-gcm")
    shell.succeed("add")
    shell.clock.now += 2 * HOUR
    shell.succeed("add")
    shell.succeed("add")
    first, second, third, fourth = shell.ids
    shell.succeed("retire", third)

    said = shell.succeed("list")

    assert said.splitlines() == [
        "id        algorithm     state    added                 activates             retires",
        f"{first}  aes-256-gcm   active   2027-01-15T08:00:00Z  2027-01-15T08:00:00Z",
        f"{second}  xaes-256-gcm  primary  2027-01-15T08:00:00Z  2027-01-15T09:00:00Z",
        f"{third}  xaes-256-gcm  retired  2027-01-15T10:00:00Z  2027-01-15T11:00:00Z  2027-01-15T10:00:00Z",
        f"{fourth}  xaes-256-gcm  pending  2027-01-15T10:00:00Z  2027-01-15T11:00:00Z",
    ]


def test_list_shows_the_same_to_programs(shell: Shell) -> None:
    """As JSON."""
    shell.succeed("add")
    shell.succeed("add")
    first, second = shell.ids
    shell.succeed("retire", first, "--in", "1d")

    said = json.loads(shell.succeed("list", "--json"))

    times = {"added": "2027-01-15T08:00:00Z", "activates": "2027-01-15T08:00:00Z", "retires": "2027-01-16T08:00:00Z"}
    assert {"id": first, "algorithm": "xaes-256-gcm", "state": "primary", **times} == said[0]
    assert (second, "pending", None) == (said[1]["id"], said[1]["state"], said[1]["retires"])


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_table_on_a_terminal_is_whole(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow one breaks its cells, between date and time first."""
    monkeypatch.setenv("COLUMNS", str(columns))
    row = ["5f0c2a17", "xaes-256-gcm", "primary", "2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z", ""]

    said = tables.render(("id", "algorithm", "state", "added", "activates", "retires"), [row], terminal=True)

    assert "━" in said
    assert "…" not in said
    assert "".join(row).replace("T", "") == "".join(
        "".join(cells)
        for cells in zip(*(line.split("│")[1:-1] for line in said.splitlines() if "│" in line), strict=True)
    ).replace(" ", "")


def test_list_draws_a_table_on_a_terminal(shell: Shell) -> None:
    """A real one."""
    shell.succeed("add")
    ours, theirs = pty.openpty()
    command = (sys.executable, "-m", "cookiesession", "keys", "list", str(shell.file))
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "COLUMNS": "120"}) as process:  # noqa: S603  ours
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # EIO, which Linux gives in the place of an end
            while part := os.read(ours, 65536):  # a terminal passes on what it likes
                said += part
        process.wait()
        limit.cancel()
    os.close(ours)

    assert "━" in said.decode()
    assert shell.ids[0] in said.decode()


# rotate


def test_rotation_runs_by_itself(shell: Shell) -> None:
    """Every day for a year: a key a month, never more than three in the file, and never anything to complain of."""
    shell.succeed("add")
    seen = set(shell.ids)
    for _ in range(365):
        shell.clock.now += DAY
        shell.succeed("rotate")
        assert f"ok: {shell.file}\n" == shell.succeed("check")
        seen |= set(shell.ids)
        assert len(shell.keys) <= 3

    assert 13 == len(seen)


def test_rotation_says_what_it_did(shell: Shell) -> None:
    """Added, dated, removed."""
    shell.succeed("add")
    shell.clock.now += 30 * DAY
    added = shell.succeed("rotate")
    old, new = shell.ids
    shell.clock.now += DAY
    dated = shell.succeed("rotate")
    shell.clock.now += 15 * DAY
    removed = shell.succeed("rotate")

    assert (
        f"key {new} (xaes-256-gcm) is new: it was added 2027-02-14T08:00:00Z and activates 2027-02-14T09:00:00Z\n"
        == (added)
    )
    assert f"key {old} (xaes-256-gcm) retires 2027-02-28T10:00:00Z\n" == dated
    assert f"key {old} (xaes-256-gcm) is gone: it retired 2027-02-28T10:00:00Z\n" == removed
    assert [new] == shell.ids


def test_rotation_that_is_not_due_does_not_touch_the_file(shell: Shell) -> None:
    """Its time and its inode stay, and it says so."""
    shell.succeed("add")
    before = shell.file.stat()
    shell.clock.now += 29 * DAY

    said = shell.succeed("rotate")

    after = shell.file.stat()
    assert "nothing is due\n" == said
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def test_rotation_takes_its_times_from_the_options(shell: Shell) -> None:
    """All of them, and the algorithm."""
    shell.succeed("add", "--algorithm", "aes-256-gcm")
    options = ("--every", "7d", "--lifetime", "1d", "--propagation", "2h")
    shell.clock.now += 7 * DAY
    shell.succeed("rotate", *options)
    shell.clock.now += 2 * HOUR
    shell.succeed("rotate", *options)
    first, second = shell.keys
    shell.clock.now += 7 * DAY
    shell.succeed("rotate", *options, "--algorithm", "xaes-256-gcm")
    third = shell.keys[-1]

    begins = START + 7 * DAY + 2 * HOUR
    assert (moment(begins + DAY + 2 * HOUR), moment(begins)) == (first.retires, second.activates)
    assert ("aes-256-gcm", "xaes-256-gcm") == (second.key.algorithm, third.key.algorithm)


# retire


def test_retired_key_is_dead_at_once(shell: Shell) -> None:
    """It is what one does with a leaked key; the next one seals."""
    shell.succeed("add")
    shell.succeed("add")
    leaked, next_one = shell.ids

    said = shell.succeed("retire", leaked)

    assert f"key {leaked} (xaes-256-gcm) retires 2027-01-15T08:00:00Z\n" == said
    ring = KeyFile(shell.file, clock=shell.clock).current(START)
    assert [next_one] == [key.id for key in ring.keys]


def test_key_retires_when_one_says(shell: Shell) -> None:
    """Doing it again puts it off."""
    shell.succeed("add")
    shell.succeed("add")

    shell.succeed("retire", shell.ids[0], "--in", "2h")
    shell.succeed("retire", shell.ids[0], "--in", "1d")

    assert [moment(START + DAY), None] == [each.retires for each in shell.keys]


def test_last_key_is_not_retired(shell: Shell) -> None:
    """The error says what to do first."""
    shell.succeed("add")

    assert f"no key would be left to seal after {shell.ids[0]}; add one first with: {ADD}" == shell.fail(
        "retire", shell.ids[0]
    )
    assert [None] == [each.retires for each in shell.keys]


def test_unknown_key_is_not_retired(shell: Shell) -> None:
    """A slip of the pen."""
    shell.succeed("add")

    assert "it holds no key with the id 00000000" == shell.fail("retire", "00000000")


def test_key_that_is_given_for_its_id_is_not_shown(shell: Shell) -> None:
    """Logs keep command lines and their errors."""
    shell.succeed("add")

    result = shell.run("retire", shell.keys[0].key.export())

    assert 2 == result.exit_code
    assert "an id is 8 of the digits 0-9 and a-f" in result.stderr


# check


def findings(shell: Shell, *arguments: str) -> list[str]:
    """The lines of a check that finds something, without what all of them start with."""
    result = shell.run("check", *arguments)
    assert (1, "") == (result.exit_code, result.stderr)
    lines = result.stdout.splitlines()
    assert all(re.match(rf"(error|warning): {re.escape(str(shell.file))}: ", line) for line in lines)
    return [line.replace(f"{shell.file}: ", "") for line in lines]


def test_check_of_a_good_file_says_so(shell: Shell) -> None:
    """And ends with 0."""
    shell.succeed("add")

    assert f"ok: {shell.file}\n" == shell.succeed("check")


def test_check_finds_what_is_wrong_with_the_schedule(shell: Shell) -> None:
    """The options are those of the lint."""
    shell.succeed("add", "--algorithm", "aes-256-gcm")
    shell.succeed("add", "--activate-in", "10m")
    shell.succeed("retire", shell.ids[0], "--in", "7d")

    early, ends = findings(shell)

    assert early.startswith(f"warning: key {shell.ids[0]} retires at 2027-01-22T08:00:00Z, and the sessions")
    assert ends.startswith(f"error: key {shell.ids[1]} seals from 2027-01-15T08:10:00Z")
    assert f"ok: {shell.file}\n" == shell.succeed("check", "--lifetime", "6d", "--propagation", "10m", "--rate", "10")
    assert 3 == len(findings(shell, "--rate", "1e7"))


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o610])
def test_check_finds_permissions_of_others(shell: Shell, permissions: int) -> None:
    """Whatever they are for."""
    shell.succeed("add")
    shell.file.chmod(permissions)

    assert [
        f"error: others than its owner may use it (mode {permissions:04o}); mend it with: chmod 600 FILE"
    ] == findings(shell)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not a list of keys with their times"),
        ("csk1.xaes-256-gcm.AAAA", "it is neither JSON nor TOML"),
        ("{", "it is neither JSON nor TOML"),
        ("TWICE", "two keys of the ring have the id "),
    ],
    ids=["empty", "key", "cut-short", "twice"],
)
def test_check_finds_what_is_no_key_file(shell: Shell, text: str, message: str) -> None:
    """One error, and only `add` can mend an empty one."""
    shell.succeed("add")
    entry = shell.file.read_text().partition("\n\n")[2]
    shell.file.write_text(entry * 2 if text == "TWICE" else text)

    (finding,) = findings(shell)

    assert finding.startswith(f"error: {message}")
    assert shell.fail("list").startswith(message)
    assert shell.fail("rotate").startswith(message)
    assert shell.fail("retire", "00000000").startswith(message)


def test_file_of_no_key_can_be_added_to(shell: Shell) -> None:
    """Until then every other command says so, or shows it."""
    shell.file.touch(mode=0o600)
    shell.file.write_text("keys = []")

    assert ["id  algorithm  state  added  activates  retires"] == shell.succeed("list").splitlines()
    assert findings(shell)[0].startswith("error: it holds no key; add one with")
    assert shell.fail("rotate").startswith("there is no key to rotate")
    assert shell.fail("retire", "00000000").startswith("it holds no key with the id")
    shell.succeed("add")
    assert ["primary"] == [state for _, state in Schedule(shell.keys).states(moment(START))]


def test_check_finds_that_there_is_no_file(shell: Shell) -> None:
    """As every other command does, but for the one that makes it."""
    message = f"there is no such file; make it with: {ADD}"

    assert [f"error: {message}"] == findings(shell)
    assert [message] * 3 == [shell.fail("list"), shell.fail("rotate"), shell.fail("retire", "00000000")]
    assert not shell.file.exists()
    assert [] == list(shell.file.parent.iterdir())


# What cannot be


def test_file_in_no_directory_is_not_made(shell: Shell) -> None:
    """Nor is the directory."""
    file = shell.file.parent / "missing" / "keys.toml"

    message = shell.fail("add", file=file)

    assert f"No such file or directory: {file.with_name('.keys.toml.lock')}" == message
    assert [] == list(shell.file.parent.iterdir())


def test_held_lock_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that holds it may hang."""
    shell.succeed("add")
    lock = shell.file.with_name(".keys.toml.lock")
    monkeypatch.setattr(files, "PATIENCE", 0.1)

    with FileLock(lock):
        message = shell.fail("add")

    assert f"another process has held {lock} for 0.1 s" == message


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("add", ("--activate-in", "soon"), "'soon': a duration is written as 90s, 2h, 30d or 1h30m"),
        ("add", ("--activate-in", "-1h"), "'-1h': a duration is written as"),
        ("add", ("--algorithm", "rot13"), "'rot13' is not one of"),
        ("rotate", ("--every", "0s"), "'0s' is less than 1s"),
        ("rotate", ("--lifetime", "0m"), "'0m' is less than 1s"),
        ("check", ("--rate", "0"), "is not in the range x>0"),
        ("check", ("--rate", "nan"), "it is a number of sessions"),
        ("retire", (), "Missing argument 'ID'"),
    ],
    ids=["word", "negative", "algorithm", "every", "lifetime", "rate", "no-rate", "id"],
)
def test_wrong_usage_ends_with_2(shell: Shell, command: str, arguments: tuple[str, ...], message: str) -> None:
    """And leaves no file."""
    result = shell.run(command, *arguments)

    assert (2, "") == (result.exit_code, result.stdout)
    assert message in " ".join(result.stderr.split())
    assert not shell.file.exists()


def test_directory_is_no_file(shell: Shell) -> None:
    """A mistake of usage."""
    shell.file.mkdir()

    assert [2] * 5 == [shell.run(name).exit_code for name in ("add", "list", "rotate", "retire", "check")]


def test_duration_takes_one_that_is_one() -> None:
    """As a default may be."""
    assert timedelta(hours=1) == Duration().convert(timedelta(hours=1), None, None)
    with pytest.raises(click.BadParameter):
        Duration(timedelta(hours=2)).convert(timedelta(hours=1), None, None)


@pytest.mark.parametrize("name", ["generate", "add", "list", "rotate", "retire", "check", ""])
def test_help_has_an_example_that_runs_here(name: str) -> None:
    """It starts as the command line does that errors name."""
    result = CliRunner().invoke(cli, ["keys", *([name] if name else []), "--help"])

    example = result.stdout.partition("Example:\n")[2]
    assert f"{KEYGEN.removesuffix(' keygen')} keys {name}" in example
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_clock_is_the_real_one_otherwise(tmp_path: Path) -> None:
    """In whole seconds."""
    file = tmp_path / "keys.toml"

    CliRunner().invoke(cli, ["keys", "add", str(file)])

    (only,) = Schedule.parse(file.read_bytes()).keys
    assert 0 == only.added.microsecond
    assert abs(only.added.timestamp() - file.stat().st_mtime) < LIMIT
