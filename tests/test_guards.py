"""Tests of `guards.py`: what guards say of a client, and the hash of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from cookiesession import ConfigurationError, Key, KeyRing, SessionManager
from cookiesession.guards import Guards, client_network, header, user_agent
from cookiesession.payload import BOUND_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.guards import Guard

MAPPED = "::ffff:192.0.2.77"


def _connection(*headers: tuple[bytes, bytes], client: tuple[str, int] | None = None) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": list(headers), "client": client})


def _at(host: str) -> HTTPConnection:
    return _connection(client=(host, 50000))


def _says(*values: bytes) -> list[Guard]:
    return [lambda _, value=value: value for value in values]  # type: ignore[misc]  # mypy does not see the default


def _hash(*values: bytes) -> bytes:
    return Guards(_says(*values)).hash(None, ())


# Headers


def test_a_header_is_all_of_its_values_whatever_the_case() -> None:
    """Byte for byte, in their order."""
    connection = _connection((b"x-device", b"\xe9\xff 7"), (b"x-other", b"no"), (b"x-device", b"8"))

    assert b"\xe9\xff 7\x008" == header("X-Device")(connection)


def test_requests_without_the_header_are_alike() -> None:
    """They are the same client, as far as this guard can tell."""
    assert b"" == header("x-device")(_connection((b"x-other", b"1")))


@pytest.mark.parametrize(
    "name", ["", " ", "x-device:", "x device", "x-device\n", "gerät", "x\0", None, b"x"], ids=ascii
)
def test_what_is_no_headers_name_is_refused_at_once(name: Any) -> None:
    """It would bind sessions to nothing."""
    with pytest.raises(ConfigurationError, match="name of a header"):
        header(name)


def test_a_browser_is_told_by_how_it_names_itself() -> None:
    """And one that does not is no error."""
    assert (b"Firefox", b"") == (user_agent(_connection((b"user-agent", b"Firefox"))), user_agent(_connection()))


# Networks


@pytest.mark.parametrize(
    ("guard", "host", "expected"),
    [
        (client_network(), "192.0.2.77", b"192.0.2.0/24"),
        (client_network(), "192.0.3.77", b"192.0.3.0/24"),
        (client_network(), MAPPED, b"192.0.2.0/24"),
        (client_network(), "::FFFF:c000:024d", b"192.0.2.0/24"),
        (client_network(), "2001:db8:1:2ff:3::4", b"2001:db8:1:200::/56"),
        (client_network(), "2001:0DB8:0001:0200:0000:0000:0000:0009", b"2001:db8:1:200::/56"),
        (client_network(), "fe80::1%eth0", b"fe80::/56"),
        (client_network(), "fe80::1%7", b"fe80::/56"),
        (client_network(), "::1", b"::/56"),
        (client_network(0, 0), "192.0.2.77", b"0.0.0.0/0"),
        (client_network(0, 0), "2001:db8::1", b"::/0"),
        (client_network(0, 0), MAPPED, b"0.0.0.0/0"),
        (client_network(32, 128), "192.0.2.77", b"192.0.2.77/32"),
        (client_network(32, 128), MAPPED, b"192.0.2.77/32"),
        (client_network(32, 128), "2001:db8::1", b"2001:db8::1/128"),
        (client_network(32, 128), "fe80::1%eth0", b"fe80::1/128"),
        (client_network(32, 128), "fe80::1%a%b", b"fe80::1/128"),
        (client_network(32, 128), "192.0.2.77%eth0", b"192.0.2.77/32"),
        (client_network(ipv4=16), "192.0.2.77", b"192.0.0.0/16"),
        (client_network(ipv6=48), "2001:db8:1:2ff:3::4", b"2001:db8:1::/48"),
        (client_network(), "testclient", b"testclient"),
        (client_network(), "unix:/run/app.sock", b"unix:/run/app.sock"),
        (client_network(), "192.0.2.077", b"192.0.2.077"),
        (client_network(), "caf\xe9", "café".encode()),
        (client_network(), "", b""),
    ],
)
def test_a_network_is_the_prefix_of_an_address(guard: Guard, host: str, expected: bytes) -> None:
    """IPv4 in IPv6's clothes is IPv4; what is no address stands for itself."""
    assert expected == guard(_at(host))


def test_a_client_without_an_address_is_on_no_network() -> None:
    """As behind a Unix socket: the server says nothing, or None."""
    silent = HTTPConnection({"type": "http", "headers": []})

    assert (b"", b"") == (client_network()(_connection()), client_network()(silent))


@pytest.mark.parametrize(("ipv4", "ipv6"), [(-1, 56), (33, 56), (24, -1), (24, 129), (24.5, 56), (24, "56")])
def test_a_prefix_that_no_address_has_is_refused_at_once(ipv4: Any, ipv6: Any) -> None:
    """Rather than in every request."""
    with pytest.raises(ConfigurationError, match="up to 32 for IPv4, up to 128 for IPv6"):
        client_network(ipv4, ipv6)


@given(host=st.text(st.characters(max_codepoint=255)) | st.ip_addresses().map(str))
def test_any_address_that_a_proxy_names_is_bytes(host: str) -> None:
    """Headers are Latin-1, and behind a proxy the client may choose what it is called."""
    assert isinstance(client_network()(_at(host)), bytes)


# The hash


