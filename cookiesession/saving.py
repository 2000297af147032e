"""`Saving`: records that several requests write at once. By version, and with the changes of all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from msgspec.structs import replace

from cookiesession.codec import DECODING_ERRORS
from cookiesession.errors import InvalidToken, SessionEnded, StoreUnavailable
from cookiesession.payload import id_hash
from cookiesession.replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.cookiemode import CookieMode
    from cookiesession.payload import Payload
    from cookiesession.records import Held, Records

T = TypeVar("T")

_UNREADABLE: Final[tuple[type[Exception], ...]] = (InvalidToken, *DECODING_ERRORS)

ATTEMPTS: Final = 100
"""How often a save is tried because others are faster: one of them succeeds each time."""


class Saving(Generic[T]):
    """Writes sessions to `records` so that no concurrent change is lost, and no ended session comes back."""

    def __init__(self, sessions: CookieMode[T], records: Records, renew_grace: int) -> None:
        self._sessions = sessions
        self._records = records
        self._renew_grace = renew_grace
        # Where one request of this process has met a conflict, the next waits rather than meet one too.
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def create(self, payload: Payload) -> Held:
        """The record of a session that begins."""
        created = await self._records.create(payload)
        if created is None:
            raise StoreUnavailable("the store has a record already under an id that was drawn just now")
        return created

    async def replace(self, held: Held, data: bytes, mine: Payload) -> Held | None:
        """Saves `mine`, which was made of `held` with this `data`. None where the session has ended meanwhile.

        Where another save was faster, the change is replayed on what that one left.
        """
        saved = await self._records.replace(mine, held.version)
        if saved is not None:
            return saved
        base = replace(held.payload, data=data)
        async with self._lock(mine.id):
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
        base = replace(former.payload, data=data)
        created = await self.create(mine)
        for _ in range(ATTEMPTS):
            if await self.expire(former):
                return created
            newest = await self._records.load(former.payload.id)
            if newest is None:
                await self._records.delete(id_hash(mine.id))
                return None
            merged = self.merge(base, mine, newest.payload)
            times = {"created_at": mine.created_at, "renewed_at": mine.renewed_at, "expires_at": mine.expires_at}
            merged = replace(merged, **times, id=mine.id, superseded=False)
            replaced = await self._records.replace(merged, created.version)
            if replaced is None:
                return None
            former, created = newest, replaced
        raise StoreUnavailable(f"the session changed {ATTEMPTS} times while it was renewed")

    async def expire(self, held: Held) -> bool:
        """Leaves a record to the requests that are under way. False where it has changed meanwhile, or is gone."""
        if not self._renew_grace:
            return await self._records.delete(id_hash(held.payload.id))
        soon = int(self._sessions.clock()) + self._renew_grace
        ending = replace(held.payload, superseded=True, expires_at=min(soon, held.payload.expires_at))
        return await self._records.replace(ending, held.version) is not None

    async def transact(self, id: bytes, change: Callable[[T], T | None]) -> Held:
        """Has `change` change the newest record. Raises `SessionEnded` where there is none any more."""
        async with self._lock(id):
            for conflicts in range(ATTEMPTS):
                newest = await self._records.load(id)
                if newest is None:
                    raise SessionEnded("the session has ended")
                payload = self._sessions.used(newest.payload, self._changed(newest.payload.data, change))
                saved = await self._records.replace(payload, newest.version, conflicts=conflicts)
                if saved is not None:
                    return saved
                await self._give_way(conflicts)
        raise StoreUnavailable(f"the session changed {ATTEMPTS} times during a transaction")

    def merge(self, base: Payload, mine: Payload, theirs: Payload) -> Payload:
        """`theirs`, with what `mine` changed of `base`."""
        data = replay(base.data, mine.data, theirs.data)
        try:
            self._sessions.codec.decode(data)
        except _UNREADABLE:
            data = mine.data  # each of the changes is valid, and both together are not
        names = ("flags", "expires_at", "subject", "label")
        changed: dict[str, Any] = {name: getattr(mine, name) for name in names}
        changed = {name: value for name, value in changed.items() if value != getattr(base, name)}
        return replace(theirs, **changed, data=data, renewed_at=max(mine.renewed_at, theirs.renewed_at))

    def _changed(self, encoded: bytes, change: Callable[[T], T | None]) -> bytes:
        data = self._sessions.codec.decode(encoded)
        other = change(data)
        data = data if other is None else other
        encoded = self._sessions.encode(data)
        self._sessions.codec.verify(data, encoded)
        return encoded

    async def _give_way(self, conflicts: int) -> None:
        # Other processes meet the same conflict: who waits for different times meets fewer.
        share = self._sessions.random(1)[0] / 255
        await asyncio.sleep(share * min(0.002 * 2**conflicts, 0.05))

    def _lock(self, id: bytes) -> asyncio.Lock:
        lock = self._locks.get(id)
        if lock is None:
            lock = self._locks[id] = asyncio.Lock()
        return lock
