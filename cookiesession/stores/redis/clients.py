"""The clients that `RedisStore` makes from a URL, and all that they are set to."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from cookiesession.errors import ConfigurationError
from cookiesession.stores.redis.connections import QuickPool

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CONNECTIONS: Final = 50
"""Connections of one process to one server, unless its URL says `?max_connections=`. A server takes 10,000 in all."""

_FAMILIES: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_SHARE: Final = 3  # of the deadline: what one server of several may take, so that there is time to ask another
_URL: Final = re.compile(
    r"(?P<family>[a-z]+)(\+(?P<way>[a-z]+))?://((?P<user>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?P<path>[^?#]*)(\?(?P<query>.*))?"
)
_FORMS: Final = (
    "redis://host:6379/0, rediss:// (TLS), unix:///path, redis+sentinel://host1:26379,host2:26379/name "
    "or redis+cluster://host:6379"
)

_Options = dict[str, Any]


class Made(NamedTuple):
    """A client, how many of its connections may be in use at once, and all that has to be closed in the end."""

    client: Redis | RedisCluster
    max_connections: int
    to_close: tuple[Redis | RedisCluster, ...]


def client_from_url(url: str, timeout: float) -> Made:
    """A client that tries nothing twice, and is used within `timeout` seconds: what waits has no longer than that.

    Raises `ConfigurationError`. Its message quotes nothing of the URL, which may have a password in it.
    """
    # The driver's complaint may quote the URL.
    with suppress(ValueError, TypeError, LookupError, AttributeError, RedisError, RedisClusterException):
        return _made(url, timeout)
    raise ConfigurationError(f"this is no URL of Redis; one is {_FORMS}")


def _made(url: str, timeout: float) -> Made:
    if url.startswith("unix://"):
        return _single([_options(url)], "", timeout)
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError
    make = _WAYS[parts["way"] or ""]
    service, database = "", parts["path"]
    if make is _by_sentinel:
        service, _, database = parts["path"].removeprefix("/").partition("/")
    start = f"{_FAMILIES[parts['family']]}://" + (f"{parts['user']}@" if parts["user"] else "")
    end = f"/{database.removeprefix('/')}?{parts['query'] or ''}"
    return make([_options(start + host + end) for host in parts["hosts"].split(",")], service, timeout)


def _options(url: str) -> _Options:
    options: _Options = dict(parse_url(url))
    if options.setdefault("max_connections", MAX_CONNECTIONS) < 1:
        raise ValueError
    # RESP2: with RESP3 the driver takes a connection from its pool that the server has closed for a good one.
    options.update(protocol=2, retry=Retry(NoBackoff(), 0))
    return options


def _limited(options: _Options, seconds: float) -> _Options:
    return {**options, "socket_timeout": seconds, "socket_connect_timeout": seconds}


def _left_to_the_store(options: _Options) -> _Options:
    # For each command, socket_timeout would begin a task and two timers, which is half as much again. They would
    # end what the store's deadline ends, which lasts from waiting for a connection until the answer is there; either
    # way the driver closes a connection that has not answered. socket_connect_timeout costs nothing per call, and
    # bounds the driver's closing too.
    return {**options, "socket_timeout": None}


def _single(servers: list[_Options], _service: str, timeout: float) -> Made:
    (options,) = servers
    pool = QuickPool(**_left_to_the_store(_limited(options, timeout)))
    _refuse_unknown_options(pool)
    client = Redis.from_pool(pool)
    return Made(client, pool.max_connections, (client,))


def _by_sentinel(servers: list[_Options], service: str, timeout: float) -> Made:
    options = _limited(servers[0], timeout / _SHARE)
    addresses = [(server["host"], server.get("port", 26379)) for server in servers]
    options.pop("host")
    options.pop("port", None)
    encrypted = options.pop("connection_class", None) is SSLConnection
    own = {name: options.pop("sentinel_" + name, None) for name in ("username", "password")}
    shared = ("protocol", "retry", "socket_", "ssl_")
    asking = {name: value for name, value in options.items() if name.startswith(shared)}
    if not service:
        raise ValueError
    settings = {**asking, **own, "ssl": encrypted}
    sentinel = Sentinel(addresses, sentinel_kwargs=settings)  # type: ignore[no-untyped-call]  # the driver's
    client = sentinel.master_for(service, ssl=encrypted, **_left_to_the_store(options))
    _refuse_unknown_options(client.connection_pool)
    return Made(client, options["max_connections"], (client, *sentinel.sentinels))


def _refuse_unknown_options(pool: ConnectionPool) -> None:
    pool.make_connection()  # type: ignore[no-untyped-call]  # the driver's. It opens nothing


def _cluster(servers: list[_Options], _service: str, timeout: float) -> Made:
    options = _limited(servers[0], timeout / _SHARE)
    nodes = [ClusterNode(server["host"], server.get("port", 6379)) for server in servers]
    options.pop("host")
    options.pop("port", None)
    encrypted = options.pop("connection_class", None) is SSLConnection
    # Where a shard is lost the others go on. At every fifth redirection the driver would close all connections, those
    # of other calls too.
    client = RedisCluster(
        startup_nodes=nodes, ssl=encrypted, require_full_coverage=False, reinitialize_steps=0, **options
    )
    return Made(client, options["max_connections"], (client,))


_WAYS: Final[dict[str, Callable[[list[_Options], str, float], Made]]] = {
    "": _single,
    "sentinel": _by_sentinel,
    "cluster": _cluster,
}
