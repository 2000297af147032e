"""The command `inspect`: its own runner with a clock that stands still, and real processes."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from harness import START, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import (
    AES,
    FERNET,
    ID,
    KEY,
    NAME,
    PIECES,
    REFUSALS,
    RING,
    SECRETS,
    STRANGER,
    payload,
    scheduled,
    sealed,
    token,
)

from cookiesession import SessionManager
from cookiesession.cli import cli
from cookiesession.cli.documents import document
from cookiesession.cli.inspect import INPUT_LIMIT
from cookiesession.payload import pack
from cookiesession.schedule import Schedule
from cookiesession.stores.memory import MemoryStore
from cookiesession.testing import cookies_for

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from cookiesession.errors import Reason

KEYS = " ".join(key.export() for key in RING.keys)
SCHEDULE = Schedule((scheduled(AES, -30, -1), scheduled(KEY, -10), scheduled(FERNET, 1)))


def run(text: Any, *arguments: str, keys: str = KEYS) -> Result:
    """The command's end, with `SESSION_KEYS` in its environment."""
    return CliRunner().invoke(cli, ["inspect", *arguments], input=text, obj=Clock(), env={"SESSION_KEYS": keys})


def rows(output: str) -> dict[str, str]:
    """What stands beside each label."""
    return dict(re.findall(r"^(\w+) +(.*)$", output, re.MULTILINE))


def test_live_session_is_shown_whole() -> None:
    """Line by line."""
    text = token(subject="ada", idle_timeout=1800, renewed_at=START - 60, created_at=START - 86400)

    result = run(b"Cookie: a=b; __Host-session=" + text + b"\n")

    expected = f"""\
cookie      __Host-session
verdict     live
because     it opens, and lives for another 29m if it is not used
text        188 bytes, chunks: 1
envelope    141 bytes, the first of them 0x01
key         {KEY.id} (xaes-256-gcm, primary)
algorithm   xaes-256-gcm, with a nonce of 24 bytes
plaintext   96 bytes, of which 33 are encoded and 30 padding
created     2027-01-14T08:00:00Z (1d ago)
renewed     2027-01-15T07:59:00Z (1m ago)
expires     2027-01-16T08:00:00Z (in 1d)
idle        timeout 30m, 2027-01-15T08:29:00Z (in 29m)
flags       persistent
subject     'ada'
data        19 bytes
            {{'user_id': 42, 'name': 'Ada'}}
"""
    assert (0, expected) == (result.exit_code, result.output)


@pytest.mark.parametrize(("text", "reason", "words"), REFUSALS.values(), ids=REFUSALS)
def test_every_refusal_is_shown(text: bytes, reason: Reason, words: str) -> None:
    """With its reason, its words, the status 1 and no secret."""
    arguments = ["--model", "refusals:Visitor"] if reason == "invalid" else []

    result = run(text, *arguments)

    shown = rows(result.output)
    assert (1, f"refused: {reason}") == (result.exit_code, shown["verdict"])
    assert words in shown["because"]
    assert not any(secret[:20] in result.output for secret in SECRETS)


def test_session_over_two_cookies_is_shown() -> None:
    """Compressed or not, and of several lines of data."""
    manager = SessionManager(RING, clock=Clock(), persistent=False)
    jar = cookies_for(manager, {f"entry {number}": "x" * 80 for number in range(50)})

    result = run("; ".join(f"{name}={value}" for name, value in jar.items()))

    shown = rows(result.output)
    assert (0, "none") == (result.exit_code, shown["flags"])
    assert f"{sum(map(len, jar.values()))} bytes, chunks: 2" == shown["text"]
    assert 50 == len(re.findall(r"^ {12}.'entry \d+': 'x+'", result.output, re.MULTILINE))


def test_compressed_fernet_session_without_limits_is_shown() -> None:
    """The other forms of the rows."""
    plaintext = pack(payload({"text": "tea " * 300}, flags=0), compress=True)

    shown = rows(run(sealed(plaintext, FERNET)).output)

    assert f"{FERNET.id} (fernet, active)" == shown["key"]
    assert "2027-01-15T08:00:00Z" == shown["sealed"]
    assert ("compressed", "no timeout", "none") == (shown["flags"], shown["idle"], shown["subject"])


def test_all_candidates_are_shown() -> None:
    """In the order in which a server tries them."""
    result = run(NAME + b"=x; " + NAME + b"=" + token())

    assert ["refused: malformed", "live"] == re.findall(r"^verdict +(.*)$", result.output, re.MULTILINE)
    assert 0 == result.exit_code
    assert "\n\ncookie " in result.output


