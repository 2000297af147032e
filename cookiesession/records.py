"""`Records`: sessions at rest. They are sealed, and a store sees the hash of an id and never the id."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cookiesession import envelope
from cookiesession.errors import InvalidToken
from cookiesession.events import Loaded, Rejected, Stored
from cookiesession.keys import ring_after
from cookiesession.payload import Payload, id_hash, pack, unpack
from cookiesession.stores import Record

if TYPE_CHECKING:
    from cookiesession.configuration import Configuration
    from cookiesession.stores import Store


class Held(NamedTuple):
    """A session as the store had it when it was last asked."""

    payload: Payload
    version: int
    rotated: bool = False
    """Whether it is sealed under another key than the one that seals now."""


def subject_key(subject: str) -> bytes:
    """What a store finds a subject's sessions by."""
    return hashlib.sha256(b"cookiesession/v1/subject\0" + subject.encode("utf-8", "surrogatepass")).digest()


class Records:
    """What a `Store` holds, opened and sealed. Each method is one call of the store, and raises `StoreUnavailable`."""

    def __init__(self, store: Store, configuration: Configuration) -> None:
        self._store = store
        self._keys = configuration.keys
        self._reporter = configuration.reporter
        self._clock = configuration.clock
        self._random = configuration.random
        self._compress = configuration.compress

    async def load(self, id: bytes) -> Held | None:
        """The session of an id; None where there is none, or none that opens and is valid now."""
        return await self.load_key(id_hash(id))

    async def load_key(self, key: bytes) -> Held | None:
        """The same by the hash of the id."""
        record = await self._store.load(key)
        if record is None:
            self._reporter.report(Rejected(reason="ended"))
            return None
        return self._open(key, record)

    async def create(self, payload: Payload, *, conflicts: int = 0) -> Held | None:
        """A new record; None where the id has one."""
        version = 1 + int.from_bytes(self._random(7))  # not one that another record of this id had
        key, record = self._seal(payload, version)
        return self._held(payload, record, conflicts) if await self._store.create(key, record) else None

    async def replace(self, payload: Payload, version: int, *, conflicts: int = 0) -> Held | None:
        """A record in the place of the one of `version`; None where that is no longer there."""
        key, record = self._seal(payload, version + 1)
        replaced = await self._store.replace(key, record, version)
        return self._held(payload, record, conflicts) if replaced else None

    async def supplant(self, payload: Payload) -> Held | None:
        """A record in the place of one that does not open; None where there is none such. Two calls of the store."""
        key = id_hash(payload.id)
        present = await self._store.load(key)
        if present is None or self._open(key, present) is not None:
            return None
        return await self.replace(payload, present.version)

    async def delete(self, key: bytes) -> bool:
        """Removes the record under the hash of an id. Whether there was one."""
        return await self._store.delete(key)

    async def find(self, subject: str) -> dict[bytes, Held | None]:
        """All records of a subject by their key; None where one does not open, or is not valid now."""
        found = await self._store.find(subject_key(subject))
        opened = {key: self._open(key, record) for key, record in found.items()}
        return {key: held for key, held in opened.items() if held is None or held.payload.subject == subject}

    def _seal(self, payload: Payload, version: int) -> tuple[bytes, Record]:
        now = int(self._clock())
        key = id_hash(payload.id)
        plaintext = pack(payload, compress=self._compress)
        sealed = envelope.seal_bytes(plaintext, self._keys.current(now).primary, envelope.bind("record", key), now)
        subject = None if payload.subject is None else subject_key(payload.subject)
        return key, Record(sealed, version, payload.ends_at(), subject)

    def _open(self, key: bytes, record: Record) -> Held | None:
        now = int(self._clock())
        ring, binding = self._keys.current(now), envelope.bind("record", key)
        try:
            try:
                plaintext, sealed_by = envelope.open_bytes(record.value, ring, binding, now=now)
            except InvalidToken as invalid:
                ring = ring_after(invalid, self._keys, now)
                plaintext, sealed_by = envelope.open_bytes(record.value, ring, binding, now=now)
            payload = unpack(plaintext, now)
        except InvalidToken as invalid:
            self._reporter.report(Rejected(reason=invalid.reason))
            return None
        primary = sealed_by is ring.primary
        if self._reporter.debugging():
            self._reporter.report(Loaded(key_id=sealed_by.id, primary=primary, size=len(record.value)))
        return Held(payload, record.version, rotated=not primary)

    def _held(self, payload: Payload, record: Record, conflicts: int) -> Held:
        if self._reporter.debugging():
            key_id = self._keys.current(int(self._clock())).primary.id
            self._reporter.report(Stored(key_id=key_id, size=len(record.value), conflicts=conflicts))
        return Held(payload, record.version)
