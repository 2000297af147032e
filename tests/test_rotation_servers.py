"""Ten rotations of a key file under load: two servers of two processes each, clients that hop, and no session lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from ports import free_port
from rotation_app import LIFETIME

from cookiesession import base64url
from cookiesession.schedule import Schedule
from cookiesession.times import brief

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

ROTATIONS: Final = 10
START: Final = 30  # seconds that a server may take until it answers
STOP: Final = 5  # seconds that it may take to end before it is killed
WAIT: Final = 20  # seconds for one answer, or one command
DEADLINE: Final = 200  # seconds for the rotations; they take an eighth of that on a machine that has nothing else to do

# What `rotate` is told. The servers read the file every second, and all go by one clock.
RULES: Final = ("--propagation", "3s", "--lifetime", brief(LIFETIME))

# Seconds between the requests of a client, of which there are 12 busy ones. The others come back so late that their
# cookies are under keys that were replaced several times.
PAUSES: Final = (*[0.2] * 12, *[8.0] * 4)


@dataclass
class Traffic:
    """The clients, and what they saw."""

    urls: Sequence[str]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    counts: list[int] = field(default_factory=list)
    processes: dict[str, set[int]] = field(default_factory=dict)
    sealed_by: set[str] = field(default_factory=set)

    async def visit(self, pause: float, tls: ssl.SSLContext) -> None:
        """A client that counts with its session at one server after the other, and checks each step."""
        session, count = None, 0
        # With a connection for each request no client stays with one process.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=WAIT, trust_env=False, verify=tls) as client:
            for url in cycle(self.urls):
                response = await client.post(f"{url}/count")
                assert response.status_code == 200
                answer = response.json()
                session = session or answer["session"]
                assert (session, count) == (answer["session"], answer["before"])
                count += 1
                self.processes.setdefault(url, set()).add(answer["process"])
                self.sealed_by.add(key_id(client.cookies["session"]))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), pause)
                    break
        self.counts.append(count)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A new file with one key."""
    path = tmp_path / "keys.toml"
    subprocess.run(keys("add", path), check=True, capture_output=True, timeout=WAIT)  # noqa: S603 - our own command
    return path


@pytest.fixture
def urls(key_file: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Two servers that read the file, each of two processes. They end with the test, and have had nothing to say."""
    with contextlib.ExitStack() as servers:
        logs = [tmp_path / f"{name}.log" for name in ("one", "two")]
        running = [servers.enter_context(server(key_file, log)) for log in logs]
        for (url, process), log in zip(running, logs, strict=True):
            wait_for(url, process, log)
        yield [url for url, _ in running]
        assert ["", ""] == [log.read_text() for log in logs]


@contextlib.contextmanager
def server(key_file: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The URL of a server of two processes, on a port that was free, and their supervisor."""
    port = free_port()
    command = (
        *("uvicorn", "--factory", "rotation_app:create_app", "--workers", "2", "--log-level", "warning"),
        # Otherwise a worker that takes 5 s to answer its supervisor, as it may while it starts, is replaced.
        *("--timeout-worker-healthcheck", str(DEADLINE)),
    )
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - this very Python
            (sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)),
            cwd=Path(__file__).parent,
            env={**os.environ, "KEY_FILE": str(key_file)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once a server answers. Fails with what it said if it does not."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/health", timeout=WAIT, trust_env=False).raise_for_status()
            return
        time.sleep(0.05)
    pytest.fail(f"the server does not answer: {log.read_text()}")


def keys(verb: str, path: Path, *options: str) -> tuple[str, ...]:
    """The command line that changes a key file."""
    return (sys.executable, "-W", "error", "-m", "cookiesession", "keys", verb, str(path), *options)


async def rotate(path: Path, every: str) -> set[str]:
    """Runs `keys rotate`, and gives the ids of the keys that the file holds then."""
    command = keys("rotate", path, "--every", every, *RULES)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=subprocess.STDOUT)
    async with asyncio.timeout(WAIT):
        said, _ = await process.communicate()
    assert process.returncode == 0, said
    return ids_in(path)


def ids_in(path: Path) -> set[str]:
    """The ids of the keys in a file."""
    return {each.key.id for each in Schedule.parse(path.read_bytes()).keys}


def key_id(cookie: str) -> str:
    """Which key sealed a cookie: bytes 1 to 4 of its envelope."""
    return base64url.decode(cookie.encode())[1:5].hex()


async def rotate_under_load(path: Path, traffic: Traffic) -> set[str]:
    """Ten new keys while all clients count, and on until they seal and the first has gone. The ids of all keys."""
    tls = ssl.create_default_context()  # the connections have none, and each client would make one
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as clients:
        for pause in PAUSES:
            clients.create_task(traffic.visit(pause, tls))
        ids = held = first = ids_in(path)
        while first <= held or not ids <= traffic.sealed_by:
            held = await rotate(path, every="1s" if len(ids) <= ROTATIONS else "1h")
            ids = ids | held
            await asyncio.sleep(0.5)  # a key is due every second
        traffic.stop.set()
    return ids


def test_ten_rotations_under_load_lose_no_session(urls: list[str], key_file: Path) -> None:
    """Every client reads what it wrote last, whichever process serves it and whichever key had sealed it. Case B22."""
    traffic = Traffic(urls)

    ids = asyncio.run(rotate_under_load(key_file, traffic))

    assert ROTATIONS + 1 == len(ids)
    assert ids == traffic.sealed_by
    assert [2, 2] == [len(traffic.processes[url]) for url in urls]
    assert len(PAUSES) == len(traffic.counts)
    assert min(traffic.counts) > 1
    assert sum(traffic.counts) > 300
