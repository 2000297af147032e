"""`Endings`: which of the sessions that live in cookies have ended, in a store, and what a process knows of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from cookiesession.errors import StoreUnavailable
from cookiesession.payload import LAST_SECOND, Payload, id_hash
from cookiesession.stores import ATTEMPTS, Record

if TYPE_CHECKING:
    from cookiesession.configuration import Configuration
    from cookiesession.revocation import Revocation

Merge = Callable[["Ending", "Ending"], "Ending"]

EVERYTHING: Final = b"everything"
"""What the ending of all sessions is called."""

MARGIN: Final = 600
"""Seconds that an ending outlives the last session it can concern: clocks of instances and stores differ."""

REMEMBERED: Final = 10_000
"""How many answers of the store a process keeps, each for `check_every`."""


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """What the store says of a session, of a subject's sessions, or of all."""

    at: float
    """Seconds since the epoch. A session ends then; of several, those end that had begun before."""
    spared: tuple[bytes, ...] = ()
    """The `id_hash()` of those that do not."""
    successor: bytes = b""
    """The `id_hash()` of what a session was renewed to."""

    def __repr__(self) -> str:
        return "<Ending>"


class Endings:
    """The endings in a store: asked for at most once in `check_every`, and merged where there are several of a name.

    They hold hashes and times, and are not sealed: whoever can write to the store could as well delete them. Each
    coroutine raises `StoreUnavailable`.
    """

    def __init__(self, revocation: Revocation, configuration: Configuration) -> None:
        self._store = revocation.store
        self._check_every = revocation.check_every.total_seconds()
        self._lifetime = configuration.lifetime
        self._clock = configuration.clock
        self._known: dict[bytes, tuple[float, Ending | None]] = {}  # when it was asked, and the answer
        self._asked: dict[bytes, asyncio.Task[Ending | None]] = {}

    async def of(self, payload: Payload) -> Ending | None:
        """The ending of one session, as far as is known here: past, or to come because it was renewed."""
        names = [of_session(id_hash(payload.id)), EVERYTHING]
        if payload.subject is not None:
            names.append(of_subject(payload.subject))
        own, *common = await self._look_up(names)
        for ending in common:
            if ending is not None and _covers(ending, payload):
                return ending
        newest = own
        while newest is not None and newest.successor:  # what it was renewed to may have ended since
            [newest] = await self._look_up([of_session(newest.successor)])
        return own if newest is None or newest.at > self._clock() else newest

    async def end(self, id_hash: bytes, *, began: float, at: float, successor: bytes = b"") -> Ending:
        """Ends one session. The ending that it has now, which may be an earlier one."""
        return await self._add(of_session(id_hash), Ending(at, (), successor), _earlier, began)

    async def end_before(self, name: bytes, at: float, spared: tuple[bytes, ...] = ()) -> None:
        """Ends all sessions of a name that had begun before `at`, in seconds since the epoch."""
        await self._add(name, Ending(at, spared), _later, at)

    async def _look_up(self, names: list[bytes]) -> list[Ending | None]:
        """What there is of these names. The store is asked for all at once."""
        looks = [self._known_or_asked(name) for name in names]
        return [await asyncio.shield(look) if isinstance(look, asyncio.Task) else look for look in looks]

    def _known_or_asked(self, name: bytes) -> asyncio.Task[Ending | None] | Ending | None:
        """What is known, or the task that asks: one for all requests that want to know."""
        now = self._clock()
        known = self._known.get(name)
        if known is not None and 0 <= now - known[0] < self._check_every:
            return known[1]
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = asyncio.create_task(self._ask(name, now))
            asked.add_done_callback(lambda done: self._answered(name, done))
        return asked

    async def _ask(self, name: bytes, now: float) -> Ending | None:
        ending, _ = await self._load(name)
        self._note(name, now, ending)
        return ending

    def _answered(self, name: bytes, done: asyncio.Task[Ending | None]) -> None:
        del self._asked[name]
        if not done.cancelled():
            done.exception()  # retrieved, should nobody be left to hear of it

    def _note(self, name: bytes, asked_at: float, ending: Ending | None) -> None:
        known = self._known.pop(name, None)
        if known is not None and known[0] > asked_at:  # what this process has ended while the store was asked
            asked_at, ending = known
        elif len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]  # the one that was noted first
        self._known[name] = asked_at, ending

    async def _add(self, name: bytes, ending: Ending, merge: Merge, began: float) -> Ending:
        expires_at = min(int(began) + self._lifetime + MARGIN, LAST_SECOND)
        for _ in range(ATTEMPTS):
            present, version = await self._load(name)
            merged = ending if present is None else merge(present, ending)
            if merged == present or await self._save(name, Record(_encode(merged), version + 1, expires_at), version):
                self._note(name, self._clock(), merged)
                return merged
        raise StoreUnavailable(f"an ending changed {ATTEMPTS} times while it was saved")

    async def _load(self, name: bytes) -> tuple[Ending | None, int]:
        """The ending and its version, 0 where there is none."""
        record = await self._store.load(_key(name))
        if record is None:
            return None, 0
        try:
            return _decode(record.value), record.version
        except msgspec.MsgspecError as error:
            raise StoreUnavailable("the store holds what is no ending") from error

    async def _save(self, name: bytes, record: Record, version: int) -> bool:
        key = _key(name)
        return await (self._store.replace(key, record, version) if version else self._store.create(key, record))


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Ending).decode


def of_session(id_hash: bytes) -> bytes:
    """What the ending of one session is called."""
    return b"session\0" + id_hash


def of_subject(subject: str) -> bytes:
    """What the ending of a subject's sessions is called."""
    return b"subject\0" + subject.encode("utf-8", "surrogatepass")


def _key(name: bytes) -> bytes:
    return hashlib.sha256(b"cookiesession/v1/ending\0" + name).digest()


def _covers(ending: Ending, payload: Payload) -> bool:
    """Whether a session is one of those that have ended together."""
    return payload.began() < ending.at and id_hash(payload.id) not in ending.spared


def _earlier(present: Ending, new: Ending) -> Ending:
    """Of one session: what it was renewed to first stays."""
    return Ending(min(present.at, new.at), (), present.successor)


def _later(present: Ending, new: Ending) -> Ending:
    """Of several sessions: who is spared now may have been spared by neither, but not by one alone."""
    if new.at >= present.at:
        return new
    return Ending(present.at, tuple(hash for hash in present.spared if hash in new.spared))
