"""The demonstration over real sockets, inside this process."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from cookiesession.demo.server import Server

if TYPE_CHECKING:
    from pathlib import Path

WAIT = 60  # seconds, for one answer on a busy machine


@pytest.mark.servers
def test_server_answers_until_it_is_interrupted() -> None:
    """It can be asked as soon as it has a URL, and Ctrl-C ends it without a sound."""
    server = Server("127.0.0.1", 0)
    answers: list[httpx.Response] = []

    def visit() -> None:
        try:
            answers.append(httpx.get(server.url, timeout=WAIT))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    server.run()
    visitor.join(timeout=WAIT)

    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 300], ids=["unknown", "empty-label", "long"])
def test_unknown_host_is_named(host: str) -> None:
    """What no resolver knows is said in words."""
    with pytest.raises(OSError, match=f"cannot listen on {host}: there is no such host"):
        Server(host, 0)


def test_port_in_use_is_named() -> None:
    """The message says where, and what is the matter."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use"):
            Server("127.0.0.1", port)


def test_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    """A file of something else, a missing file, and a chain without its key are told before anything listens."""
    chain = tmp_path / "chain.pem"
    trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(chain)
    (tmp_path / "text.pem").write_text("hello")

    for name in ("chain.pem", "text.pem", "missing.pem"):
        with pytest.raises(OSError, match=f"cannot use the certificate .*{name}: "):
            Server("127.0.0.1", 0, certfile=str(tmp_path / name))
