"""Guards: what a session can be bound to, so that its cookie is of no use to another client."""

from __future__ import annotations

import hashlib
import inspect
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from starlette.requests import HTTPConnection

from cookiesession.errors import ConfigurationError
from cookiesession.payload import BOUND_LENGTH

if TYPE_CHECKING:
    from starlette.types import Scope

Guard = Callable[[HTTPConnection], bytes]
"""What tells one client from another: bytes that are the same for every request of one.

It is called on the event loop, or in the thread of a handler that has one, and therefore never waits. What it raises
ends the session of a request, and makes a response that would begin one a 500. It cannot ask for the session itself.
"""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1: the name of a field


def user_agent(connection: HTTPConnection) -> bytes:
    """The browser, as it names itself. It changes with the browser's updates, and a thief may send it too."""
    return header("user-agent")(connection)


def header(name: str) -> Guard:
    """A request header: what a proxy says of the client's certificate, say, or the proof of a device key.

    Only as good as whoever sets it: a proxy must remove what the client sent under the name. Requests without the
    header are all alike. For the TLS channel this is the way, since no server that we know says in the scope whose
    certificate it took (ASGI's TLS extension: neither uvicorn 0.54, hypercorn 0.18 nor granian 2.8). nginx does with
    `proxy_set_header X-Client $ssl_client_fingerprint;`, for `header("x-client")`; others write RFC 9440's
    `Client-Cert`, for `header("client-cert")`.

    Raises `ConfigurationError` for what is no header's name.

    >>> from starlette.requests import Request
    >>> header("x-device")(Request({"type": "http", "headers": [(b"x-device", b"7")]}))
    b'7'
    """
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigurationError("header() takes the name of a header, without a colon or space")

    def guard(connection: HTTPConnection) -> bytes:
        return b"\0".join(value.encode("latin-1") for value in connection.headers.getlist(name))

    return guard


def client_network(ipv4: int = 24, ipv6: int = 56) -> Guard:
    """The network of the client's address, by its prefix's bits.

    The address is what the server says it is: behind a proxy that is the proxy's, unless the server is told to believe
    `X-Forwarded-For`, and over a Unix socket there is none: then all clients are alike. Phones change networks, and so
    do people; browsers go back and forth between IPv4 and IPv6.

    Raises `ConfigurationError` for a prefix that no address has.

    >>> from starlette.requests import Request
    >>> client_network()(Request({"type": "http", "headers": [], "client": ("192.0.2.77", 50000)}))
    b'192.0.2.0/24'
    """
    if not (isinstance(ipv4, int) and isinstance(ipv6, int) and 0 <= ipv4 <= 32 and 0 <= ipv6 <= 128):
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


def _is_called_async(guard: object) -> bool:
    return inspect.iscoroutinefunction(type(guard).__call__)


def _makes_guards(guard: object) -> bool:
    return guard is header or guard is client_network


class Guards:
    """The guards of a manager, and the hash of what they say. Raises `ConfigurationError` for what is none."""

    def __init__(self, guards: Guard | Iterable[Guard]) -> None:
        self._guards = tuple(guards) if isinstance(guards, Iterable) else (guards,)
        if not self._guards or not all(map(callable, self._guards)):
            raise ConfigurationError("bind is a guard, such as guards.user_agent, or several")
        if isinstance(guards, set | frozenset):
            raise ConfigurationError("the guards of bind have an order, and a set another one in each process")
        if any(map(_makes_guards, self._guards)):
            raise ConfigurationError("header and client_network make guards: header(name), client_network()")
        if any(inspect.iscoroutinefunction(each) or _is_called_async(each) for each in self._guards):
            raise ConfigurationError("a guard of bind is a plain function: sessions open where nothing can be awaited")

    def hash(self, scope: Scope | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The hash for a connection; of its headers alone where there is no scope.

        Raises what a guard raises, and `TypeError` for what is no bytes.
        """
        connection = HTTPConnection({"type": "http", "headers": headers} if scope is None else scope)
        digest = hashlib.sha256()
        for guard in self._guards:
            value = guard(connection)
            if not isinstance(value, bytes):
                raise TypeError(f"a guard of bind gives bytes, not {type(value).__name__}")
            digest.update(len(value).to_bytes(8, "big") + value)  # with its length: no two lists of values are alike
        return digest.digest()[:BOUND_LENGTH]
