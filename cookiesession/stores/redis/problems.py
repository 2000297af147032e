"""What can go wrong between `RedisStore` and its servers, in words for the operator. Plain functions on exceptions."""

from __future__ import annotations

import os
from socket import gaierror
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the driver's exceptions are called or the server says, and what it means. What goes wrong inside a script is a
# general exception with words of its own around the server's. None of these words are passed on: a server may quote
# keys and values.
_MEANINGS: Final = (
    (("max number of clients",), "the Redis server has as many clients as it takes (maxclients)"),
    (("MaxConnectionsError",), "all connections that the client may have are in use (max_connections)"),
    (("NOAUTH", "Authentication required"), "the Redis server asks for a password"),
    (("AuthenticationError", "WRONGPASS"), "the Redis server does not take this user and password"),
    (("NoPermissionError",), "the Redis server does not let this user do what RedisStore does"),
    (("OutOfMemoryError", "-OOM"), "the Redis server is full (maxmemory), and takes no writes"),
    (("ReadOnlyError", "-READONLY", "master is now a slave"), "the Redis server is a replica, and takes no writes"),
    (("BusyLoadingError",), "the Redis server is still loading its data"),
    (("MISCONF",), "the Redis server cannot save to its disk, and takes no writes"),
    (("NOREPLICAS",), "the Redis server has too few replicas, and takes no writes"),
    (("MasterNotFoundError",), "no Sentinel that answers knows of a primary by this name"),
    (("MovedError", "AskError"), "the Redis server is one of a cluster: its URL is redis+cluster://"),
    (("ClusterDown", "SlotNotCovered"), "the part of the Redis cluster that has this key is down"),
    (("cannot be connected",), "no node of a Redis cluster answers"),
    (("WRONGTYPE",), "what is in the place of a subject's index in Redis is none"),
    (("syntax error",), "the Redis server is older than 6.2"),
)
_ABOUT_CONNECTIONS: Final = ("ConnectionError", "TimeoutError", "ReadOnlyError", "-READONLY")


def words_for(error: Exception, seconds: float) -> str:
    """What an operator wants to know. No key, no value, no password, nothing that a server may have quoted."""
    told = _told(error)
    for needles, meaning in _MEANINGS:
        if any(needle in told for needle in needles):
            return meaning
    for link in _links(error):
        if isinstance(link, gaierror):
            return "the name of the Redis server is not known"
        if isinstance(link, OSError) and link.errno:
            return f"the Redis server cannot be reached: {os.strerror(link.errno)}"
    if "TimeoutError" in told:
        return f"the store did not answer within {seconds:g} s"
    if "ConnectionError" in told:
        return "the Redis server closed the connection, as it does when it has as many clients as it takes (maxclients)"
    return f"the Redis server cannot be used ({type(error).__name__})"


def is_about_connections(error: Exception) -> bool:
    """Whether other connections to the same server may be as bad, though they have not shown it yet.

    They may be half open, or lead to what was the primary before a failover.
    """
    told = _told(error)
    return isinstance(error, OSError) or any(needle in told for needle in _ABOUT_CONNECTIONS)


def _told(error: Exception) -> str:
    return "\n".join(f"{type(link).__name__}: {link}" for link in _links(error))


def _links(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):  # a chain of exceptions may be a ring
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
