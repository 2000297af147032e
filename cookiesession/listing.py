"""`Listing` and `RevocableListing`: the live sessions of a subject, shown and ended between requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cookiesession.endings import EVERYTHING, of_subject
from cookiesession.errors import ConfigurationError, StoreUnavailable
from cookiesession.payload import Payload, id_hash
from cookiesession.stores import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.endings import Endings
    from cookiesession.records import Records
    from cookiesession.saving import Saving


@dataclass(frozen=True)
class SessionInfo:
    """A live session in a list. `id_hash` names it and opens nothing; `label` is what the application wrote there."""

    id_hash: str
    created_at: datetime
    used_at: datetime
    """When it was last written because it was used: with an idle timeout no older than half of that."""
    expires_at: datetime
    label: str | None


class Listing:
    """What a store has of a subject. `renewed_from` gives the hash that a session is under which is being renewed."""

    def __init__(self, records: Records, saving: Saving[Any], renewed_from: Callable[[str], bytes | None]) -> None:
        self._records = records
        self._saving = saving
        self._renewed_from = renewed_from

    async def find(self, subject: str) -> list[SessionInfo]:
        """The live sessions of a subject, the one that was used last first."""
        found = await self._records.find(subject)
        infos = [_info(key, held.payload) for key, held in found.items() if held.payload.superseded_by is None]
        return sorted(infos, key=lambda info: info.used_at, reverse=True)

    async def end_all(self, subject: str, except_id: str | None, before: float | None) -> int:
        """Ends the sessions of a subject but the one with this id, of those begun `before`. How many there were."""
        spared = set() if except_id is None else {id_hash(bytes.fromhex(except_id)), self._renewed_from(except_id)}
        count = 0
        for _ in range(ATTEMPTS):  # one may just be renewed, and then there is another
            found = await self._records.find(subject)
            keys = {key for key, held in found.items() if before is None or held.payload.began() < before} - spared
            if not keys:
                return count
            count += sum([await self._records.delete(key) for key in keys])
        raise StoreUnavailable(f"there were still sessions of the subject after {ATTEMPTS} attempts to end them")

    async def end(self, id_hash: bytes, began: float | None) -> bool:
        """Ends a session, and what it was renewed to since it was listed. Whether there was one."""
        held = await self._records.load_key(id_hash)
        if held is None:
            return await self._records.delete(id_hash)  # one that does not open
        await self._saving.end(held)
        return True


class RevocableListing:
    """The same of sessions that live in cookies: what `tracks` hold of them, if they are tracked, and how they end."""

    def __init__(self, endings: Endings, tracks: Records | None, clock: Callable[[], float]) -> None:
        self._endings = endings
        self._tracks = tracks
        self._clock = clock

    async def find(self, subject: str) -> list[SessionInfo]:
        """The live sessions of a subject, the one that was used last first. Raises `ConfigurationError`."""
        if self._tracks is None:
            raise ConfigurationError("sessions in cookies can be listed if they are tracked: Revocation(track=True)")
        found = await self._tracks.find(subject)
        now = self._clock()
        endings = {key: await self._endings.of(held.payload) for key, held in found.items()}
        live = [key for key, ending in endings.items() if ending is None or ending.at > now]
        infos = [_info(key, found[key].payload) for key in live]
        return sorted(infos, key=lambda info: info.used_at, reverse=True)

    async def end_all(self, subject: str, except_id: str | None, before: float | None) -> int:
        """Ends the sessions of a subject but the one with this id, of those begun `before`. How many were tracked."""
        at = self._clock() if before is None else before
        spared = () if except_id is None else (id_hash(bytes.fromhex(except_id)),)
        await self._endings.end_before(of_subject(subject), at, spared)
        if self._tracks is None:
            return 0
        found = await self._tracks.find(subject)
        keys = [key for key, held in found.items() if held.payload.began() < at and key not in spared]
        return sum([await self._tracks.delete(key) for key in keys])

    async def end_everything(self, before: float | None) -> None:
        """Ends all sessions begun `before`."""
        await self._endings.end_before(EVERYTHING, self._clock() if before is None else before)

    async def end(self, id_hash: bytes, began: float | None) -> bool:
        """Ends a session, and what it was renewed to. False where that had been done before."""
        now = self._clock()
        ending = await self._endings.end(id_hash, began=now if began is None else began, at=now)
        if self._tracks is not None:
            await self._tracks.delete(id_hash)
        if ending.successor:
            await self.end(ending.successor, None)
        return ending.at >= now

    async def leave(self, payload: Payload) -> None:
        """Ends the session of a request."""
        await self.end(id_hash(payload.id), payload.began())


def _info(key: bytes, payload: Payload) -> SessionInfo:
    seconds = (payload.created_at, payload.renewed_at, payload.expires_at)
    created_at, used_at, expires_at = (datetime.fromtimestamp(each, UTC) for each in seconds)
    return SessionInfo(key.hex(), created_at, used_at, expires_at, payload.label)
