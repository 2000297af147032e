"""`Saving`: records that several requests write at once. By version, and with the changes of all of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from msgspec.structs import replace

from cookiesession.codec import DECODING_ERRORS
from cookiesession.errors import InvalidToken, SessionEnded, StoreUnavailable
from cookiesession.payload import id_hash
from cookiesession.replay import replay
from cookiesession.stores import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cookiesession.payload import Payload
    from cookiesession.records import Held, Records
    from cookiesession.rules import Rules

T = TypeVar("T")

_TAKEN: Final = "the store has a record already under an id that was drawn just now"
_UNREADABLE: Final[tuple[type[Exception], ...]] = (InvalidToken, *DECODING_ERRORS)


class Saving(Generic[T]):
    """Writes sessions to `records` so that no concurrent change is lost, and no ended session comes back."""

    def __init__(self, rules: Rules[T], records: Records, renew_grace: int) -> None:
        self._rules = rules
        self._records = records
        self._renew_grace = renew_grace
        # Where one request of this process has met a conflict, the next waits rather than meet one too.
        self._queues: WeakValueDictionary[bytes, _Queue] = WeakValueDictionary()
        self._undoings: set[asyncio.Future[None]] = set()  # a loop alone would forget them

    async def create(self, payload: Payload) -> Held:
        """The record of a session that begins."""
        created = await self._records.create(payload)
        if created is None:
            raise StoreUnavailable(_TAKEN)
        return created

    async def move_in(self, base: Payload, mine: Payload) -> Held | None:
        """The record of a session that was in its cookie as `base`. Another request may have been faster."""
        for conflicts in range(ATTEMPTS):
            saved = await self._records.create(mine, conflicts=conflicts)
            if saved is not None:
                return saved
            present = await self._records.load(mine.id)
            if present is None:  # it has just expired; or no instance with these keys and this clock opens it
                saved = await self._records.supplant(mine)
            elif present.payload.superseded_by != b"":  # it is in use, or has been renewed
                merged = self.merge(base, mine, present.payload)
                return await self.replace(present, present.payload.data, merged)
            else:  # it moved into the cookie that `base` was in
                saved = await self._records.replace(mine, present.version)
            if saved is not None:
                return saved
        raise StoreUnavailable(f"the session changed {ATTEMPTS} times while it was saved")

    async def replace(self, held: Held, data: bytes, mine: Payload) -> Held | None:
        """Saves `mine`, which was made of `held` with this `data`. None where the session has ended meanwhile.

        Where another save was faster, the change is replayed on what that one left.
        """
        base, mine = held.payload, _bounded(mine, held.payload)
        merged = mine
        if data != base.data:
            # An earlier save of this request has put in what others had changed, and its handler does not see.
            base = replace(base, data=data)
            merged = self.merge(base, mine, held.payload)
        saved = await self._records.replace(merged, held.version)
        if saved is not None:
            return saved
        async with self._turn(mine.id):
            for conflicts in range(1, ATTEMPTS):
                newest = await self._records.load(mine.id)
                if newest is None:
                    return None
                merged = self.merge(base, mine, newest.payload)
                saved = await self._records.replace(merged, newest.version, conflicts=conflicts)
                if saved is not None:
                    return saved
                await self._give_way(conflicts)
        raise StoreUnavailable(f"the session changed {ATTEMPTS} times while it was saved")

    async def hand_over(self, former: Held, data: bytes, mine: Payload) -> Held | None:
        """Gives a renewed session its record, and leaves the former one to requests under way.

        None where the session has ended meanwhile: a logout wins.
        """
        if former.payload.superseded_by is not None:
            return None  # whoever kept an old id renews nothing with it
        async with self._taking_back(former, id_hash(mine.id)):
            created = await self._records.create(mine)
            if created is not None:
                return await self._follow(former, replace(former.payload, data=data), created, mine)
        raise StoreUnavailable(_TAKEN)

    async def move_out(self, held: Held) -> bool:
        """Leaves the record of a session that a cookie holds from now on. False where it has changed, or is gone."""
        async with self._taking_back(held, b""):
            return await self.expire(held)

    @asynccontextmanager
    async def _taking_back(self, former: Held, successor: bytes) -> AsyncIterator[None]:
        """Undoes what fails or is cancelled within: the client keeps the cookie that it has, and its session."""
        try:
            yield
        except (StoreUnavailable, asyncio.CancelledError):
            # In a task of its own: anyio cancels again whatever the cancelled one awaits.
            undoing = asyncio.ensure_future(self._take_back(former, successor))
            self._undoings.add(undoing)
            undoing.add_done_callback(self._undoings.discard)
            await asyncio.shield(undoing)
            raise

    async def _take_back(self, former: Held, successor: bytes) -> None:
        """Nobody knows how far it came: an answer may be lost where the call is not."""
        with suppress(StoreUnavailable):
            old = await self._records.load(former.payload.id)
            if old is not None and old.payload.superseded_by == successor:
                payload = replace(old.payload, superseded_by=None, expires_at=former.payload.expires_at)
                await self._records.replace(payload, old.version)
            if successor:
                await self._records.delete(successor)

    async def _follow(self, former: Held, base: Payload, created: Held, mine: Payload) -> Held | None:
        """Ends `former`, and brings into `created` what others put there before."""
        for _ in range(ATTEMPTS):
            if await self.expire(former, id_hash(mine.id)):
                return created
            newest = await self._records.load(former.payload.id)
            if newest is None or newest.payload.superseded_by is not None:
                break
            merged = self.merge(base, mine, newest.payload)
            replaced = await self._records.replace(succeed(mine, merged), created.version)
            if replaced is None:
                return None
            former, created = newest, replaced
        else:
            raise StoreUnavailable(f"the session changed {ATTEMPTS} times while it was renewed")
        await self._records.delete(id_hash(mine.id))
        return None

    async def expire(self, held: Held, successor: bytes = b"") -> bool:
        """Leaves a record to the requests that are under way. False where it has changed meanwhile, or is gone."""
        if not await self._supersede(held, self._renew_grace or 1, successor):
            return False
        if not self._renew_grace:
            with suppress(StoreUnavailable):  # it is over in a second, without another call
                await self._records.delete(id_hash(held.payload.id))
        return True

    async def remove(self, held: Held) -> bool:
        """Removes a record. False where it has changed meanwhile, or is gone."""
        if not await self._supersede(held, 1, b""):
            return False
        await self._records.delete(id_hash(held.payload.id))  # unless it has expired already: by its store's clock
        return True

    async def end(self, held: Held) -> None:
        """Removes a record and what it was renewed to, whatever others do to it meanwhile."""
        left = await self._chain(held)
        for _ in range(ATTEMPTS):
            # The newest first: where the store fails half-way, an old id still leads to what is left.
            while left and await self.remove(left[-1]):
                left.pop()
            if not left:
                return
            newest = await self._records.load(left.pop().payload.id)
            left += [] if newest is None else await self._chain(newest)
        raise StoreUnavailable(f"the session changed {ATTEMPTS} times while it was ended")

    async def _chain(self, held: Held) -> list[Held]:
        """A record, what it was renewed to, what that was renewed to, and so on."""
        chain = [held]
        while successor := chain[-1].payload.superseded_by:
            newer = await self._records.load_key(successor)
            if newer is None:
                break
            chain.append(newer)
        return chain

    async def transact(self, id: bytes, change: Callable[[T], T | None]) -> Held:
        """Has `change` change the newest record. Raises `SessionEnded` where there is none any more."""
        async with self._turn(id):
            for conflicts in range(ATTEMPTS):
                newest = await self._records.load(id)
                if newest is None or newest.payload.superseded_by is not None:
                    raise SessionEnded("the session has ended, or been renewed by another request")
                encoded = self._changed(newest.payload.data, change)
                payload = self._rules.used(newest.payload, encoded, int(self._rules.clock()))
                saved = await self._records.replace(payload, newest.version, conflicts=conflicts)
                if saved is not None:
                    return saved
                await self._give_way(conflicts)
        raise StoreUnavailable(f"the session changed {ATTEMPTS} times during a transaction")

    def merge(self, base: Payload, mine: Payload, theirs: Payload) -> Payload:
        """`theirs`, with what `mine` changed of `base`."""
        data = replay(self._normal(base.data), mine.data, theirs.data)
        try:
            self._rules.codec.decode(data)
        except _UNREADABLE:
            data = mine.data  # each of the changes is valid, and both together are not
        names = ("flags", "expires_at", "subject", "label")
        changed: dict[str, Any] = {name: getattr(mine, name) for name in names}
        changed = {name: value for name, value in changed.items() if value != getattr(base, name)}
        merged = replace(theirs, **changed, data=data, renewed_at=max(mine.renewed_at, theirs.renewed_at))
        return _bounded(merged, theirs)

    async def _supersede(self, held: Held, grace: int, successor: bytes) -> bool:
        soon = int(self._rules.clock()) + grace
        ending = replace(held.payload, superseded_by=successor, expires_at=min(soon, held.payload.expires_at))
        return await self._records.replace(ending, held.version) is not None

    def _normal(self, encoded: bytes) -> bytes:
        # As this process would have written it: with a model's new fields, and its sets in the order they have here.
        return self._rules.codec.encode(self._rules.codec.decode(encoded))

    def _changed(self, kept: bytes, change: Callable[[T], T | None]) -> bytes:
        try:
            data = self._rules.codec.decode(kept)
        except _UNREADABLE:
            raise SessionEnded("the session's data is none that this application reads") from None
        other = change(data)
        data = data if other is None else other
        self._rules.require(data)
        encoded = self._rules.encode(data)
        self._rules.codec.verify(data, encoded, kept)
        return encoded

    async def _give_way(self, conflicts: int) -> None:
        # Other processes meet the same conflict: who waits for different times meets fewer.
        share = self._rules.random(1)[0] / 255
        await asyncio.sleep(share * min(0.002 * 2**conflicts, 0.05))

    @asynccontextmanager
    async def _turn(self, id: bytes) -> AsyncIterator[None]:
        """Raises `StoreUnavailable` where the store has failed somebody in front: the deadlines do not add up."""
        queue = self._queues.get(id)
        if queue is None:
            queue = self._queues[id] = _Queue()
        failures = queue.failures
        async with queue:
            if queue.failures > failures:
                raise StoreUnavailable("the store failed another request of the session")
            try:
                yield
            except StoreUnavailable:
                queue.failures += 1
                raise


class _Queue(asyncio.Lock):
    """Those who wait for a record, and how often the store has failed one of them."""

    failures = 0


def succeed(mine: Payload, merged: Payload) -> Payload:
    """A renewed session: the id and the times of `mine`, and all else as `merge()` made it."""
    return replace(mine, flags=merged.flags, subject=merged.subject, label=merged.label, data=merged.data)


def _bounded(payload: Payload, present: Payload) -> Payload:
    # What is left of a renewed session lives no longer than its grace, whatever requests under way do with it.
    if present.superseded_by is None:
        return payload
    expires_at = min(payload.expires_at, present.expires_at)
    return replace(payload, superseded_by=present.superseded_by, expires_at=expires_at)
