"""`Endings`: which of the sessions that live in cookies have ended, in a store, and what a process knows of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from cookiesession.codec import DECODING_ERRORS
from cookiesession.errors import StoreUnavailable
from cookiesession.payload import LAST_SECOND, Payload, id_hash
from cookiesession.stores import ATTEMPTS, Record

if TYPE_CHECKING:
    from cookiesession.configuration import Configuration
    from cookiesession.revocation import Revocation

T = TypeVar("T")

Merge = Callable[["Ending", "Ending"], "Ending"]

EVERYTHING: Final = b"everything"
"""What the ending of all sessions is called."""

MARGIN: Final = 600
"""Seconds that an ending outlives the last session it can concern: clocks of instances and stores differ."""

REMEMBERED: Final = 10_000
"""How many answers of the store a process keeps, each for `check_every`; and how many endings, for when it fails."""

RENEWALS: Final = 8
"""So many of one session within one grace end its oldest id, which costs a call of the store for each."""

_SESSION: Final = b"session\0"
_RESOLUTION: Final = 0.000_001  # seconds: `Payload.fraction` is rounded down


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """What the store says of one session, or of several: of a subject's sessions, or of all."""

    at: float
    """Seconds since the epoch. Of several sessions, those end that had begun before; a renewed one opens until then."""
    successor: bytes = b""
    """The `id_hash()` of what the session was renewed to."""
    spared: dict[bytes, float] = {}
    """The `id_hash()` of those among several that only end if they had begun before a time of their own."""

    def __repr__(self) -> str:
        return "<Ending>"

    def covers(self, payload: Payload) -> bool:
        """Whether a session is one of those that have ended together. What begins just then has not."""
        return payload.began() + _RESOLUTION < self.spared.get(id_hash(payload.id), self.at)


class Standing(NamedTuple):
    """What is known of a session: whether it has ended, and whether there is a newer one in its place."""

    is_over: bool
    is_renewed: bool


