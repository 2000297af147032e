"""The command line: real processes, and its own runner for what they cannot show."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
import uvicorn
from click.testing import CliRunner

from cookiesession import Key, KeyRing, SessionManager
from cookiesession.cli import cli
from cookiesession.errors import KEYGEN
from cookiesession.keys import ALGORITHMS
from cookiesession.testing import cookies_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-W", "error", "-m", "cookiesession")
LIMIT = 60  # seconds: no process of these tests needs that long


def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The end of a process that was given `arguments`, with the modules in `path` before all others."""
    env = os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(  # noqa: S603  our own command
        (*COMMAND, *arguments), capture_output=True, text=True, env=env, timeout=LIMIT, check=False
    )


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that was given `arguments`, ended if nobody has."""
    with subprocess.Popen(  # noqa: S603  our own command
        (*COMMAND, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()


def missing(path: Path, *modules: str) -> Path:
    """`path`, with modules in it that fail as if they were not installed."""
    for name in modules:
        failure = f'raise ModuleNotFoundError("No module named {name!r}", name={name!r})\n'
        (path / f"{name}.py").write_text(failure)
    return path


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    """What `python -m cookiesession` exits with, in this process."""
    monkeypatch.setattr(sys, "argv", ["cookiesession", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module("cookiesession", run_name="__main__")
    return exit_info.value.code


def without_click(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process one that has no click."""
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delitem(sys.modules, "cookiesession.cli")


@pytest.mark.parametrize("arguments", [(), *((name,) for name in ALGORITHMS)], ids=["default", *ALGORITHMS])
def test_keygen_prints_a_key_and_nothing_else(arguments: tuple[str, ...]) -> None:
    """One line on the standard output that parses, of the algorithm that was asked for."""
    ended = run("keygen", *arguments)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1
    assert Key.parse(ended.stdout).algorithm == (arguments or ("xaes-256-gcm",))[0]


def test_keygen_makes_another_key_each_time() -> None:
    """Two keys are two keys."""
    assert run("keygen").stdout != run("keygen").stdout


def test_keygen_refuses_an_unknown_algorithm() -> None:
    """The error names those there are."""
    ended = run("keygen", "rot13")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert all(name in ended.stderr for name in ALGORITHMS)
    assert "Traceback" not in ended.stderr


def test_keygen_is_the_command_that_key_errors_name() -> None:
    """What a message asks for is what the command line calls itself."""
    ended = run("--help")

    assert ended.returncode == 0
    assert f"Usage: {KEYGEN.removesuffix(' keygen')} " in ended.stdout
    assert "keygen" in ended.stdout


@pytest.mark.parametrize("arguments", [(), *((name,) for name in ALGORITHMS)], ids=["default", *ALGORITHMS])
def test_keygen_needs_no_extra(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A bare installation makes keys too."""
    ended = run("keygen", *arguments, path=missing(tmp_path, "click", "uvicorn"))

    assert (ended.returncode, ended.stderr) == (0, "")
    assert Key.parse(ended.stdout).algorithm == (arguments or ("xaes-256-gcm",))[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo",), 'Error: demo needs click: pip install "cookiesession[demo]"'),
        ((), 'Error: help needs click: pip install "cookiesession[cli]"'),
        (("--help",), 'Error: --help needs click: pip install "cookiesession[cli]"'),
        (("keygen", "fernet", "more"), 'Error: keygen needs click: pip install "cookiesession[cli]"'),
        (("keygen", "rot13"), "Error: a key's algorithm is one of xaes-256-gcm, aes-256-gcm, fernet; make a key with:"),
    ],
    ids=["demo", "nothing", "help", "too-much", "unknown-algorithm"],
)
def test_bare_installation_says_what_is_missing(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """One line, and no traceback."""
    ended = run(*arguments, path=missing(tmp_path, "click", "uvicorn"))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["filelock", "rich", "tomlkit"])
def test_half_an_installation_says_what_is_missing(tmp_path: Path, package: str) -> None:
    """Other packages bring click, and not the rest of the extra: keygen works all the same."""
    path = missing(tmp_path, package)

    ended = run("keys", "list", "keys.toml", path=path)

    assert (1, "", f'Error: keys needs {package}: pip install "cookiesession[cli]"\n') == (
        ended.returncode,
        ended.stdout,
        ended.stderr,
    )
    assert "xaes-256-gcm" == Key.parse(run("keygen", path=path).stdout).algorithm


def test_demo_without_uvicorn_says_what_is_missing(tmp_path: Path) -> None:
    """The extra `cli` is not enough for it."""
    ended = run("demo", path=missing(tmp_path, "uvicorn"))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == 'Error: demo needs uvicorn: pip install "cookiesession[demo]"\n'


@pytest.mark.servers
def test_demo_serves_until_it_is_interrupted() -> None:
    """It says where it is and that its keys are throw-away ones, answers, and ends cleanly on Ctrl-C."""
    with running("demo", "--port", "0") as process:
        assert process.stdout
        where, throw_away = process.stdout.readline(), process.stdout.readline()
        url = "".join(re.findall(r"http://127\.0\.0\.1:\d+", where))

        page = httpx.get(url, timeout=LIMIT)
        answer = httpx.post(f"{url}/set", json={"name": "tea", "value": "oolong"}, timeout=LIMIT)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=LIMIT)

    assert "Your session, sealed" in page.text
    assert answer.headers["set-cookie"].startswith("demo_session=")
    assert "made for this run" in throw_away
    assert (process.returncode, *rest) == (0, "", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_demo_on_a_port_in_use_is_one_line(host: str) -> None:
    """Exit status 1, and no traceback."""
    with socket.create_server((host, 0)) as taken:
        ended = run("demo", "--host", host, "--port", str(taken.getsockname()[1]))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"Error: cannot listen on {host}, port \d+: Address already in use\n", ended.stderr)


def test_demo_on_an_unknown_host_is_one_line() -> None:
    """Exit status 1, and no traceback."""
    ended = run("demo", "--host", "no-such-host.invalid")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Error: cannot listen on no-such-host.invalid: there is no such host\n"


def test_demo_prints_its_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a certificate it is an https one, and an IPv6 address stands in brackets."""
    certificate = tmp_path / "certificate.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_args, **_kwargs: None)

    plain = CliRunner().invoke(cli, ["demo", "--port", "0"])
    tls = CliRunner().invoke(cli, ["demo", "--host", "localhost", "--port", "0", "--certfile", str(certificate)])

    assert re.match(r"The demonstration is on http://127\.0\.0\.1:\d+ \(Ctrl-C ends it\)\.\nIts key ring", plain.output)
    assert re.match(r"The demonstration is on https://localhost:\d+ ", tls.output)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--port", "70000"], 2, "Invalid value for '--port'"),
        (["--port", "http"], 2, "Invalid value for '--port'"),
        (["--certfile", "missing.pem"], 2, "'missing.pem' does not exist"),
        (["--keyfile", __file__], 2, "--keyfile goes with --certfile"),
        (["--certfile", __file__], 1, "Error: cannot use the certificate"),
        (["--host", "no-such-host.invalid"], 1, "Error: cannot listen on no-such-host.invalid"),
    ],
    ids=["port-range", "port-word", "no-file", "key-alone", "no-certificate", "no-host"],
)
def test_demo_refuses_what_cannot_work(arguments: list[str], status: int, message: str) -> None:
    """Each mistake has its words."""
    result = CliRunner().invoke(cli, ["demo", *arguments])

    assert result.exit_code == status
    assert message in result.output


