"""Guards: what a session can be bound to, so that its cookie is of no use to another client."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from cookiesession.errors import ConfigurationError
from cookiesession.payload import BOUND_LENGTH

if TYPE_CHECKING:
    from starlette.types import Scope

Guard = Callable[[HTTPConnection], bytes]
"""What tells one client from another: bytes that are the same for every request of one."""


def user_agent(connection: HTTPConnection) -> bytes:
    """The browser, as it names itself. It changes with the browser's updates, and a thief may send it too."""
    return header("user-agent")(connection)


def header(name: str) -> Guard:
    """A request header: what a proxy says of the client's certificate, say, or the proof of a device key.

    Only as good as whoever sets it: a proxy must remove what the client sent under the name.

    >>> from starlette.requests import Request
    >>> header("x-device")(Request({"type": "http", "headers": [(b"x-device", b"7")]}))
    b'7'
    """

    def guard(connection: HTTPConnection) -> bytes:
        return b"\0".join(value.encode("latin-1") for value in connection.headers.getlist(name))

    return guard


def client_network(ipv4: int = 24, ipv6: int = 56) -> Guard:
    """The network of the client's address, by its prefix's bits.

    The address is what the server says it is: behind a proxy that is the proxy's, unless the server is told to believe
    `X-Forwarded-For`. Phones change networks, and so do people.

    Raises `ConfigurationError` for a prefix that no address has.

    >>> from starlette.requests import Request
    >>> client_network()(Request({"type": "http", "headers": [], "client": ("192.0.2.77", 50000)}))
    b'192.0.2.0/24'
    """
    if not (0 <= ipv4 <= 32 and 0 <= ipv6 <= 128):
        raise ConfigurationError("client_network() takes the bits of a prefix: up to 32 for IPv4, up to 128 for IPv6")

    def guard(connection: HTTPConnection) -> bytes:
        host = "" if connection.client is None else connection.client.host
        try:
            address = ipaddress.ip_address(host.partition("%")[0])  # less the interface of a link-local one
        except ValueError:
            return host.encode()  # a Unix socket, or a test client
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        prefix = ipv4 if address.version == 4 else ipv6
        return str(ipaddress.ip_network((address, prefix), strict=False)).encode()

    return guard


class Guards:
    """The guards of a manager, and the hash of what they say. Raises `ConfigurationError` for what is none."""

    def __init__(self, guards: Guard | Iterable[Guard]) -> None:
        self._guards = (guards,) if callable(guards) else tuple(guards)
        if not self._guards or not all(map(callable, self._guards)):
            raise ConfigurationError("bind is a guard, such as guards.user_agent, or several")

    def hash(self, scope: Scope | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The hash for a connection; of its headers alone where there is no scope. Raises what a guard raises."""
        connection = HTTPConnection({"type": "http", "headers": headers} if scope is None else scope)
        digest = hashlib.sha256()
        for guard in self._guards:
            value = guard(connection)
            digest.update(len(value).to_bytes(8, "big") + value)
        return digest.digest()[:BOUND_LENGTH]
