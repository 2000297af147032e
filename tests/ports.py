"""Ports for servers that have to be told theirs: below those that the system gives to clients, and none given twice."""

from __future__ import annotations

import os
import socket
from itertools import count
from typing import Final

import pytest

_FIRST: Final = 10_000  # Linux gives clients those from 32,768 on, and `redis_servers.py` takes its from 15,000 on
_SHARE: Final = 500  # for each process of pytest-xdist: what one has found, no other finds before it is in use
_SHARES: Final = 10

_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
_numbers: Final = count(os.getpid())  # two runs on one machine begin at different places


def free_port() -> int:
    """A port of this process's share that nobody listens on."""
    for _ in range(_SHARE):
        port = _FIRST + _WORKER * _SHARE + next(_numbers) % _SHARE
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    pytest.fail("no free port")