class _Look(NamedTuple):
    """When the store was asked, and its answer, or who waits for it."""

    asked_at: float
    answer: asyncio.Future[Ending | None]


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
        self._known: dict[bytes, _Look] = {}
        self._last: dict[bytes, Ending] = {}  # that the store told of, however long ago: none is ever taken back

    async def standing(self, payload: Payload, *, afresh: bool = False) -> Standing:
        """That of one session as far as is known here, or `afresh`, as the store has it.

        While the store fails, that it has ended, if this has been known before.
        """
        names = [of_session(id_hash(payload.id)), EVERYTHING]
        if payload.subject is not None:
            names.append(of_subject(payload.subject))
        try:
            return await self._judge(payload, await self._look_up(names, 0 if afresh else self._check_every))
        except StoreUnavailable:
            standing = await self._judge(payload, [self._last.get(name) for name in names])
            if not standing.is_over:
                raise
            return standing

    async def _judge(self, payload: Payload, endings: Sequence[Ending | None]) -> Standing:
        """The standing of a session with this ending of its own, and these of several."""
        own, *common = endings
        is_over = any(ending is not None and ending.covers(payload) for ending in common) or await self._is_over(own)
        return Standing(is_over, own is not None and own.successor != b"")

    async def end(self, id_hash: bytes, *, began: float, at: float, successor: bytes = b"") -> tuple[bool, bytes]:
        """Ends one session. Whether it was to live longer, and what it was renewed to, which the first one decides."""
        ended, is_new = await self._add(of_session(id_hash), Ending(at, successor), _earlier, began)
        return is_new, ended.successor

    async def end_several(self, name: bytes, before: float | None, spared: Iterable[bytes] = ()) -> Ending:
        """Ends all sessions of a name that had begun `before`, or until now. What has ended of that name by now."""
        exempt = dict.fromkeys(spared, 0.0)
        at = self._clock() if before is None else before
        ended, _ = await self._add(name, Ending(at, spared=exempt), _later, at)
        if before is None:  # what was renewed until the store knew of it has begun since
            at = self._clock()
            ended, _ = await self._add(name, Ending(at, spared=exempt), _later, at)
        return ended

    async def _is_over(self, ending: Ending | None) -> bool:
        """Whether a session with this ending opens no more: after its grace, or when what it was renewed to has ended.

        By no clock where there is no grace: that of who ended it may be ahead.
        """
        for _ in range(RENEWALS):
            if ending is None:
                return False
            if not ending.successor or ending.at <= self._clock():
                break
            [ending] = await self._look_up([of_session(ending.successor)], self._check_every)
        return True

    async def _look_up(self, names: list[bytes], within: float) -> list[Ending | None]:
        """What there is of these names, or was `within` so many seconds. The store is asked for all at once."""
        answers = [self._known_or_asked(name, within) for name in names]
        return [await asyncio.shield(answer) for answer in answers]

    def _known_or_asked(self, name: bytes, within: float) -> asyncio.Future[Ending | None]:
        """The answer: one for all requests that want to know."""
        now = self._clock()
        known = self._known.get(name)
        if known is not None and 0 <= now - known.asked_at < within:
            return known.answer
        asked = asyncio.create_task(self._ask(name))
        asked.add_done_callback(lambda answer: self._forget_failure(name, answer))
        _keep(self._known, name, _Look(now, asked))
        return asked

    async def _ask(self, name: bytes) -> Ending | None:
        record = await self._store.load(_key(name))
        if record is None:
            return None
        ending = _read(record)
        known = self._last.get(name, ending)  # of later than the answer, maybe, which was on its way for long
        _keep(self._last, name, _earlier(known, ending) if name.startswith(_SESSION) else _later(known, ending))
        return ending

    def _forget_failure(self, name: bytes, answer: asyncio.Future[Ending | None]) -> None:
        if answer.cancelled() or answer.exception() is not None:  # retrieved, should nobody be left to hear of it
            known = self._known.get(name)
            if known is not None and known.answer is answer:
                del self._known[name]

    async def _add(self, name: bytes, ending: Ending, merge: Merge, began: float) -> tuple[Ending, bool]:
        """What there is in the end, of sessions that `began` then at the latest; and whether that is anything new."""
        key = _key(name)
        expires_at = min(int(began) + self._lifetime + MARGIN, LAST_SECOND)
        for _ in range(ATTEMPTS):
            held = await self._store.load(key)
            if held is None:
                present, merged = None, ending
                saved = await self._store.create(key, Record(_encode(merged), 1, expires_at))
            else:
                present = _read(held)
                merged = merge(present, ending)
                record = Record(_encode(merged), held.version + 1, max(expires_at, held.expires_at))
                saved = merged == present or await self._store.replace(key, record, held.version)
            if saved:
                answer: asyncio.Future[Ending | None] = asyncio.get_running_loop().create_future()
                answer.set_result(merged)
                _keep(self._known, name, _Look(self._clock(), answer))
                _keep(self._last, name, merged)
                return merged, merged != present
        raise StoreUnavailable(f"an ending changed {ATTEMPTS} times while it was saved")


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Ending).decode


def of_session(id_hash: bytes) -> bytes:
    """What the ending of one session is called."""
    return _SESSION + id_hash


def of_subject(subject: str) -> bytes:
    """What the ending of a subject's sessions is called."""
    return b"subject\0" + subject.encode("utf-8", "surrogatepass")


def _keep(known: dict[bytes, T], name: bytes, value: T) -> None:
    """Puts what is known of a name, in the place of what has been known for longest if there is much."""
    known.pop(name, None)
    if len(known) >= REMEMBERED:
        del known[next(iter(known))]
    known[name] = value


def _key(name: bytes) -> bytes:
    return hashlib.sha256(b"cookiesession/v1/ending\0" + name).digest()


def _read(record: Record) -> Ending:
    try:
        return _decode(record.value)
    except DECODING_ERRORS as error:
        raise StoreUnavailable("the store holds what is no ending") from error


def _earlier(present: Ending, new: Ending) -> Ending:
    """Of one session: what it was renewed to first stays, and nothing else lives on."""
    return Ending(min(present.at, new.at), present.successor)


def _later(present: Ending, new: Ending) -> Ending:
    """Of several sessions: those that either covers. Who is spared now may have ended before, and stays so."""
    older, newer = sorted((present, new), key=lambda ending: ending.at)
    spared = {hash: max(until, older.spared.get(hash, older.at)) for hash, until in newer.spared.items()}
    return Ending(newer.at, spared=spared)
