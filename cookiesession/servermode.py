"""`ServerMode`: sessions that live in a store. Their cookies hold a sealed id, their records the sealed data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from msgspec.structs import replace

from cookiesession.codec import DECODING_ERRORS
from cookiesession.cookiemode import forgetting
from cookiesession.errors import ConfigurationError, InvalidToken, SessionEnded, StoreUnavailable
from cookiesession.events import LateWrite, Rejected, StoreFailed
from cookiesession.listing import Listing
from cookiesession.payload import PERSISTENT, Payload
from cookiesession.records import Records
from cookiesession.saving import Saving, succeed
from cookiesession.sealedcookies import SealedCookies
from cookiesession.session import Session
from cookiesession.state import Carried, State
from cookiesession.storemode import StoreMode
from cookiesession.storestate import ServedState

if TYPE_CHECKING:
    from collections.abc import Callable

    from cookiesession.codec import Codec
    from cookiesession.configuration import Configuration
    from cookiesession.records import Held
    from cookiesession.sealedcookies import Headers
    from cookiesession.session import SessionDict
    from cookiesession.stores import Store
    from cookiesession.storestate import StoreState

T = TypeVar("T")

NOT_LOADED: Final = "the session is in a store, and not loaded yet: await load_session(request) before it is used"

_RENEWALS: Final = 8  # of one session within one grace: each costs whoever comes with the oldest id a call of the store


class ServerMode(StoreMode[T], Generic[T]):
    """The owner of sessions whose data is in a store.

    Their cookies are tickets: sealed ids, or with overflow also whole sessions that fit.
    """

    _state_type = ServedState

    def __init__(self, configuration: Configuration, codec: Codec[T], store: Store) -> None:
        super().__init__(configuration, codec)
        self._overflow = configuration.overflow
        self._anonymous = configuration.anonymous
        self._tickets = SealedCookies(configuration, "cookie" if self._overflow else "id")
        self._records = Records(store, configuration)
        self._saving = Saving(self, self._records, configuration.renew_grace)
        self.listing: Final = Listing(self._records, self._saving, self.renewed_from)

    # Opening

    async def load(self, state: State[T]) -> None:
        """Fetches the record of the request's session. One call of the store, and none without a cookie of ours."""
        state = _served(state)
        ticket = self._look(state)
        if state.is_loaded:
            return
        held = None
        try:
            held = await self._load(ticket.payload.id)
        except StoreUnavailable as error:
            self._forgive(error)
            state.is_adrift = not state.is_loaded  # by another task of this request
        if not state.is_loaded:  # or it may have been changed since
            state.held = held
            state.is_loaded = True

    def open(self, state: State[T]) -> T:
        """The data of the loaded session, or of a fresh one. Raises `RuntimeError` where it has to be loaded first."""
        state = _served(state)
        ticket = self._look(state)
        if not state.is_loaded:
            raise RuntimeError(NOT_LOADED)
        data = state.carried if state.held is None else self._decode(state.held.payload)
        if data is None:
            return self._begin(state)
        payload = ticket.payload if state.held is None else state.held.payload
        state.settle(payload)
        state.due = payload.is_due(int(self.clock()))
        # Apart, since an instance that had the old keys for longer may have written one of them last.
        state.overdue = state.due or ticket.rotated or (state.held is not None and state.held.rotated)
        state.is_new = False
        return data

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session, in the place of one that was cleared."""
        data = self._begin(_served(state))
        _served(state).is_cleared = True
        return data

    async def _load(self, id: bytes) -> Held | None:
        """The record of an id; None also where the session has ended that it was renewed to."""
        held = newest = await self._records.load(id)
        for _ in range(_RENEWALS):
            if newest is None or not newest.payload.superseded_by:
                return None if newest is None else held
            newest = await self._records.load_key(newest.payload.superseded_by)
        return None

    def _begin(self, state: ServedState[T]) -> T:
        ticket = self._look(state)
        state.brought, state.expired = ticket.brought, ticket.expired
        return super().begin(state)

    def _look(self, state: ServedState[T]) -> Carried:
        """What the cookie says, which is read once."""
        if state.ticket is None:
            state.ticket = Carried(state.headers, state.scope)
            state.carried = self._tickets.open(state.ticket, self._decode_carried, int(self.clock()))
            state.is_loaded = state.ticket.key is None or state.carried is not None
        return state.ticket

    def _decode_carried(self, encoded: bytes) -> T | None:
        if not encoded:
            return None
        if not self._overflow:
            raise InvalidToken("undecodable")
        return self.codec.decode(encoded)

    def _decode(self, payload: Payload) -> T | None:
        try:
            return self.codec.decode(payload.data)
        except InvalidToken as invalid:
            self.reporter.report(Rejected(reason=invalid.reason, path=invalid.path))
        except DECODING_ERRORS:
            self.reporter.report(Rejected(reason="undecodable"))
        return None

    # Saving

    async def commit(self, handle: Session[T] | SessionDict) -> Headers:
        """The headers of a response whose session is saved in the store."""
        state, data = self._unwrap(handle)
        encoded, changed = self.compare(handle)
        if not changed and not state.overdue:
            return []
        return forgetting(state, await self._commit(state, encoded, data, used=changed or state.due))

    async def _commit(self, state: ServedState[T], encoded: bytes, data: T, *, used: bool) -> Headers:
        if not state.is_adrift:
            try:
                return await self._save(state, encoded, data, used=used)
            except StoreUnavailable as error:
                self._forgive(error)
        # What the cookie names may be there again for the next request. But a logout is one, also without a store.
        return self._delete(state, encoded) if state.is_cleared else []

    async def _save_late(self, handle: Session[T] | SessionDict) -> bool:
        state, data = self._unwrap(handle)
        encoded, changed = self.compare(handle)
        is_over = self.is_over(state, encoded)
        if state.is_cleared:  # what came after that has an id which the client cannot learn any more
            return await self._ended_late(state) and is_over
        if not changed:
            return True
        held = state.held
        if held is None or state.payload.id != held.payload.id:
            return False  # the client does not learn of a new id, and keeps what is in its cookie
        if is_over and await self._ended(state):
            state.settle(replace(state.payload, data=encoded))
            return True
        self.codec.verify(data, encoded, state.payload.data)
        saved = await self._store(state, self.used(state.payload, encoded, int(self.clock())))
        return saved is not None and saved.superseded_by is None

    async def _ended_late(self, state: ServedState[T]) -> bool:
        """Ends what the client has. False where that is in its cookie."""
        ticket = self._look(state)
        if state.held is None and ticket.key is not None:  # another request may have renewed it
            state.held = await self._records.load(ticket.payload.id)
        await self._end(state)
        return ticket.key is None or not ticket.payload.data

    async def _save(self, state: ServedState[T], encoded: bytes, data: T, *, used: bool) -> Headers:
        ticket = self._look(state)
        if self.is_over(state, encoded) and await self._ended(state):
            return self._delete(state, encoded)
        self._tickets.recognize(ticket)
        payload, now = state.payload, int(self.clock())
        if used:
            self.codec.verify(data, encoded, state.payload.data)
            payload = self.used(payload, encoded, now)
        if self._fits_cookies(ticket, payload, now) and await self._moved_out(state):
            headers = self._tickets.write(ticket, payload, now, resealed=not used)
        else:
            saved = await self._store(state, payload)  # also unused: it tells whether the id is still the browser's
            # Whoever has ended the session has told the browser, which may have another by now.
            headers = [] if saved is None else self._ticket_for(ticket, saved, now)
            if used and (saved is None or saved.superseded_by is not None):
                self.reporter.report(LateWrite())  # another request has ended or renewed the session
            payload = replace(saved or payload, data=encoded)
        state.settle(payload)
        return headers

    async def _store(self, state: ServedState[T], payload: Payload) -> Payload | None:
        """What the store has in the end; None where somebody has ended the session meanwhile."""
        former, ticket = state.held, self._look(state)
        if former is not None and former.payload.id == payload.id:
            state.held = await self._saving.replace(former, state.payload.data, payload)
        elif former is not None and state.renewed and not state.blank:
            state.held = await self._saving.hand_over(former, state.payload.data, payload)
        elif ticket.key is not None and ticket.payload.id == payload.id:
            state.held = await self._saving.move_in(ticket.payload, payload)
        else:
            await self._end(state)
            state.held = await self._saving.create(payload)
        return None if state.held is None else state.held.payload

    def _ticket_for(self, ticket: Carried, payload: Payload, now: int) -> Headers:
        """The headers that give the client the id of `payload`, if it does not have just that already."""
        if payload.superseded_by is not None:
            return []  # the client has the renewed session's, or is about to
        flags, created_at = payload.flags & PERSISTENT, payload.created_at
        wanted = Payload(flags, created_at, created_at, payload.expires_at, 0, payload.id, None, b"")
        present = None if ticket.key is None else ticket.payload
        if present is None or wanted != replace(present, flags=present.flags & PERSISTENT, bound=None):
            return self._tickets.write(ticket, wanted, now)
        return self._tickets.write(ticket, wanted, now, resealed=True) if ticket.rotated else []

    def _fits_cookies(self, ticket: Carried, payload: Payload, now: int) -> bool:
        """Whether the whole session goes into cookies. That of an old id does not: it ends with the grace."""
        return self._overflow and payload.superseded_by is None and self._tickets.fits(ticket, payload, now)

    async def _moved_out(self, state: ServedState[T]) -> bool:
        """Leaves the record, for a cookie. False where it has changed meanwhile, or is gone."""
        if state.held is not None:
            if state.blank:
                await self._end(state)
            elif not await self._saving.move_out(state.held):
                return False
        state.held = None
        return True

    async def _ended(self, state: ServedState[T]) -> bool:
        """Removes the record. False where it was only emptied, and others have changed or renewed the session."""
        held = state.held
        if held is not None and not state.blank:
            # By an earlier save of this request, their changes may be in the record already.
            is_theirs = held.payload.superseded_by is not None or held.payload.data != state.payload.data
            if is_theirs or not await self._saving.remove(held):
                return False
            state.held = None
        await self._end(state)
        return True

    async def _end(self, state: ServedState[T]) -> None:
        if state.held is not None:
            await self._saving.end(state.held)
            state.held = None

    def _delete(self, state: ServedState[T], encoded: bytes) -> Headers:
        headers = self._tickets.delete(self._look(state))
        state.settle(replace(state.payload, data=encoded))
        return headers

    def _forgive(self, error: StoreUnavailable) -> None:
        if not self._anonymous:
            raise error
        self.reporter.report(StoreFailed(problem=str(error)))

    # Between requests

    async def transact(self, session: Session[T], change: Callable[[T], T | None]) -> None:
        """What `Session.transact()` promises."""
        if self._overflow:
            raise ConfigurationError("transact() needs sessions that are always in the store: without overflow")
        session.mark_accessed()
        state, data = self._unwrap(session)
        if state.blank:
            changed = change(data)
            if changed is not None:
                session.data = changed
            return
        if state.held is None:
            raise SessionEnded("the session has ended, or been renewed by another request")
        self.compare(session)  # what cannot be encoded is refused before anything is saved
        held = await self._saving.transact(state.held.payload.id, change)
        if state.held is None or state.blank:  # another task of this request has cleared it
            return
        pending, _ = self.compare(session)
        base = replace(state.held.payload, data=state.payload.data)
        merged = self._saving.merge(base, replace(state.payload, data=pending), held.payload)
        session.data = self.codec.decode(merged.data)
        merged = succeed(state.payload, merged) if state.renewed else merged
        state.held, state.payload = held, replace(merged, data=held.payload.data)

    def _former(self, state: StoreState[T]) -> Payload | None:
        held = _served(state).held
        return None if held is None else held.payload

    @staticmethod
    def _unwrap(handle: Session[T] | SessionDict) -> tuple[ServedState[T], T]:
        session: Session[Any] = Session.of(handle)
        return _served(session._state), session.data


def _served(state: State[T]) -> ServedState[T]:
    return cast("ServedState[T]", state)  # of a server-side session there is no other
