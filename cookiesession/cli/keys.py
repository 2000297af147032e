"""The commands `keys`, which make key files, show them and change them. Secrets are printed by `generate` alone."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cookiesession.cli import options, tables
from cookiesession.cli.check import check
from cookiesession.cli.documents import document
from cookiesession.cli.files import locked, read
from cookiesession.keys import ALGORITHMS, Key
from cookiesession.schedule import PROPAGATION, Schedule, moment
from cookiesession.times import brief, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cookiesession.aead import Algorithm
    from cookiesession.cli.options import Clock
    from cookiesession.schedule import ScheduledKey

_KEYS = "python -m cookiesession keys"
_COLUMNS = ("id", "algorithm", "state", "added", "activates", "retires")


@click.group(epilog=options.example(f"{_KEYS} add keys.toml", f"{_KEYS} rotate keys.toml --every 30d"))
def keys() -> None:
    """Make key files, look into them and change them.

    KeyFile("keys.toml") reads such a file, and reads it again when it changes. An empty file
    .keys.toml.lock stays beside it: it keeps two commands from changing the keys at once.
    """


@keys.command(epilog=options.example(f'SESSION_KEYS="$({_KEYS} generate)"'))
@click.argument("algorithm", type=options.ALGORITHM, default=ALGORITHMS[0])
def generate(algorithm: Algorithm) -> None:
    """Make a key and print it.

    Keep the key as you keep a password: whoever holds it can read and write every session.
    """
    click.echo(Key.generate(algorithm).export())


@keys.command(epilog=options.example(f"{_KEYS} add keys.toml --activate-in 2h"))
@options.file
@click.option(
    "--activate-in",
    type=options.Duration(),
    help=f"Until the key seals, so that every instance has read it by then.  [default: {brief(PROPAGATION)}, "
    "and at once for the first key]",
)
@click.option("--algorithm", type=options.ALGORITHM, default=ALGORITHMS[0], show_default=True)
@click.pass_obj
def add(clock: Clock, file: Path, activate_in: timedelta | None, algorithm: Algorithm) -> None:
    """Add a new key to FILE, and make FILE where there is none.

    The key opens sessions as soon as the file is read, and seals them once it is active. A new file is for its owner
    alone (0600): make it as the user that the application runs as. It is JSON where its name ends in .json, else TOML.
    """

    def added(schedule: Schedule) -> Schedule:
        now = moment(int(clock()))
        first = all(each.has_retired(now) for each in schedule.keys)
        wait = activate_in if activate_in is not None else timedelta(0) if first else PROPAGATION
        return schedule.add(Key.generate(algorithm), now, wait)

    _change(file, added, create=True)


@keys.command("list", epilog=options.example(f"{_KEYS} list keys.toml"))
@options.file
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@click.pass_obj
def list_(clock: Clock, file: Path, *, as_json: bool) -> None:
    """Show the keys in FILE, without their secrets.

    A pending key opens sessions and will seal, the primary one seals, an active one still opens what it sealed, and a
    retired one does nothing more.
    """
    with options.one_line(file):
        schedule = Schedule.parse(read(file))
    rows = [
        (each.key.id, each.key.algorithm, state, stamp(each.added), stamp(each.activates), _retirement(each))
        for each, state in schedule.states(moment(int(clock())))
    ]
    if as_json:
        objects = [{**dict(zip(_COLUMNS, row, strict=True)), "retires": row[-1] or None} for row in rows]
        click.echo(json.dumps(objects, indent=2))
    else:
        click.echo(tables.render(_COLUMNS, rows, terminal=sys.stdout.isatty()), nl=False)


@keys.command(epilog=options.example(f"7 4 * * *  {_KEYS} rotate /etc/shop/keys.toml --every 30d --lifetime 14d"))
@options.file
@click.option(
    "--every", type=options.POSITIVE, default="30d", show_default=True, help="How old the newest key may become."
)
@options.lifetime
@options.propagation
@click.option("--algorithm", type=options.ALGORITHM, help="Of the next key.  [default: that of the newest one]")
@click.pass_obj
def rotate(
    clock: Clock,
    file: Path,
    *,
    every: timedelta,
    lifetime: timedelta,
    propagation: timedelta,
    algorithm: Algorithm | None,
) -> None:
    """Do what is due: the next key, the end of old ones.

    Run it daily. It adds a key once the newest is old enough, gives those that a newer one has replaced a time to
    retire, after the last session that they can have sealed, and removes those that have retired. Where nothing is due
    FILE stays untouched.
    """

    def rotated(schedule: Schedule) -> Schedule:
        now = moment(int(clock()))
        return schedule.rotate(now, every=every, lifetime=lifetime, propagation=propagation, algorithm=algorithm)

    _change(file, rotated)


@keys.command(epilog=options.example(f"{_KEYS} retire keys.toml 5f0c2a17"))
@options.file
@click.argument("id", callback=options.key_id)
@click.option("--in", "after", type=options.Duration(), default="0s", show_default="at once", help="Until then.")
@click.pass_obj
def retire(clock: Clock, file: Path, id: str, after: timedelta) -> None:
    """End a key, and every session still under it.

    For a key that has leaked. Keys that are merely old are the business of rotate, which ends no session early.
    """
    _change(file, lambda schedule: schedule.retire(id, moment(int(clock())) + after))


keys.add_command(check)


def _change(path: Path, verb: Callable[[Schedule], Schedule], *, create: bool = False) -> None:
    """Does what the verb says to the schedule in a file, and says so. Where that changes nothing, nothing is written.

    The verb reads the clock itself, under the lock: another process may have held that for seconds.
    """
    with options.one_line(path), locked(path, create=create) as file:
        text = file.text or b""
        before = Schedule() if create and not text.strip() else Schedule.parse(text)
        after = verb(before)
        if after != before:
            file.write(document(after, text, as_json=path.suffix.lower() == ".json"))
    for line in _differences(before, after):
        click.echo(line)
    if file.others_may and after != before:
        click.echo(f"warning: {path}: its mode was {file.others_may:04o} and is 0600: its owner's alone", err=True)


def _differences(before: Schedule, after: Schedule) -> Iterator[str]:
    if before == after:
        yield "nothing is due"
    held = {each.key.id: each for each in before.keys}
    for each in after.keys:
        known = held.pop(each.key.id, None)
        if known is None:
            yield f"{_name(each)} is new: it was added {stamp(each.added)} and activates {stamp(each.activates)}"
        elif known.retires != each.retires:
            yield f"{_name(each)} retires {_retirement(each)}"
    for each in held.values():
        yield f"{_name(each)} is gone: it retired {_retirement(each)}"


def _name(scheduled: ScheduledKey) -> str:
    return f"key {scheduled.key.id} ({scheduled.key.algorithm})"


def _retirement(scheduled: ScheduledKey) -> str:
    return "" if scheduled.retires is None else stamp(scheduled.retires)
