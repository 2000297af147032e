"""A load generator, and a server to put under load: visitors with a connection each, who ask again once answered.

It runs in the process that measures and the server in one of its own, so that each has a core. A request costs the
generator some 40 µs, a quarter of what uvicorn needs for the shortest answer; what it used is in each `Load`, since a
generator that is busy all the time measures itself. Beside wrk, which is no Python package, it gets a tenth fewer
answers on two cores; of what is one, locust needs four times as much.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Headers = Sequence[tuple[bytes, bytes]]

WARM_UP: Final = 0.2  # seconds of load before those that count
START: Final = 20  # seconds for a server
PATIENCE: Final = 30  # seconds for an answer
END: Final = b"\r\n\r\n"  # of a response's headers
LENGTH: Final = b"\r\ncontent-length:"


class Load(NamedTuple):
    """What visitors got from a server."""

    rate: float
    """Answers per second."""

    median: float
    """Milliseconds from a request to the end of its answer: half were quicker."""

    p99: float
    """The same: one in a hundred was slower."""

    share: float
    """Of one core, what the generator used. The figures are the server's where this is well below 1."""


def request(path: str, headers: Headers) -> bytes:
    """A GET as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1".encode(), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + END


def load(port: int, requests: Sequence[bytes], seconds: float) -> Load:
    """Has one visitor for each of these requests, all at once. Raises `RuntimeError` where an answer is not a 200.

    Answers need a Content-Length. Cookies that they set are not taken up: each visitor sends the same request again.
    """
    gc.collect()
    gc.disable()
    try:
        watch, share = _drive(port, requests, seconds)
    finally:
        gc.enable()
    times = sorted(watch.times)
    median, p99 = (times[len(times) * part // 100] / 1e6 for part in (50, 99))
    return Load(watch.answers / seconds, median, p99, share)


def cookies_of(port: int, path: str, headers: Headers) -> list[bytes]:
    """The names and values of the cookies that the answer to one request sets."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={name.decode(): value.decode() for name, value in headers})
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return [line.partition(";")[0].encode() for line in answer.headers.get_all("set-cookie", [])]


@contextmanager
def served(factory: str, settings: Mapping[str, str]) -> Iterator[int]:
    """The port of a uvicorn with one worker, for the application that `factory` (`module:name`) gives.

    `settings` are in its environment. Its event loop and its parser are uvicorn's choice of what is installed.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "uvicorn", "--factory", factory, "--app-dir", str(Path(__file__).parent))
    options = ("--host", "127.0.0.1", "--port", str(port), "--lifespan", "off", "--log-level", "warning")
    process = subprocess.Popen(  # noqa: S603 - our own application
        (*command, *options, "--no-access-log"), stdin=subprocess.DEVNULL, env={**os.environ, **settings}
    )
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server listens within {START} s") from None
            time.sleep(0.02)
        else:
            return


def _drive(port: int, requests: Sequence[bytes], seconds: float) -> tuple[_Watch, float]:
    """Has every request sent again and again. What was seen, and the share of a core that it took."""
    with ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        visitors = [_Visitor(stack.enter_context(_connection(port)), request) for request in requests]
        watch = _Watch(WARM_UP, seconds)  # once all are there, which takes a server its time that has other work
        for visitor in visitors:
            waiting.register(visitor.connection, selectors.EVENT_READ, visitor)
            visitor.ask()
        used, start = time.process_time(), time.perf_counter()
        asking = len(requests)
        while asking:
            ready = waiting.select(PATIENCE)
            if not ready:
                raise RuntimeError(f"no answer within {PATIENCE} s")
            for key, _ in ready:
                visitor = key.data
                if not visitor.is_answered():
                    continue
                if watch.note(visitor.sent, time.perf_counter_ns()):
                    visitor.ask()
                else:
                    waiting.unregister(visitor.connection)
                    asking -= 1
        return watch, (time.process_time() - used) / (time.perf_counter() - start)


def _connection(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Watch:
    """The time that counts, and what was seen in it."""

    def __init__(self, delay: float, seconds: float) -> None:
        self.start: Final = time.perf_counter_ns() + int(delay * 1e9)
        self.end: Final = self.start + int(seconds * 1e9)
        self.answers = 0
        self.times: list[int] = []  # nanoseconds, of all requests that were under way in it, to their answers

    def note(self, sent: int, answered: int) -> bool:
        """Counts one answer. Whether there is time for another."""
        self.answers += self.start <= answered < self.end
        if sent < self.end and answered >= self.start:  # so that each visitor has one at least, however slow
            self.times.append(answered - sent)
        return answered < self.end


class _Visitor:
    """One connection, with one request under way."""

    def __init__(self, connection: socket.socket, request: bytes) -> None:
        self.connection: Final = connection
        self.sent = 0
        self._request = request
        self._received = b""

    def ask(self) -> None:
        """Sends the request. It fits into the buffers of the connection, on which nothing else is under way."""
        self.sent = time.perf_counter_ns()
        self.connection.sendall(self._request)

    def is_answered(self) -> bool:
        """Takes what has come. Whether that was the end of an answer."""
        data = self.connection.recv(2**16)
        if not data:
            raise RuntimeError("the server closed a connection")
        self._received += data
        head, end, body = self._received.partition(END)
        if not end:
            return False
        _, length, rest = head.lower().partition(LENGTH)
        if not head.startswith(b"HTTP/1.1 200") or not length:
            raise RuntimeError(f"a request was answered with {head[:64]!r}")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return False
        self._received = b""
        return True
