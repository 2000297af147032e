"""`RedisStore`: records in Redis or Valkey, on one server, by Sentinel, or in a cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from cookiesession.errors import ConfigurationError, StoreUnavailable, brought_by

with brought_by("redis", "redis"):
    from redis.asyncio import Redis, RedisCluster
    from redis.exceptions import ClusterCrossSlotError, NoPermissionError, NoScriptError, ResponseError

from cookiesession.stores.deadline import cancelled_after
from cookiesession.stores.redis.clients import Made, client_from_url
from cookiesession.stores.redis.connections import exchange
from cookiesession.stores.redis.layout import (
    GRACE,
    LAYOUT,
    START_LENGTH,
    entry_of,
    may_be_in_flight,
    pack,
    score_of,
    start_of,
    unpack,
)
from cookiesession.stores.redis.problems import is_about_connections, words_for
from cookiesession.stores.redis.scripts import DELETE, DROP, LIST, WRITE, WRITE_LISTED, Script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cookiesession.stores import Record
    from cookiesession.stores.redis.connections import Part

P = ParamSpec("P")
T = TypeVar("T")

_BATCH: Final = 100  # records that `find` asks for at once
_CLOSING: Final = 0.05  # seconds for closing connections that may be bad; they are given up after that in any case

_logger = logging.getLogger("cookiesession")


class RedisStore:
    """A `Store` in Redis 6.2 or newer, or in Valkey.

    - `client`: a `redis.asyncio.Redis` (Sentinel's `master_for()` too) or `RedisCluster` that you own and close, with
      `decode_responses=False`; or a URL: `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://host,host/name`,
      `redis+cluster://host,host` (and `rediss+...`, `valkey...`), with the driver's options as its query.
    - `prefix`: of every key. Records are under the prefix and 64 hexadecimal digits, indexes of subjects under the
      prefix, `subject:` and 64 more.
    - `timeout`: of each call, from connecting to the last answer.

    Loading, creating and replacing are one round trip; in a cluster, writing the record of a subject is two. The server
    expires records by itself. What lies under a record's key and is no record of this layout is not there, and is
    neither overwritten nor removed; in the place of an index it is a `StoreUnavailable`, since no answer could be
    complete. Nothing is tried twice. A call that failed may have had its effect nevertheless. Most commands for one
    server go straight over a connection of the client's pool: its `execute_command()` does not see them.

    A client of your own best has `protocol=2`, `retry=Retry(NoBackoff(), 0)`, a `socket_connect_timeout` of at most
    `timeout`, and `socket_timeout=None` where nothing else uses it: the store ends its calls itself, and that of the
    driver adds a half to each. With Sentinel and for a cluster a bound is a third of `timeout`, which leaves time to
    ask another server; for a cluster it is `socket_timeout` too. A store, as its client, belongs to one event loop.

    Raises `ConfigurationError` for what cannot work.
    """

    def __init__(
        self,
        client: Redis | RedisCluster | str,
        *,
        prefix: str = "cookiesession:",
        timeout: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
            raise ConfigurationError("timeout is a timedelta above zero")
        if not isinstance(prefix, str):
            raise ConfigurationError("prefix is a str")
        self.prefix: Final = prefix
        self._timeout: Final = timeout.total_seconds()
        self._clock = clock
        self._made: Made | None = client_from_url(client, self._timeout) if isinstance(client, str) else None
        self._client: Any = _usable(self._made.client if self._made else client)
        self._places: Final = asyncio.Semaphore(self._made.max_connections) if self._made else None
        self._is_cluster: Final = isinstance(self._client, RedisCluster)
        # Whether a record and the index of its subject are not written in one step, as they are on different servers.
        self._apart = self._is_cluster

    def __repr__(self) -> str:
        return f"<RedisStore of {self.prefix!r}>"

    async def load(self, key: bytes) -> Record | None:
        """The record under `key`."""
        return unpack(await self._ask(self._text, key))

    async def create(self, key: bytes, record: Record) -> bool:
        """Puts a record where there is nothing."""
        return await self._put(key, record, b"")

    async def replace(self, key: bytes, record: Record, expected_version: int) -> bool:
        """Puts a record in the place of the one with this version."""
        return await self._put(key, record, start_of(expected_version))

    async def delete(self, key: bytes) -> bool:
        """Removes the record under `key`, and it from the index of its subject: a second round trip."""
        return await self._ask(self._delete, key)

    async def find(self, subject: bytes) -> dict[bytes, Record]:
        """All records of a subject: a round trip for the index, and one for each hundred records."""
        return await self._ask(self._find, subject)

    async def check(self) -> None:
        """For start-up: warns, in the log, where a server may evict sessions that are still alive.

        Raises `StoreUnavailable` if there is no answer. A server that does not let us ask is taken for a good one.
        """
        for policy in sorted(await self._ask(self._evictions)):
            _logger.warning(
                "Redis may evict sessions that are alive, and indexes with which they are found: its maxmemory-policy "
                "is %s; set it to noeviction, and give sessions a server of their own",
                policy,
            )

    async def aclose(self) -> None:
        """Closes the client that was made from a URL."""
        for client in self._made.to_close if self._made else ():
            with suppress(Exception):
                async with asyncio.timeout(self._timeout):
                    await client.aclose()

    async def _put(self, key: bytes, record: Record, start: bytes) -> bool:
        now = int(self._clock())
        return await self._ask(self._write, key, record, pack(record, now), start, now)

    async def _ask(self, operation: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        try:
            return await cancelled_after(self._timeout, self._attempt(operation, *arguments, **options))
        except StoreUnavailable as error:
            problem, doubtful = str(error), True
        except Exception as error:  # noqa: BLE001 - the driver raises anything where connections are closed under it
            problem, doubtful = words_for(error, self._timeout), is_about_connections(error)
        if doubtful:
            await self._close_idle_connections()
        raise StoreUnavailable(problem)  # out here, so that no log shows what led to it

    async def _attempt(self, operation: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        if self._places is not None:
            await self._places.acquire()
        try:
            if self._is_cluster:
                await self._client.initialize()  # or the driver sends its first commands to servers at random
            try:
                return await operation(*arguments, **options)
            except ClusterCrossSlotError:  # one server of a cluster for all, or a proxy in front of several
                self._apart = True
                return await operation(*arguments, **options)
        finally:
            if self._places is not None:
                self._places.release()

    # What follows runs within the deadline of `_ask`.

    async def _command(self, *parts: Part) -> Any:
        """The answer to one of the commands that are sent most."""
        if self._is_cluster:
            return await self._client.execute_command(*parts)
        return await exchange(self._client.connection_pool, *parts)

    async def _text(self, key: bytes) -> bytes | None:
        try:
            text: bytes | None = await self._command("GET", self._name(key))
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):  # not a string
                return None
            raise
        return text

    async def _texts(self, keys: Sequence[bytes]) -> list[bytes | None]:
        # For MGET, what is not a string is not there.
        names = [self._name(key) for key in keys]
        if not self._apart:
            return list(await self._client.mget(names))
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command("MGET", name)
        return [text for (text,) in await pipeline.execute()]

    async def _write(self, key: bytes, record: Record, text: bytes, start: bytes, now: int) -> bool:
        # A key is alive in the millisecond that it expires in, and a record is not in its second.
        name = self._name(key)
        arguments: list[Part] = [start, text, min(max(record.expires_at * 1000 - 1, 1), 2**62)]
        if record.subject is not None:
            index = self._index(record.subject)
            entry: list[Part] = [key, score_of(record.expires_at, now), score_of(now - GRACE, 0), GRACE]
            if not self._apart:
                return bool(await self._run(WRITE_LISTED, [name, index], [*arguments, *entry]))
            await self._run(LIST, [index], entry)  # first, so that no session is alive and not listed
        return bool(await self._run(WRITE, [name], arguments))

    async def _delete(self, key: bytes) -> bool:
        start = await self._run(DELETE, [self._name(key)], [START_LENGTH, LAYOUT])
        entry = entry_of(start)
        if entry is not None:
            subject, score = entry
            with suppress(Exception):  # the record is gone, and what is left in an index is dropped by `find`
                await self._drop(subject, {key: score})
        return start is not None

    async def _find(self, subject: bytes) -> dict[bytes, Record]:
        now = int(self._clock())
        entries = await self._client.zrange(self._index(subject), 0, -1, withscores=True)
        found: dict[bytes, Record] = {}
        for first in range(0, len(entries), _BATCH):
            scores = dict(entries[first : first + _BATCH])
            records = zip(scores, map(unpack, await self._texts(list(scores))), strict=True)
            found |= {key: record for key, record in records if record is not None and record.subject == subject}
            dead = {
                key: score for key, score in scores.items() if key not in found and not may_be_in_flight(score, now)
            }
            if dead:
                await self._drop(subject, dead)
        return found

    async def _drop(self, subject: bytes, scores: Mapping[bytes, float]) -> None:
        await self._run(DROP, [self._index(subject)], [part for key, score in scores.items() for part in (key, score)])

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Part]) -> Any:
        try:
            return await self._command("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:  # a server that has been restarted, or taken over
            return await self._command("EVAL", script.text, len(keys), *keys, *arguments)

    async def _evictions(self) -> set[str]:
        """The policies by which servers evict what has not expired."""
        where = {"target_nodes": RedisCluster.PRIMARIES} if self._is_cluster else {}
        try:
            told = await self._client.info("memory", **where)
        except NoPermissionError:
            return set()
        servers = [told] if "maxmemory" in told else told.values()
        return {server["maxmemory_policy"] for server in servers if server["maxmemory"]} - {"noeviction"}

    async def _close_idle_connections(self) -> None:
        if not self._is_cluster:  # whose client does it by itself
            with suppress(Exception):
                async with asyncio.timeout(_CLOSING):
                    await self._client.connection_pool.disconnect(inuse_connections=False)

    def _name(self, key: bytes) -> str:
        return self.prefix + key.hex()

    def _index(self, subject: bytes) -> str:
        return f"{self.prefix}subject:{subject.hex()}"


def _usable(client: object) -> Redis | RedisCluster:
    """A client that gives bytes, as they were written last."""
    if not isinstance(client, Redis | RedisCluster):
        raise ConfigurationError("RedisStore takes a client of redis.asyncio, or a URL")
    if client.get_encoder().decode_responses:
        raise ConfigurationError("records are bytes: make the client with decode_responses=False")
    if isinstance(client, RedisCluster) and (client.read_from_replicas or client.load_balancing_strategy):
        raise ConfigurationError("replicas lag behind, and have sessions that ended: make the client without them")
    return client
