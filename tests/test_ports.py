"""What the tests' own servers stand on: ports that nobody else has, and starts that are told from others'."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from ports import BUS, free_port
from redis_servers import Server, needs_a_server, running

CLIENTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")  # on Linux, where the system chooses for them
USUAL: Final = 32_768
OTHERS: Final = "import ports, sys; print(*(ports.free_port() for _ in range(250)), flush=True); sys.stdin.read()"


def test_no_two_processes_are_given_one_port() -> None:
    """While both live, however many they ask for; nor is one's port the bus of another."""
    command = (sys.executable, "-c", OTHERS)
    mine = {free_port() for _ in range(250)}
    with subprocess.Popen(  # noqa: S603  our own
        command, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        theirs = {int(port) for port in other.stdout.readline().split()}
        mine |= {free_port() for _ in range(250)}
        other.communicate()

    assert len(mine) >= 100
    assert len(theirs) >= 100
    assert set() == mine & theirs
    assert set() == {port + BUS for port in mine | theirs} & (mine | theirs)


def test_no_client_is_given_a_port_of_ours() -> None:
    """By the system, which has others for them."""
    if not CLIENTS.exists():
        pytest.skip("other systems say it elsewhere")
    first, _ = map(int, CLIENTS.read_text().split())
    if first < USUAL:
        pytest.skip(f"this system gives them any from {first} on")

    assert free_port() + BUS < first


def test_port_in_use_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one whose bus is."""
    port = free_port()
    for taken in (port, port + BUS):
        monkeypatch.setattr("ports._numbers", iter(range(10_000)))
        with socket.create_server(("127.0.0.1", taken)):
            given = {free_port() for _ in range(250)}

        assert port not in given


@pytest.mark.servers
@needs_a_server
@pytest.mark.parametrize(("above", "options"), [(0, ()), (BUS, ("--cluster-enabled", "yes"))], ids=["port", "bus"])
def test_server_whose_port_is_taken_has_another(tmp_path: Path, above: int, options: tuple[str, ...]) -> None:
    """When it starts for the first time. Later it is an error at once, with what the server says."""
    server = Server(tmp_path, *options)
    first = server.port
    with running(server):
        with socket.create_server(("127.0.0.1", first + above)):
            server.start()
        second = server.port
        server.kill()

        with socket.create_server(("127.0.0.1", second + above)), pytest.raises(Exception, match="has ended with 1"):
            server.start()

    assert first != second == server.port


@pytest.mark.servers
@needs_a_server
def test_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """At once."""
    server = Server(tmp_path, "--no-such-option", "yes")

    with (
        running(server),
        pytest.raises(pytest.fail.Exception, match=r"(?s)has ended with 1, and said:.*no-such-option"),
    ):
        server.start()


@pytest.mark.servers
@needs_a_server
def test_server_is_not_taken_for_another(tmp_path: Path) -> None:
    """That answers where it was to."""
    there, server = Server(tmp_path), Server(tmp_path)
    with running(there, server):
        server.port = there.start().port

        assert server.start().port != there.port
        assert {there.process, server.process} == {each.process for each in (there, server) if each.well}
