"""Ports for servers that have to be told theirs: none is given twice, to whichever processes of whichever runs.

They are in shares. A process takes one, at its first port, and has it until it ends. All are below the ports that the
system gives to clients, any of which may be in use at any moment.
"""

from __future__ import annotations

import functools
import os
import socket
from itertools import count
from typing import Final

import pytest

BUS: Final = 10_000  # a cluster's servers talk to one another on the port so far above that of their clients
_FIRST: Final = 10_000  # so that the last bus is at 29,999. Linux gives clients those from 32,768 on
_SIZE: Final = 200
_SHARES: Final = 50

_numbers: Final = count(os.getpid())  # the next run does not begin where the last one has just ended


@functools.cache
def _share() -> range:
    """The ports that this process may give."""
    for first in range(_FIRST, _FIRST + _SHARES * _SIZE, _SIZE):
        try:
            lock = socket.create_server(("127.0.0.1", first))
        except OSError:
            continue
        # Whoever listens on the first port has the others. The system closes it, however the process ends, so that no
        # lock outlives its owner; and there are as many of these locks as there are such ports, even in containers.
        lock.detach()
        return range(first + 1, first + _SIZE)
    pytest.fail("no share of ports is free")


def free_port() -> int:
    """A port of this process's share on which nobody listens, nor on its bus."""
    share = _share()
    for _ in share:
        port = share[next(_numbers) % len(share)]
        if _is_free(port) and _is_free(port + BUS):
            return port
    pytest.fail("no port is free")


def _is_free(port: int) -> bool:
    # Without SO_REUSEADDR: some servers cannot listen where the connections of another have just been closed.
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
