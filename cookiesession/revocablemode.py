"""`RevocableMode`: sessions that live in their cookies, and can be ended all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast

from msgspec.structs import replace

from cookiesession.cookiemode import CookieSessions, forgetting, unwrap
from cookiesession.endings import Endings
from cookiesession.errors import ConfigurationError, StoreUnavailable, UnencodableData
from cookiesession.events import LateWrite, Rejected, StoreFailed
from cookiesession.listing import RevocableListing
from cookiesession.payload import id_hash
from cookiesession.records import Records
from cookiesession.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from cookiesession.codec import Codec
    from cookiesession.configuration import Configuration
    from cookiesession.endings import Ending
    from cookiesession.payload import Payload
    from cookiesession.revocation import Revocation
    from cookiesession.sealedcookies import Headers
    from cookiesession.session import Session, SessionDict
    from cookiesession.state import Scope

T = TypeVar("T")

_NO_DATA: Final = b"\xc0"  # None in MessagePack

NOT_LOADED: Final = "whether the session has ended is not known yet: await load_session(request) before it is used"


class RevocableState(State[T]):
    """What one request knows of a session that may have been ended."""

    __slots__ = ("carried", "former", "is_adrift", "is_cleared", "is_loaded", "is_read", "is_superseded")

    carried: T | None  # the data in the cookie, if it counts
    former: Payload | None  # what the client has, and could be ended
    is_read: bool  # the cookie
    is_loaded: bool
    is_adrift: bool  # the store did not answer, and the request goes on without
    is_cleared: bool  # by clear()
    is_superseded: bool  # renewed by another request, and left to this one until its grace ends

    def __init__(self, owner: RevocableMode[T], headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> None:
        super().__init__(owner, headers, scope)
        self.carried = self.former = None
        self.is_read = self.is_loaded = self.is_adrift = self.is_cleared = self.is_superseded = False


class _Plan(NamedTuple):
    """What a response does to the session that the client has."""

    is_over: bool
    is_new: bool  # another takes its place
    is_renewed: bool
    is_listed: bool  # what a list shows of it has changed


class RevocableMode(CookieSessions[T], Generic[T]):
    """The owner of sessions in cookies whose endings are in a store."""

    def __init__(self, configuration: Configuration, codec: Codec[T], revocation: Revocation) -> None:
        super().__init__(configuration, codec)
        self._grace = configuration.renew_grace
        self._fail_open = revocation.fail_open
        self._endings = Endings(revocation, configuration)
        self._tracks = Records(revocation.store, configuration) if revocation.track else None
        self.listing: Final = RevocableListing(self._endings, self._tracks, self.clock)

    def state(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> RevocableState[T]:
        """That of a request."""
        return RevocableState(self, headers, scope)

    # What a session asks of its owner, besides the rules.

    async def load(self, state: State[T]) -> None:
        """Asks whether the request's session has ended. No call of the store without a cookie of ours."""
        state = _revocable(state)
        former = self._look(state)
        if state.is_loaded or former is None:
            return
        ending = None
        try:
            ending = await self._endings.of(former)
        except StoreUnavailable as error:
            self.reporter.report(StoreFailed(problem=str(error)))
            state.is_adrift = not self._fail_open
        if not state.is_loaded:  # by another task of this request
            state.is_loaded = True
            self._judge(state, former, ending)

    def open(self, state: State[T]) -> T:
        """The data of the request's session, or of a fresh one. Raises `RuntimeError` where it has to be loaded."""
        state = _revocable(state)
        self._look(state)
        if not state.is_loaded:
            raise RuntimeError(NOT_LOADED)
        if state.carried is None:
            return super().begin(state)
        return self._resume(state, state.carried, int(self.clock()))

    def begin(self, state: State[T]) -> T:
        """The data of a fresh session, in the place of one that was cleared."""
        _revocable(state).is_cleared = True
        return super().begin(state)

    def expiry(self, payload: Payload, lifetime: timedelta) -> int:
        """The second at which what lives from now for `lifetime` ends, or all that is known of endings.

        Raises `ConfigurationError`.
        """
        expires_at = super().expiry(payload, lifetime)
        if lifetime.total_seconds() > self.lifetime:
            raise ConfigurationError("with a revocation, no session lives longer than the manager's lifetime")
        return min(expires_at, payload.created_at + self.lifetime)

    def _look(self, state: RevocableState[T]) -> Payload | None:
        """What the cookie says, which is read once."""
        if not state.is_read:
            state.is_read = True
            state.carried = self._cookies.open(state, self.codec.decode, int(self.clock()))
            state.former = None if state.key is None else state.payload
            state.is_loaded = state.key is None
        return state.former

    def _judge(self, state: RevocableState[T], former: Payload, ending: Ending | None) -> None:
        now = self.clock()
        # What was sealed for longer, before there was a revocation, outlives what could be known of its ending.
        has_ended = now >= former.created_at + self.lifetime or (ending is not None and ending.at <= now)
        if has_ended:
            self.reporter.report(Rejected(reason="ended"))
            if ending is not None and ending.successor:
                state.brought = ()  # the browser has another session there, or is about to
        elif ending is not None:
            state.is_superseded = True
        if has_ended or state.is_adrift:
            state.carried = state.former = state.key = None

    # Saving

    async def commit(self, handle: Session[T] | SessionDict) -> Headers:
        """The headers that save an opened session, once the store knows what has ended with it."""
        state, data = self._unwrap(handle)
        encoded, changed = self.compare(state, data)
        if not changed and not state.overdue:
            return []
        if state.is_adrift:  # what the cookie holds may count again for the next request; but a logout is one
            return forgetting(state, self._cookies.delete(state)) if state.is_cleared else []
        plan = _Plan(self.is_over(state, encoded), state.blank, state.renewed, state.amended or state.due)
        headers = self._save(state, data, encoded, changed=changed)  # first: what it raises leaves all as it was
        try:
            if state.former is not None and not await self._keep(state, state.former, plan):
                if changed:
                    self.reporter.report(LateWrite())  # another request has ended or renewed the session
                return []
            if self._tracks is not None and (plan.is_new or plan.is_listed) and not plan.is_over:
                await self._track(self._tracks, state.payload)
        except StoreUnavailable as error:
            if not self._fail_open:
                raise
            self.reporter.report(StoreFailed(problem=str(error)))
        state.former = None if plan.is_over else state.payload
        return headers

    async def commit_late(self, handle: Session[T] | SessionDict) -> None:
        """Ends a session that was cleared after the headers had left, and reports any other change. Never raises."""
        state, data = self._unwrap(handle)
        try:
            encoded, is_lost = self.compare(state, data)
            if state.is_cleared and state.former is not None:
                is_lost = not self.is_over(state, encoded)
                await self.listing.leave(state.former)
        except UnencodableData:
            is_lost = True
        except StoreUnavailable as error:
            self.reporter.report(StoreFailed(problem=str(error)))
            is_lost = True
        if is_lost:
            self.reporter.report(LateWrite())

    async def _keep(self, state: RevocableState[T], former: Payload, plan: _Plan) -> bool:
        """Ends what the client had, where it gets another session or none. False where others have done so before."""
        if state.is_superseded and not state.is_cleared:
            return False
        if plan.is_over or plan.is_new:
            await self.listing.leave(former)
            return True
        if await self._endings.of(former) is not None:
            return False
        if not plan.is_renewed:
            return True
        successor, at = id_hash(state.payload.id), self.clock() + self._grace
        ending = await self._endings.end(id_hash(former.id), began=former.began(), at=at, successor=successor)
        if self._tracks is not None:
            await self._tracks.delete(id_hash(former.id))
        return ending.successor == successor

    async def _track(self, tracks: Records, payload: Payload) -> None:
        """Keeps a record of a session with a subject, for the list."""
        if payload.subject is None:
            return
        track = replace(payload, data=_NO_DATA, bound=None)
        if await tracks.create(track) is None:
            held = await tracks.load(track.id)
            if held is not None:
                await tracks.replace(track, held.version)

    @staticmethod
    def _unwrap(handle: Session[T] | SessionDict) -> tuple[RevocableState[T], T]:
        state, data = unwrap(handle)
        return _revocable(state), data


def _revocable(state: State[T]) -> RevocableState[T]:
    return cast("RevocableState[T]", state)  # of a session that can be ended there is no other
