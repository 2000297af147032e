"""`ServerMode`: sessions that live in a store. Their cookies hold a sealed id, their records the sealed data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from weakref import WeakValueDictionary

from msgspec.structs import replace

from cookiesession.codec import DECODING_ERRORS, MAX_ENCODED, EitherCodec
from cookiesession.cookiemode import CookieMode, unwrap
from cookiesession.errors import ConfigurationError, InvalidToken, StoreUnavailable, UnencodableData
from cookiesession.events import LateWrite, Rejected, StoreFailed
from cookiesession.payload import PERSISTENT, Payload, id_hash
from cookiesession.records import Records
from cookiesession.saving import ATTEMPTS, Saving, succeed
from cookiesession.session import Session, SessionDict, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cookiesession.codec import Codec
    from cookiesession.cookiemode import Configuration
    from cookiesession.records import Held
    from cookiesession.stores import Store

T = TypeVar("T")

NOT_LOADED: Final = "the session is in a store, and not loaded yet: await load_session(request) before it is used"


class ServedState(State[T]):
    """What one request knows of a session that is in a store."""

    __slots__ = ("__weakref__", "carried", "held", "is_adrift", "is_cleared", "is_loaded", "ticket")

    ticket: State[Any] | None  # the cookie's own side, once it has been read
    carried: T | None  # the data, where the cookie holds it
    held: Held | None  # as the store had it last
    is_loaded: bool
    is_adrift: bool  # the store did not answer, and the request goes on without
    is_cleared: bool  # by clear()

    def __init__(self, owner: ServerMode[T], headers: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__(owner, headers)
        self.ticket = self.carried = self.held = None
        self.is_loaded = self.is_adrift = self.is_cleared = False


@dataclass(frozen=True)
class SessionInfo:
    """A live session in a list. `id_hash` names it and opens nothing; `label` is what the application wrote there."""

    id_hash: str
    created_at: datetime
    used_at: datetime
    """When it was last written because it was used: with an idle timeout no older than half of that."""
    expires_at: datetime
    label: str | None


class ServerMode(Generic[T]):
    """The owner of sessions whose data is in a store.

    `sessions` knows their rules. Their cookies are tickets: sealed ids, or with overflow also whole sessions that fit.
    """

    def __init__(self, configuration: Configuration, sessions: CookieMode[T], store: Store, codec: Codec[T]) -> None:
        self.cookie: Final = configuration.cookie
        self.model: Final = configuration.model
        self._overflow = configuration.overflow
        self._anonymous = configuration.anonymous
        self._sessions = sessions
        purpose = "cookie" if self._overflow else "id"
        self._tickets = CookieMode(configuration, EitherCodec(codec if self._overflow else None), purpose)
        self._records = Records(store, configuration)
        self._saving = Saving(sessions, self._records, configuration.renew_grace)
        # By their new ids, the sessions that are being renewed: until they are saved, the store has them under the old.
        self._renewing: WeakValueDictionary[str, ServedState[T]] = WeakValueDictionary()
        # What a session asks of its owner, and a store has no part in.
        self.renewed = sessions.renewed
        self.require = sessions.require
        self.expiry = sessions.expiry

    # Opening

    async def load(self, state: State[T]) -> None:
        """Fetches the record of the request's session. One call of the store, and none without a cookie of ours."""
        state = _served(state)
        ticket = self._look(state)
        if state.is_loaded:
            return
        held = None
        try:
            held = await self._records.load(ticket.payload.id)
        except StoreUnavailable as error:
            self._forgive(error)
            state.is_adrift = True
        if not state.is_loaded:  # by another task of this request, which may have changed it since
            state.held = held
            state.is_loaded = True

    def open(self, state: State[T]) -> T:
        """The data of the loaded session, or of a fresh one. Raises `RuntimeError` where it has to be loaded first."""
        state = _served(state)
        ticket = self._look(state)
        if not state.is_loaded:
            raise RuntimeError(NOT_LOADED)
        state.brought, state.key = ticket.brought, ticket.key
        data = state.carried if state.held is None else self._decode(state.held.payload)
        if data is None:
            return self._sessions.begin(state)
        payload = ticket.payload if state.held is None else state.held.payload
        state.settle(payload, ticket.brought, ticket.key)
        state.due = payload.is_due(int(self._sessions.clock()))
        state.overdue = state.due or ticket.overdue
        state.is_new = False
        return data

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session, in the place of one that was cleared."""
        _served(state).is_cleared = True
        return self._sessions.begin(state)

    def identify(self, state: State[T]) -> None:
        """Gives the payload of `state` an id, if it has none yet."""
        self._sessions.identify(state)
        if state.renewed:
            self._renewing[state.payload.id.hex()] = _served(state)

    def _look(self, state: ServedState[T]) -> State[Any]:
        """What the cookie says, which is read once."""
        if state.ticket is None:
            state.ticket = State(self._tickets, state.headers)
            state.carried = self._tickets.open(state.ticket)
            state.is_loaded = state.ticket.is_new or state.carried is not None
        return state.ticket

    def _decode(self, payload: Payload) -> T | None:
        try:
            return self._sessions.codec.decode(payload.data)
        except InvalidToken as invalid:
            self._sessions.reporter.report(Rejected(reason=invalid.reason, path=invalid.path))
        except DECODING_ERRORS:
            self._sessions.reporter.report(Rejected(reason="undecodable"))
        return None

    # Saving

    async def commit(self, handle: Session[T] | SessionDict) -> list[tuple[bytes, bytes]]:
        """The headers of a response whose session is saved in the store."""
        state, data = self._unwrap(handle)
        encoded, changed = self._sessions.compare(state, data)
        if not state.is_adrift:
            if not changed and not state.overdue:
                return []
            try:
                return await self._save(state, encoded, data, used=changed or state.due)
            except StoreUnavailable as error:
                self._forgive(error)
        # What the cookie names may be there again for the next request. But a logout is one, also without a store.
        return self._delete(state, encoded) if state.is_cleared else []

    async def commit_late(self, handle: Session[T] | SessionDict) -> None:
        """Saves a change that came after the headers had left, if the client has the session's id already.

        Never raises: there is nobody left to tell but the operator.
        """
        state, data = self._unwrap(handle)
        try:
            is_lost = not await self._save_late(state, data)
        except UnencodableData:
            is_lost = True
        except StoreUnavailable as error:
            self._sessions.reporter.report(StoreFailed(problem=str(error)))
            is_lost = True
        if is_lost:
            self._sessions.reporter.report(LateWrite())

    async def _save_late(self, state: ServedState[T], data: T) -> bool:
        """Whether nothing was left to be saved in the end."""
        encoded, changed = self._sessions.compare(state, data)
        held = state.held
        if not changed and not (state.is_cleared and state.key is not None):
            return True
        cleared = self._sessions.is_over(state, encoded)
        if held is not None and state.payload.id == held.payload.id and not cleared:
            self._sessions.codec.verify(data, encoded)
            saved = await self._store(state, self._sessions.used(state.payload, encoded))
            return saved is not None and saved.superseded_by is None
        if state.is_cleared or not state.renewed:
            await self._end(state)
        # Anything else would have an id that the client cannot learn any more, or is in a cookie that it keeps.
        return cleared and (held is not None or state.key is None)

    async def _save(self, state: ServedState[T], encoded: bytes, data: T, *, used: bool) -> list[tuple[bytes, bytes]]:
        ticket = self._look(state)
        if self._sessions.is_over(state, encoded) and await self._ended(state):
            return self._delete(state, encoded)
        payload = state.payload
        if used:
            self._sessions.codec.verify(data, encoded)
            payload = self._sessions.used(payload, encoded)
        if self._fits_cookies(payload) and await self._moved_out(state):
            headers = self._tickets.write(ticket, payload, data, resealed_from=None if used else ticket.key)
        else:
            saved = await self._store(state, payload)  # also unused: it tells whether the id is still the browser's
            # Whoever has ended the session has told the browser, which may have another by now.
            headers = [] if saved is None else self._ticket_for(ticket, saved)
            if used and (saved is None or saved.superseded_by is not None):
                self._sessions.reporter.report(LateWrite())  # another request has ended or renewed the session
            payload = replace(saved or payload, data=encoded)
        state.settle(payload, ticket.brought, ticket.key)
        return headers

    async def _store(self, state: ServedState[T], payload: Payload) -> Payload | None:
        """What the store has in the end; None where somebody has ended the session meanwhile."""
        former = state.held
        if former is not None and former.payload.id == payload.id:
            state.held = await self._saving.replace(former, state.payload.data, payload)
        elif former is not None and state.renewed and not state.blank:
            state.held = await self._saving.hand_over(former, state.payload.data, payload)
        elif self._look(state).payload.id == payload.id:
            state.held = await self._saving.move_in(self._look(state).payload, payload)
        else:
            await self._end(state)
            state.held = await self._saving.create(payload)
        return None if state.held is None else state.held.payload

    def _ticket_for(self, ticket: State[Any], payload: Payload) -> list[tuple[bytes, bytes]]:
        """The headers that give the client the id of `payload`, if it does not have just that already."""
        if payload.superseded_by is not None:
            return []  # the client has the renewed session's, or is about to
        flags, created_at = payload.flags & PERSISTENT, payload.created_at
        wanted = Payload(flags, created_at, created_at, payload.expires_at, 0, payload.id, None, b"")
        if wanted != ticket.payload:
            return self._tickets.write(ticket, wanted, None)
        return self._tickets.write(ticket, wanted, None, resealed_from=ticket.key) if ticket.overdue else []

    def _fits_cookies(self, payload: Payload) -> bool:
        """Whether the whole session goes into cookies. That of an old id does not: it ends with the grace."""
        if not self._overflow or payload.superseded_by is not None:
            return False
        return len(payload.data) <= MAX_ENCODED and self._tickets.length(payload) <= self._tickets.capacity

    async def _moved_out(self, state: ServedState[T]) -> bool:
        """Leaves the record, for a cookie. False where it has changed meanwhile, or is gone."""
        if state.held is not None:
            if state.blank:
                await self._end(state)
            elif not await self._saving.expire(state.held):
                return False
        state.held = None
        return True

    async def _ended(self, state: ServedState[T]) -> bool:
        """Removes the record. False where it was only emptied, and has changed meanwhile."""
        if state.held is not None and not state.blank:
            is_old = state.held.payload.superseded_by is not None  # and has to go on naming what it was renewed to
            if not is_old and not await self._saving.remove(state.held):
                return False
            state.held = None  # and not what it may have been renewed to: that was not emptied
        await self._end(state)
        return True

    async def _end(self, state: ServedState[T]) -> None:
        if state.held is not None:
            await self._saving.end(state.held)
            state.held = None

    def _delete(self, state: ServedState[T], encoded: bytes) -> list[tuple[bytes, bytes]]:
        headers = [] if state.payload.superseded_by is not None else self._tickets.delete(self._look(state), b"")
        state.settle(replace(state.payload, data=encoded), (), None)
        return headers

    def _forgive(self, error: StoreUnavailable) -> None:
        if not self._anonymous:
            raise error
        self._sessions.reporter.report(StoreFailed(problem=str(error)))

    # Between requests

    async def transact(self, session: Session[T], change: Callable[[T], T | None]) -> None:
        """What `Session.transact()` promises."""
        if self._overflow:
            raise ConfigurationError("transact() needs sessions that are always in the store: without overflow")
        session.mark_accessed()
        state, data = self._unwrap(session)
        if state.held is None or state.blank:
            changed = change(data)
            if changed is not None:
                session.data = changed
            return
        self._sessions.compare(state, data)  # what cannot be encoded is refused before anything is saved
        held = await self._saving.transact(state.held.payload.id, change)
        if state.held is None or state.blank:  # another task of this request has cleared it
            return
        pending, _ = self._sessions.compare(state, self._unwrap(session)[1])
        base = replace(state.held.payload, data=state.payload.data)
        merged = self._saving.merge(base, replace(state.payload, data=pending), held.payload)
        session.data = self._sessions.codec.decode(merged.data)
        merged = succeed(state.payload, merged) if state.renewed else merged
        state.held, state.payload = held, replace(merged, data=held.payload.data)

    async def find(self, subject: str) -> list[SessionInfo]:
        """The live sessions of a subject, the one that was used last first."""
        found = await self._records.find(subject)
        infos = [_info(key, held.payload) for key, held in found.items() if held.payload.superseded_by is None]
        return sorted(infos, key=lambda info: info.used_at, reverse=True)

    async def end_all(self, subject: str, except_id: str | None) -> int:
        """Ends the sessions of a subject but the one with this id. How many there were."""
        spared = set()
        if except_id is not None:
            renewing = self._renewing.get(except_id)
            held = None if renewing is None else renewing.held
            spared = {id_hash(bytes.fromhex(except_id)), held and id_hash(held.payload.id)}
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
        if held is not None and held.payload.superseded_by:
            await self._records.delete(held.payload.superseded_by)
        return await self._records.delete(id_hash)

    @staticmethod
    def _unwrap(handle: Session[T] | SessionDict) -> tuple[ServedState[T], T]:
        state, data = unwrap(handle)
        return _served(state), data


def _served(state: State[T]) -> ServedState[T]:
    return cast("ServedState[T]", state)  # of a server-side session there is no other


def _info(key: bytes, payload: Payload) -> SessionInfo:
    seconds = (payload.created_at, payload.renewed_at, payload.expires_at)
    created_at, used_at, expires_at = (datetime.fromtimestamp(each, UTC) for each in seconds)
    return SessionInfo(key.hex(), created_at, used_at, expires_at, payload.label)
