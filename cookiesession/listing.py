"""`Listing`: the live sessions of a subject in a store. Shows and ends them between requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cookiesession.errors import StoreUnavailable
from cookiesession.payload import Payload, id_hash
from cookiesession.saving import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

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

    async def end_all(self, subject: str, except_id: str | None) -> int:
        """Ends the sessions of a subject but the one with this id. How many there were."""
        spared = set() if except_id is None else {id_hash(bytes.fromhex(except_id)), self._renewed_from(except_id)}
        count = 0
        for _ in range(ATTEMPTS):  # one may just be renewed, and then there is another
            found = (await self._records.find(subject)).keys() - spared
            if not found:
                return count
            count += sum([await self._records.delete(key) for key in found])
        raise StoreUnavailable(f"there were still sessions of the subject after {ATTEMPTS} attempts to end them")

    async def end(self, id_hash: bytes) -> bool:
        """Ends a session, and what it was renewed to since it was listed. Whether there was one."""
        held = await self._records.load_key(id_hash)
        if held is None:
            return await self._records.delete(id_hash)  # one that does not open
        await self._saving.end(held)
        return True


def _info(key: bytes, payload: Payload) -> SessionInfo:
    seconds = (payload.created_at, payload.renewed_at, payload.expires_at)
    created_at, used_at, expires_at = (datetime.fromtimestamp(each, UTC) for each in seconds)
    return SessionInfo(key.hex(), created_at, used_at, expires_at, payload.label)
