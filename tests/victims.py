"""Processes that are forked for one call, which strace follows, makes fail or kills at any of its system calls."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STRACE = shutil.which("strace")
TRACED = 60  # seconds, for one call
ALL = 900  # seconds, for all calls of one file of tests on a busy machine

# Waits for lines, forks, and makes one call in the child, as soon as that is being traced. What it prints is lost.
_FORKING = """
import ctypes, json, os, signal, sys

nowhere = os.open(os.devnull, os.O_WRONLY)  # here, since a child opens nothing but what it is traced for
begun, begin = os.pipe()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)  # PR_SET_PTRACER: anybody, where Yama asks
        os.write(begin, b".")
        os.dup2(nowhere, sys.stdout.fileno())
        signal.sigwait([signal.SIGUSR1])
        code = 9
        try:
            code = call(*json.loads(line))
        finally:
            os._exit(code)
    os.read(begun, 1)  # whoever traces it any sooner may be refused
    print(child, flush=True)
    sys.stdin.readline()
    os.kill(child, signal.SIGUSR1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Victims:
    """A process that has imported what a call needs, and forks for each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, arguments: Sequence[str], *options: str, log: Path | None = None) -> int:
        """What the call returns, or what else becomes of its process, under strace with these options."""
        pid = self._say(json.dumps(arguments))
        output = os.devnull if log is None else str(log)
        command = (str(STRACE), "-p", str(pid), "-o", output, "-e", "signal=none", *options)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:  # noqa: S603  our own command
            assert tracer.stderr
            attached = tracer.stderr.readline()
            assert "attached" in attached, attached
            result = self._say("")
            tracer.communicate(timeout=TRACED)
        return result

    def _say(self, line: str) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def victims(script: str, *arguments: str) -> Iterator[Victims]:
    """As many as are asked for. The script defines `call()`, of strings, which returns a number."""
    command = (sys.executable, "-W", "error", "-c", script + _FORKING, *arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        limit = threading.Timer(ALL, process.kill)
        limit.start()
        try:
            yield Victims(process)
        finally:
            limit.cancel()
            process.kill()
