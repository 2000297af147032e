"""The demonstration over a socket. The one file that knows uvicorn."""

from __future__ import annotations

import contextlib
import os
import socket

import uvicorn

from cookiesession.demo.app import create_app


class Server:
    """Serves the demonstration on `host` and `port`, over TLS where there is a certificate. Port 0 takes a free one.

    It listens from its construction on: who knows the `url` will be answered. Raises `OSError`, with a message for
    people, where it cannot listen or the certificate will not do.
    """

    def __init__(self, host: str, port: int, *, certfile: str | None = None, keyfile: str | None = None) -> None:
        secure = certfile is not None
        config = uvicorn.Config(
            create_app(secure=secure),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
        )
        try:
            config.load()
        except OSError as error:
            raise OSError(f"cannot use the certificate {certfile}: {error.strerror}") from error
        self._server = uvicorn.Server(config)
        self._listener = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if secure else 'http'}://{name}:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Serves until it is interrupted."""
        # On the signal uvicorn winds down, and then raises it again.
        with self._listener, contextlib.suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: no name at all, such as "a..b"
        raise OSError(f"cannot listen on {host}: there is no such host") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"cannot listen on {host}, port {port}: {reason}") from error
