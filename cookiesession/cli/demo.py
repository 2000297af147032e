"""The command `demo`, which serves the demonstration."""

from __future__ import annotations

import click

_FILE = click.Path(exists=True, dir_okay=False)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address or name to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--certfile", type=_FILE, help="Certificate chain (PEM), to serve over TLS.")
@click.option("--keyfile", type=_FILE, help="Its private key, where the chain's file does not hold it.")
def demo(host: str, port: int, certfile: str | None, keyfile: str | None) -> None:
    """Serve a page where you watch your own session at work."""
    if keyfile and not certfile:
        raise click.UsageError("--keyfile goes with --certfile")
    try:
        from cookiesession.demo.server import Server  # noqa: PLC0415  the one command that needs uvicorn
    except ModuleNotFoundError as error:
        raise click.ClickException(f'demo needs {error.name}: pip install "cookiesession[demo]"') from error
    try:
        server = Server(host, port, certfile=certfile, keyfile=keyfile)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"The demonstration is on {server.url} (Ctrl-C ends it).")
    click.echo("Its key ring was made for this run and goes with it, and so do the sessions it sealed.")
    server.run()