def test_a_hash_is_of_a_scope_or_of_headers_alone() -> None:
    """For a manager that is given nothing else."""
    headers = [(b"user-agent", b"Firefox")]
    scope = {"type": "websocket", "headers": headers, "client": ("192.0.2.77", 1)}

    bare, whole = (Guards(user_agent).hash(each, headers) for each in (None, scope))

    assert bare == whole
    assert BOUND_LENGTH == len(bare)


def test_guards_that_know_the_client_need_the_scope() -> None:
    """Without it, every client is on no network."""
    scopes = [{"type": "http", "headers": [], "client": (host, 1)} for host in ("192.0.2.1", "198.51.100.1")]
    guards = Guards(client_network())

    assert len({guards.hash(scope, ()) for scope in [*scopes, None]}) == 3


@given(one=st.lists(st.binary(max_size=6), min_size=1, max_size=4), other=st.lists(st.binary(max_size=6), min_size=1))
def test_two_lists_of_values_never_have_one_hash(one: list[bytes], other: list[bytes]) -> None:
    """Wherever one value ends and the next begins."""
    assert (one == other) == (_hash(*one) == _hash(*other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"ab", b"c"), (b"a", b"bc")),
        ((b"a", b"b"), (b"b", b"a")),
        ((b"",), (b"", b"")),
        ((b"a",), (b"a", b"")),
        ((b"a\0b",), (b"a", b"b")),
        ((b"a", bytes(7) + b"\1b"), (b"a" + bytes(7) + b"\1b",)),
    ],
)
def test_values_that_run_together_are_told_apart(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    """Those that a shorter encoding would confuse."""
    assert _hash(*one) != _hash(*other)


def test_no_byte_separates_values() -> None:
    """Each may be in a value."""
    pairs = [(_hash(b"a" + bytes([byte]) + b"b"), _hash(b"a", b"b")) for byte in range(256)]

    assert all(one != other for one, other in pairs)


@pytest.mark.parametrize("value", [None, "text", 7, bytearray(b"x"), memoryview(b"x")], ids=lambda v: type(v).__name__)
def test_a_guard_that_gives_no_bytes_is_told_so(value: Any) -> None:
    """By type, and never by value."""
    with pytest.raises(TypeError, match=rf"^a guard of bind gives bytes, not {type(value).__name__}$"):
        Guards(lambda _: value).hash(None, ())


# Configuration


class _Device:
    """A guard with a state of its own."""

    def __call__(self, connection: HTTPConnection) -> bytes:
        return connection.cookies.get("device", "").encode()


@pytest.mark.parametrize(
    "bind",
    [
        pytest.param(lambda: user_agent, id="one"),
        pytest.param(_Device, id="object"),
        pytest.param(lambda: [user_agent, client_network()], id="list"),
        pytest.param(lambda: (guard for guard in (user_agent, _Device())), id="generator"),
    ],
)
def test_bind_is_a_guard_or_several(bind: Callable[[], Any]) -> None:
    """In whatever holds them; a manager goes through them again and again."""
    guards = SessionManager(KeyRing(Key.generate()), bind=bind()).configuration.guards

    assert guards is not None
    assert guards.hash(None, ()) == guards.hash(None, ())


@pytest.mark.parametrize(
    "bind",
    [None, [], 7, "user-agent", b"", [user_agent, None], {"a": user_agent}],
    ids=["none", "nothing", "number", "str", "bytes", "a-guard-and-none", "dict"],
)
def test_bind_that_is_no_guard_is_refused_at_once(bind: Any) -> None:
    """An empty list would bind to nothing what somebody meant to bind."""
    with pytest.raises(ConfigurationError, match=r"^bind is a guard, such as guards\.user_agent, or several$"):
        SessionManager(KeyRing(Key.generate()), bind=bind)


def test_guards_without_an_order_are_refused_at_once() -> None:
    """Each process would have one of its own, and sign out the sessions of the others."""
    guards: Any = {user_agent, client_network()}

    with pytest.raises(ConfigurationError, match="the guards of bind have an order"):
        SessionManager(KeyRing(Key.generate()), bind=guards)


@pytest.mark.parametrize("bind", [header, [user_agent, client_network]], ids=["header", "client_network"])
def test_what_makes_a_guard_is_refused_in_its_place(bind: Any) -> None:
    """Without its parentheses it can be called, and every request would be a 500."""
    with pytest.raises(ConfigurationError, match=r"header\(name\), client_network\(\)"):
        SessionManager(KeyRing(Key.generate()), bind=bind)


async def _asks_a_service(_: HTTPConnection) -> bytes:
    raise AssertionError


class _Service:
    """A guard that is an object, and waits."""

    async def __call__(self, connection: HTTPConnection) -> bytes:
        raise AssertionError


@pytest.mark.parametrize(
    "bind", [_asks_a_service, [user_agent, _asks_a_service], _Service()], ids=["one", "several", "object"]
)
def test_a_guard_that_waits_is_refused_at_once(bind: Any) -> None:
    """A session opens where nobody can await."""
    with pytest.raises(ConfigurationError, match="plain function"):
        SessionManager(KeyRing(Key.generate()), bind=bind)


def test_nothing_is_bound_unless_asked() -> None:
    """Off by default."""
    assert None is SessionManager(KeyRing(Key.generate())).configuration.guards
