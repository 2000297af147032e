"""What commands share: durations such as `1h30m` as values, arguments and options, and errors of one line."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cookiesession.errors import ConfigurationError
from cookiesession.keys import ALGORITHMS
from cookiesession.lint import LIFETIME
from cookiesession.schedule import ADD, PROPAGATION
from cookiesession.times import brief, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Clock = Callable[[], float]
    """Seconds since the epoch. The object of every command's context is one; tests give another."""


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """A duration of at least `least`, as `cookiesession.times` reads it."""

    name = "duration"

    def __init__(self, least: timedelta = timedelta(0)) -> None:
        self.least = least

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration. Another text is an error of usage."""
        try:
            duration = value if isinstance(value, timedelta) else parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if duration < self.least:
            self.fail(f"{value!r} is less than {brief(self.least)}", param, ctx)
        return duration


_KEY_ID = re.compile("[0-9a-f]{8}")

ALGORITHM = click.Choice(ALGORITHMS)
POSITIVE = Duration(timedelta(seconds=1))

# What cannot be read is an error of the command, not of usage.
file = click.argument("file", type=click.Path(dir_okay=False, readable=False, path_type=Path))
lifetime = click.option(
    "--lifetime",
    type=POSITIVE,
    default=brief(LIFETIME),
    show_default=True,
    help="How long a session lives: the middleware's lifetime=.",
)
propagation = click.option(
    "--propagation",
    type=Duration(),
    default=brief(PROPAGATION),
    show_default=True,
    help="How long it takes until every instance has read a changed file.",
)


def key_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The id of a key. Whoever pastes the key itself does not see it again in the error."""
    if not _KEY_ID.fullmatch(value):
        raise click.BadParameter("an id is 8 of the digits 0-9 and a-f, as `keys list` shows it", ctx, param)
    return value


def example(*lines: str) -> str:
    """The end of a command's help, which click leaves as it is."""
    return "\n  ".join(["\b\nExample:", *lines])


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turns what is wrong with a file, or with the keys in it, into an error of one line and the status 1."""
    try:
        yield
    except (OSError, ConfigurationError) as error:
        raise click.ClickException(f"{path}: {problem(path, error)}") from error


def problem(path: Path, error: OSError | ConfigurationError) -> str:
    """What is wrong with the file at `path`, and the remedy or the other file that is the cause, where one is known."""
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        return f"there is no such file; make it with: {ADD}"
    cause = "" if error.filename in (None, str(path)) else f": {error.filename}"
    return f"{error.strerror or error}{cause}"
