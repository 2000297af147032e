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
        infos = [_info(key, held.payload) for key, held in found.items() if held and held.payload.superseded_by is None]
        return sorted(infos, key=lambda info: info.used_at, reverse=True)

    async def end_all(self, subject: str, except_id: str | None, before: float | None) -> int:
        """Ends the sessions of a subject but the one with this id, of those begun `before`. How many there were."""
        spared = set() if except_id is None else {id_hash(bytes.fromhex(except_id)), self._renewed_from(except_id)}
        count = 0
        for _ in range(ATTEMPTS):  # one may just be renewed, and then there is another
            found = await self._records.find(subject)
            # What does not open here may be live elsewhere, where the keys or the clock are others.
            keys = {key for key, held in found.items() if before is None or (held and held.payload.began() < before)}
            keys -= spared
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
    """The same of sessions that live in cookies: what `tracks` hold of them, if they are tracked, and how they end.

    `renewed_from` gives the hash that a session has in its cookie which is being renewed.
    """

    def __init__(
        self,
        endings: Endings,
        tracks: Records | None,
        clock: Callable[[], float],
        renewed_from: Callable[[str], bytes | None],
    ) -> None:
        self._endings = endings
        self._tracks = tracks
        self._clock = clock
        self._renewed_from = renewed_from

    async def find(self, subject: str) -> list[SessionInfo]:
        """The live sessions of a subject, the one that was used last first. Raises `ConfigurationError`."""
        if self._tracks is None:
            raise ConfigurationError("sessions in cookies can be listed if they are tracked: Revocation(track=True)")
        found = await self._tracks.find(subject)
        infos = [
            _info(key, held.payload)
            for key, held in found.items()
            if held and not any(await self._endings.standing(held.payload))  # neither over nor renewed
        ]
        return sorted(infos, key=lambda info: info.used_at, reverse=True)

    async def end_all(self, subject: str, except_id: str | None, before: float | None) -> int:
        """Ends the sessions of a subject but the one with this id, of those begun `before`. How many were tracked."""
        spared = [] if except_id is None else [id_hash(bytes.fromhex(except_id)), self._renewed_from(except_id)]
        ended = await self._endings.end_several(of_subject(subject), before, [each for each in spared if each])
        found = {} if self._tracks is None else await self._tracks.find(subject)
        return sum([await self._forget(key) for key, held in found.items() if held and ended.covers(held.payload)])

    async def end_everything(self, before: float | None) -> None:
        """Ends all sessions begun `before`."""
        await self._endings.end_several(EVERYTHING, before)

    async def end(self, id_hash: bytes, began: float | None) -> bool:
        """Ends a session, and what it was renewed to. False where that had been done before."""
        now, was_live, links = self._clock(), False, [id_hash]
        while links[-1]:
            began = now if began is None else began
            is_new, successor = await self._endings.end(links[-1], began=began, at=now)
            was_live, began = was_live or is_new, None
            links.append(successor)
        for link in reversed(links[:-1]):
            await self._forget(link)
        return was_live

    async def leave(self, payload: Payload) -> None:
        """Ends the session of a request."""
        await self.end(id_hash(payload.id), payload.began())

    async def track(self, former: Payload | None, payload: Payload) -> None:
        """Takes note of a session that a response saves in the place of `former`, which the client had."""
        if self._tracks is None:
            return
        is_listed = payload.subject is not None
        if is_listed and await self._tracks.create(payload) is None:
            held = await self._tracks.load(payload.id)
            if held is not None:
                await self._tracks.replace(payload, held.version)
            else:  # what is there is under a key that has retired
                await self._tracks.delete(id_hash(payload.id))
                await self._tracks.create(payload)
        if former is not None and former.subject is not None and (former.id != payload.id or not is_listed):
            await self._forget(id_hash(former.id))

    async def _forget(self, id_hash: bytes) -> bool:
        """Removes the track of a session. Whether there was one."""
        return self._tracks is not None and await self._tracks.delete(id_hash)


def _info(key: bytes, payload: Payload) -> SessionInfo:
    seconds = (payload.created_at, payload.renewed_at, payload.expires_at)
    created_at, used_at, expires_at = (datetime.fromtimestamp(each, UTC) for each in seconds)
    return SessionInfo(key.hex(), created_at, used_at, expires_at, payload.label)