def test_demo_names_the_module_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, in this process."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "cookiesession.demo.server", raising=False)

    result = CliRunner().invoke(cli, ["demo"])

    assert result.exit_code == 1
    assert result.output == 'Error: demo needs uvicorn: pip install "cookiesession[demo]"\n'


def test_main_runs_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where click is installed, click it is."""
    status = run_main(monkeypatch, "keygen", "fernet")

    assert status == 0
    assert Key.parse(capsys.readouterr().out).algorithm == "fernet"


def test_main_makes_a_key_without_click(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is not, keygen still works."""
    without_click(monkeypatch)

    status = run_main(monkeypatch, "keygen")

    assert status is None
    assert Key.parse(capsys.readouterr().out).algorithm == "xaes-256-gcm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["demo"], "cookiesession[demo]"), ([], "cookiesession[cli]"), (["keygen", "rot13"], "a key's algorithm")],
    ids=["demo", "nothing", "unknown-algorithm"],
)
def test_main_complains_without_click(monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    """Anything else says what would help."""
    without_click(monkeypatch)

    assert message in str(run_main(monkeypatch, *arguments))


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize(("stream", "status"), [("<&-", 1), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 1)])
def test_streams_may_be_closed(stream: str, status: int) -> None:
    """As some of those that start processes by the clock have them: nothing comes, and nothing is said."""
    key = Key.generate()
    manager = SessionManager(KeyRing(key))
    [(name, value)] = cookies_for(manager, {"a": 1}).items()

    ended = subprocess.run(  # noqa: S603 - our own command
        ("/bin/sh", "-c", f'exec "$@" {stream}', "sh", *COMMAND, "inspect"),
        input=f"{name}={value}",
        capture_output=True,
        text=True,
        env={**os.environ, "SESSION_KEYS": key.export()},
        timeout=LIMIT,
        check=False,
    )

    assert (status, "") == (ended.returncode, ended.stderr)


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_main_opens_a_stream_that_is_closed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As above, in this process: it is at its end, or takes what comes."""
    monkeypatch.setattr(sys, name, None)

    status = run_main(monkeypatch, "keygen")

    stream = getattr(sys, name)
    assert 0 == status
    assert "" == stream.read() if name == "stdin" else 1 == stream.write("x")


def test_main_waits_to_be_run() -> None:
    """Importing the module runs nothing."""
    assert callable(runpy.run_module("cookiesession.__main__", run_name="imported")["main"])


def test_main_hides_no_other_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of ours that is missing is not click."""
    monkeypatch.setattr(sys, "argv", ["cookiesession", "keygen"])
    monkeypatch.setitem(sys.modules, "cookiesession.cli", None)

    with pytest.raises(ModuleNotFoundError, match=r"cookiesession\.cli"):
        runpy.run_module("cookiesession", run_name="__main__")