def test_unknown_key_is_shown_by_its_id() -> None:
    """Which is all there is to know of it."""
    shown = rows(run(token(STRANGER)).output)

    assert f"{STRANGER.id} (unknown)" == shown["key"]
    assert "algorithm" not in shown


def test_id_of_a_session_in_a_store_is_shown_as_one() -> None:
    """What the store has is not shown as missing."""
    manager: SessionManager[Any] = SessionManager(RING, store=MemoryStore(), clock=Clock())
    [(name, value)] = cookies_for(manager, {"name": "Ada"}, subject="ada").items()

    result = run(f"{name}={value}")

    shown = rows(result.output)
    assert (0, "live") == (result.exit_code, shown["verdict"])
    assert "in a store, as are subject and idle timeout: the cookie holds a sealed id" == shown["data"]
    assert {"subject", "idle"}.isdisjoint(shown)


def test_header_without_the_cookie_names_those_it_has() -> None:
    """A misspelt name is seen at once; a hostile one does nothing to the terminal."""
    result = run(b"Cookie: sesion=1; \x1b[31m\xe9=2")

    expected = "There is no cookie __Host-session. The cookies are: sesion, \\x1b[31m\\xe9\n"
    assert (1, expected) == (result.exit_code, result.output)


def test_empty_input_has_no_cookie() -> None:
    """Not even a token."""
    result = run("")

    assert (1, "There is no cookie __Host-session. The cookies are: none\n") == (result.exit_code, result.output)


def test_data_cannot_write_to_the_terminal() -> None:
    """Nor can what stands before it: whatever is not printable is shown as an escape."""
    result = run(token(data={"\x1b]0;x\x07": "\u202e\r\nab"}, subject="\x1b[2J"))

    assert r"""{'\x1b]0;x\x07': '\u202e\r\nab'}""" in result.output
    assert r"'\x1b[2J'" in result.output
    assert result.output.replace("\n", "").isprintable()


def test_data_that_is_nested_deeply_is_not_shown() -> None:
    """Python's own printer gives up long before msgspec does."""
    result = run(token(data=b"\x91" * 500 + b"\xc0"))

    assert 0 == result.exit_code
    assert "nested too deeply to show" in result.output


# Options


def test_name_may_be_another() -> None:
    """In full, as it stands in the header."""
    assert 0 == run(token(name=b"sid"), "--name", "sid").exit_code
    assert 1 == run(token(name=b"sid")).exit_code
    assert 0 == run(b"sid=" + token(name=b"sid"), "--name", "__Host-sid").exit_code


def test_limit_of_chunks_may_be_another() -> None:
    """As that of the server is."""
    names = (NAME, NAME + b".1", NAME + b".2")
    header = b"; ".join(name + b"=" + piece for name, piece in zip(names, PIECES, strict=True))

    assert "refused: chunk_count" == rows(run(header).output)["verdict"]
    assert 0 == run(header, "--max-chunks", "3").exit_code


@pytest.mark.parametrize("as_json", [False, True], ids=["toml", "json"])
def test_keys_may_come_from_a_file(tmp_path: Path, *, as_json: bool) -> None:
    """Of which a retired key is told from an unknown one."""
    path = tmp_path / "keys"
    path.write_bytes(document(SCHEDULE, as_json=as_json))

    live = run(token(), "--key-file", str(path), keys="")
    retired = run(token(AES), "--key-file", str(path), keys="")

    assert f"{KEY.id} (xaes-256-gcm, primary)" == rows(live.output)["key"]
    assert (0, 1) == (live.exit_code, retired.exit_code)
    assert f"{AES.id} (aes-256-gcm, retired 2027-01-14T08:00:00Z)" == rows(retired.output)["key"]
    assert "{'user_id': 42, 'name': 'Ada'}" in retired.output


def test_keys_may_come_from_another_variable() -> None:
    """Named as for `KeyRing.from_env()`."""
    result = CliRunner().invoke(
        cli, ["inspect", "--keys-env", "OTHER"], input=token(), obj=Clock(), env={"OTHER": KEY.export()}
    )

    assert 0 == result.exit_code


