"""The command line, with click: the group and what is in it. Each command is a few lines over a public function."""

from __future__ import annotations

import time

import click

from cookiesession.cli import demo, inspect, keys


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cookiesession")
@click.pass_context
def cli(context: click.Context) -> None:
    """Encrypted sessions for Starlette, FastAPI and any ASGI application."""
    context.obj = context.obj or time.time  # the clock of all commands


cli.add_command(keys.generate, "keygen")
cli.add_command(keys.keys)
cli.add_command(inspect.inspect)
cli.add_command(demo.demo)
