"""`python -m cookiesession`: the command line. Making a key, which every key error asks for, needs no extra."""

from __future__ import annotations

import os
import sys

from cookiesession.errors import ConfigurationError
from cookiesession.keys import Key

_EXTRA = ("click", "filelock", "rich", "tomlkit")


def main() -> None:
    """Runs the command that the process was given. Never returns."""
    _open_closed_streams()
    try:
        from cookiesession.cli import cli  # noqa: PLC0415  what it needs comes with an extra
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit(_run_without(error.name, sys.argv[1:]))
    cli(prog_name="python -m cookiesession")


def _open_closed_streams() -> None:
    """Puts nothing in the place of the standard streams that the process was started without: Python has None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # and gives its number to the next file that is opened
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open


def _run_without(package: str, arguments: list[str]) -> str | None:
    """Makes a key. Returns the error that ends the process, or None."""
    command, *rest = arguments or ["help"]
    if command != "keygen" or len(rest) > 1:
        extra = "demo" if command == "demo" else "cli"
        return f'Error: {command} needs {package}: pip install "cookiesession[{extra}]"'
    try:
        key = Key.generate(*rest)  # type: ignore[arg-type]  # what is not an algorithm is refused
    except ConfigurationError as error:
        return f"Error: {error}"
    sys.stdout.write(key.export() + "\n")
    return None


if __name__ == "__main__":
    main()