@pytest.mark.parametrize(
    ("arguments", "keys", "message"),
    [
        ([], "", "Error: the environment variable SESSION_KEYS holds no key; set it to the output of: "),
        ([], "hunter2", "Error: a key starts with 'csk1' and is not a password; make one with: "),
        (["--key-file", "missing.toml"], KEYS, "Error: there is no such file; make it with: "),
        (["--key-file", __file__], KEYS, "Error: it is neither JSON nor TOML; make one with: "),
        (["--model", "no_such_module:Visitor"], KEYS, "Invalid value for --model: 'no_such_module:Visitor': No "),
        (["--model", "refusals:NoSuchModel"], KEYS, "Invalid value for --model: 'refusals:NoSuchModel': module "),
        (["--model", "not a name"], KEYS, "Invalid value for --model: 'not a name': "),
        (["--model", "refusals:START"], KEYS, "Error: model is a pydantic BaseModel, a msgspec.Struct, "),
        (["--max-chunks", "10"], KEYS, "Invalid value for '--max-chunks'"),
        (["token-on-the-command-line"], KEYS, "Got unexpected extra argument"),
    ],
)  # fmt: skip
def test_what_cannot_work_has_the_status_2(arguments: list[str], keys: str, message: str) -> None:
    """So that a script tells it from a token that does not open."""
    result = run(token(), *arguments, keys=keys)

    assert 2 == result.exit_code
    assert message in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("source", "message"),
    [("1 / 0", "'broken:X' raises ZeroDivisionError"), ("def", "'broken:X' raises SyntaxError")],
)
def test_module_that_cannot_be_imported_has_the_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    """Whatever it raises: 1 would say that there is no live session."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text(source)

    result = run(token(), "--model", "broken:X")

    assert 2 == result.exit_code
    assert f"Invalid value for --model: {message}" in result.output


@pytest.mark.parametrize(
    ("number", "status", "message"), [(errno.ENOSPC, 2, os.strerror(errno.ENOSPC)), (errno.EPIPE, 1, "")]
)
def test_output_that_cannot_be_written_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, number: int, status: int, message: str
) -> None:
    """A full disk has the status 2, since 1 would say that there is no live session. A pipe may end before we do."""

    def fail(text: str) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("cookiesession.cli.inspect.click.echo", fail)
        result = run(token())

    assert status == result.exit_code
    assert message in result.output
    assert ("" == result.output) == ("" == message)


def test_input_is_bounded() -> None:
    """One byte more is refused."""
    assert 1 == run(b"a=" + b"x" * (INPUT_LIMIT - 2)).exit_code
    result = run(b"a=" + b"x" * (INPUT_LIMIT - 1))

    assert (2, True) == (result.exit_code, "the input has more than 1048576 bytes" in result.output)


class Terminal(io.BytesIO):
    """An input that somebody types."""

    def isatty(self) -> bool:
        return True


def test_somebody_at_a_terminal_is_told_what_to_do() -> None:
    """Rather than wait for a command that waits for them."""
    result = run(Terminal(token()))

    assert 0 == result.exit_code
    assert "Paste a token or a Cookie header" in result.stderr
    assert "Paste" not in result.stdout


# No surprise


@given(st.binary(max_size=200))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_give_a_report(text: bytes) -> None:
    """Printable, with the status 1."""
    result = run(text)

    assert (1, SystemExit) == (result.exit_code, type(result.exception))
    assert result.output.replace("\n", "").isprintable()


def test_id_of_the_session_is_not_shown() -> None:
    """It is nobody's business, and with a store it is the session."""
    output = run(token()).output

    assert ID.hex() not in output
    assert repr(ID)[2:-1] not in output


def process(text: bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The end of a real process."""
    return subprocess.run(
        (sys.executable, "-W", "error", "-m", "cookiesession", "inspect"),
        input=text,
        capture_output=True,
        env={**os.environ, "SESSION_KEYS": KEYS, **variables},
        timeout=60,
        check=False,
    )


def test_real_process_reads_its_standard_input() -> None:
    """From end to end, with the time as it is: the token expired, and nothing else was said."""
    ended = process(b"Cookie: __Host-session=" + token(created_at=0, renewed_at=0, expires_at=1000))

    assert (1, b"") == (ended.returncode, ended.stderr)
    assert b"refused: expired" in ended.stdout
    assert b"its lifetime ended at 1970-01-01T00:16:40Z, " in ended.stdout


def test_terminal_without_unicode_gets_escapes() -> None:
    """What it cannot show is no reason to show nothing."""
    ended = process(token(data={"name": "Zoë"}, created_at=0, renewed_at=0, expires_at=1), PYTHONIOENCODING="ascii")

    assert (1, b"") == (ended.returncode, ended.stderr)
    assert rb"{'name': 'Zo\xeb'}" in ended.stdout
