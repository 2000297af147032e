"""The command `keys check`, which looks for what is wrong with a key file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from cookiesession.cli import options
from cookiesession.cli.files import others_may, read
from cookiesession.errors import ConfigurationError
from cookiesession.lint import RATE, Finding, lint
from cookiesession.schedule import Schedule, moment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from pathlib import Path

    from cookiesession.cli.options import Clock


def _finite(context: click.Context, param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):  # which a range lets through: nan is not outside of any
        raise click.BadParameter("it is a number of sessions", context, param)
    return value


@click.command(epilog=options.example("python -m cookiesession keys check keys.toml --lifetime 30d --rate 200"))
@options.file
@options.lifetime
@options.propagation
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=RATE,
    show_default=True,
    callback=_finite,
    help="How many sessions all instances seal in a second.",
)
@click.pass_obj
def check(clock: Clock, file: Path, lifetime: timedelta, propagation: timedelta, rate: float) -> None:
    """Look for what is wrong with FILE, or soon will be.

    Each finding is a line that starts with "error:" or "warning:". The status is 1 if there is any, else 0.
    """
    now = moment(int(clock()))
    findings = list(_findings(file, now, lifetime=lifetime, propagation=propagation, rate=rate))
    for finding in findings:
        click.echo(f"{finding.level}: {file}: {finding.message}")
    if findings:
        raise click.exceptions.Exit(1)
    click.echo(f"ok: {file}")


def _findings(
    path: Path, now: datetime, *, lifetime: timedelta, propagation: timedelta, rate: float
) -> Iterator[Finding]:
    try:
        if mode := others_may(path):
            yield Finding("error", f"others than its owner may use it (mode {mode:04o}); mend it with: chmod 600 FILE")
        schedule = Schedule.parse(read(path))
    except (OSError, ConfigurationError) as error:
        yield Finding("error", options.problem(path, error))
        return
    yield from lint(schedule, now, lifetime=lifetime, propagation=propagation, rate=rate)
