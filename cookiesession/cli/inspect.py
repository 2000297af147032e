"""The command `inspect`, which opens a token for its operator."""

from __future__ import annotations

import pkgutil
import pprint
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cookiesession import inspection
from cookiesession.cli import options
from cookiesession.cli.files import read
from cookiesession.cookies import MAX_CHUNKS, Cookie
from cookiesession.errors import ConfigurationError
from cookiesession.inspection.diagnosis import explain
from cookiesession.inspection.report import span, visible, when
from cookiesession.keys import KeyRing
from cookiesession.payload import PERSISTENT
from cookiesession.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cookiesession.cli.options import Clock
    from cookiesession.inspection.report import Contents, Header, Report

INPUT_LIMIT: Final = 2**20
"""Bytes of input: hundreds of times what a server takes in all headers."""

_WIDTH: Final = 12  # of the column of labels


@click.command(epilog=options.example("python -m cookiesession inspect --key-file keys.toml < cookie.txt"))
@click.option("--keys-env", metavar="NAME", default="SESSION_KEYS", show_default=True, help="Variable with the keys.")
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="Key file, instead of the variable.")
@click.option("--name", default=Cookie().full_name.decode(), show_default=True, help="The cookie's full name.")
@click.option(
    "--max-chunks",
    type=click.IntRange(1, MAX_CHUNKS),
    default=Cookie.max_chunks,
    show_default=True,
    help="The server's Cookie(max_chunks=).",
)
@click.option("--model", metavar="MODULE:NAME", help="The server's model=, to validate the data with.")
@click.pass_context
def inspect(
    context: click.Context, *, keys_env: str, key_file: Path | None, name: str, max_chunks: int, model: str | None
) -> None:
    """Open a token, or the session in a Cookie header, and say why it does not open.

    Reads the standard input. The output holds all that is in the session: treat it as you treat the session. Ends with
    status 0 if there is a live session, with 1 if there is none, and with 2 if the command itself cannot work. Asks no
    store: a session in one, or one that may be revoked, may have ended all the same.
    """
    clock: Clock = context.obj
    try:
        keys = KeyRing.from_env(keys_env) if key_file is None else Schedule.parse(read(key_file))
        found = inspection.inspect(
            _input(),
            keys,
            name=name.encode("utf-8", "surrogateescape"),  # as the process was given it
            now=int(clock()),
            max_chunks=max_chunks,
            model=model and _model(model),
        )
        for line in _lines(found):
            click.echo(_shown(line))
    except BrokenPipeError:
        raise  # of somebody who has seen enough, such as head: click ends without a word
    except (OSError, ConfigurationError) as error:
        raise click.UsageError(options.problem(key_file, error) if key_file else str(error)) from error
    context.exit(0 if found.is_live else 1)


def _shown(line: str) -> str:
    """A line with escapes for what would do something to the terminal, or what this cannot show."""
    printable = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
    return printable.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)


def _model(name: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{name!r}: {error}", param_hint="--model") from error
    except Exception as error:  # whatever the application's module raises; its text may be of anything
        raise click.BadParameter(f"{name!r} raises {type(error).__name__}", param_hint="--model") from error


def _input() -> bytes:
    if sys.stdin.isatty():
        click.echo("Paste a token or a Cookie header, then Enter and Ctrl-D. Of over 4 KB, use a file.", err=True)
    text = sys.stdin.buffer.read(INPUT_LIMIT + 1)
    if len(text) > INPUT_LIMIT:
        raise click.UsageError(f"the input has more than {INPUT_LIMIT} bytes")
    return text


def _lines(found: inspection.Inspection) -> Iterator[str]:
    for index, report in enumerate(found.reports):
        if index:
            yield ""
        for label, text in _rows(report):
            yield f"{label:{_WIDTH}}{text}"
    if not found.reports:
        names = ", ".join(map(visible, found.present)) or "none"
        yield f"There is no cookie {visible(found.name)}. The cookies are: {names}"


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    yield "cookie", visible(report.name)
    yield "verdict", "live" if report.reason is None else f"refused: {report.reason}"
    yield "because", explain(report)
    yield "text", f"{sum(map(len, report.parts))} bytes, chunks: {len(report.parts)}"
    if report.header is not None:
        yield from _header_rows(report.header)
    if report.contents is not None:
        yield from _contents_rows(report.contents, report.now)


def _header_rows(header: Header) -> Iterator[tuple[str, str]]:
    first = "" if header.version is None else f", the first of them 0x{header.version:02x}"
    yield "envelope", f"{header.length} bytes{first}"
    if header.key_id is not None:
        yield "key", str(header.key or f"{header.key_id} (unknown)")
    if header.algorithm is not None:
        yield "algorithm", f"{header.algorithm}, with a nonce of {header.nonce} bytes"
    if header.sealed_at is not None:
        yield "sealed", when(header.sealed_at)


def _contents_rows(contents: Contents, now: int) -> Iterator[tuple[str, str]]:
    payload = contents.payload
    flags = {
        "persistent": payload.flags & PERSISTENT,
        "compressed": contents.is_compressed,
        "bound to a client": payload.bound is not None,
    }
    yield (
        "plaintext",
        f"{contents.length} bytes, of which {contents.encoded} are encoded and {contents.padding} padding",
    )
    yield "created", _moment(payload.created_at, now)
    yield "renewed", _moment(payload.renewed_at, now)
    yield "expires", _moment(payload.expires_at, now)
    if not contents.is_ticket:
        yield "idle", _idle(contents, now)
    yield "flags", ", ".join(name for name, flag in flags.items() if flag) or "none"
    if contents.is_ticket:
        yield "data", "in a store, as are subject and idle timeout: the cookie holds a sealed id"
        return
    yield "subject", "none" if payload.subject is None else repr(payload.subject)
    if contents.is_readable:
        yield "data", f"{len(payload.data)} bytes"
        yield from (("", line) for line in _pretty(contents.data).splitlines())
    else:
        yield "data", "cannot be read"


def _idle(contents: Contents, now: int) -> str:
    payload = contents.payload
    if not payload.idle_timeout:
        return "no timeout"
    return f"timeout {span(payload.idle_timeout)}, {_moment(payload.renewed_at + payload.idle_timeout, now)}"


def _moment(seconds: int, now: int) -> str:
    distance = f"in {span(seconds - now)}" if seconds > now else f"{span(now - seconds)} ago"
    return f"{when(seconds)} ({distance})"


def _pretty(data: Any) -> str:
    try:
        return pprint.pformat(data, width=100, sort_dicts=False)
    except RecursionError:
        return "nested too deeply to show"
