"""`RevocableMode`: sessions that live in their cookies, and can be ended all the same."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from msgspec.structs import replace

from cookiesession.cookiemode import CookieSessions, forgetting
from cookiesession.endings import Endings
from cookiesession.errors import ConfigurationError, StoreUnavailable
from cookiesession.events import LateWrite, Rejected, StoreFailed
from cookiesession.listing import RevocableListing
from cookiesession.payload import LAST_SECOND, id_hash
from cookiesession.records import Records
from cookiesession.storemode import StoreMode
from cookiesession.storestate import RevocableState

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import timedelta

    from cookiesession.codec import Codec
    from cookiesession.configuration import Configuration
    from cookiesession.endings import Standing
    from cookiesession.payload import Payload
    from cookiesession.revocation import Revocation
    from cookiesession.sealedcookies import Headers
    from cookiesession.session import Session, SessionDict
    from cookiesession.state import State
    from cookiesession.storestate import StoreState

T = TypeVar("T")

_NO_DATA: Final = b"\xc0"  # None in MessagePack

NOT_LOADED: Final = "whether the session has ended is not known yet: await load_session(request) before it is used"


class RevocableMode(StoreMode[T], CookieSessions[T], Generic[T]):
    """The owner of sessions in cookies whose endings are in a store."""

    _state_type = RevocableState

    def __init__(self, configuration: Configuration, codec: Codec[T], revocation: Revocation) -> None:
        super().__init__(configuration, codec)
        self._grace = configuration.renew_grace
        self._fail_open = revocation.fail_open
        self._endings = Endings(revocation, configuration)
        tracks = Records(revocation.store, configuration) if revocation.track else None
        self.listing: Final = RevocableListing(self._endings, tracks, self.clock, self.renewed_from)

    # What a session asks of its owner, besides the rules.

    async def load(self, state: State[T]) -> None:
        """Asks whether the request's session has ended. No call of the store without a cookie of ours."""
        state = _revocable(state)
        former = self._look(state)
        if state.is_loaded or former is None:
            return
        standing = None
        try:
            standing = await self._endings.standing(former)
        except StoreUnavailable as error:
            self.reporter.report(StoreFailed(problem=str(error)))
        if not state.is_loaded:  # by another task of this request
            state.is_loaded = True
            self._judge(state, former, standing)

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

    def _former(self, state: StoreState[T]) -> Payload | None:
        return _revocable(state).former

    def _look(self, state: RevocableState[T]) -> Payload | None:
        """What the cookie says, which is read once."""
        if not state.is_read:
            state.is_read = True
            state.carried = self._cookies.open(state, self.codec.decode, int(self.clock()))
            state.former = None if state.key is None else state.payload
            state.is_loaded = state.key is None
        return state.former

    def _judge(self, state: RevocableState[T], former: Payload, standing: Standing | None) -> None:
        """Decides what the cookie counts for; `standing` is None where the store has failed."""
        # What was sealed for longer, before there was a revocation, outlives what could be known of its ending.
        is_over = self.clock() >= former.created_at + self.lifetime
        if standing is None:
            state.is_adrift = not self._fail_open
        else:
            is_over = is_over or standing.is_over
            state.is_superseded = standing.is_renewed
        if is_over:
            self.reporter.report(Rejected(reason="ended"))
            if state.is_superseded:
                state.brought = ()  # the browser has another session there, or is about to
        if is_over or state.is_adrift:
            state.carried = state.former = state.key = None

    # Saving

    async def commit(self, handle: Session[T] | SessionDict) -> Headers:
        """The headers that save an opened session, once the store knows what has ended with it."""
        state = _revocable(handle._state)
        encoded, changed = self.compare(handle)
        if not changed and not state.overdue:
            return []
        if state.is_adrift:  # what the cookie holds may count again for the next request; but a logout is one
            return forgetting(state, self._cookies.delete(state)) if state.is_cleared else []
        headers = await self._commit(handle, encoded, changed=changed)
        if headers is not None:
            return headers
        state.settle(replace(state.payload, data=encoded))
        if changed:
            self.reporter.report(LateWrite())  # another request has ended or renewed the session
        return []

    async def _commit(self, handle: Session[T] | SessionDict, encoded: bytes, *, changed: bool) -> Headers | None:
        """The headers; None where the session is not this request's any more."""
        state = _revocable(handle._state)
        former, is_over = state.former, self.is_over(state, encoded)
        if former is not None and not state.is_cleared and not await self._forgiving(self._is_held(state, former)):
            return None
        before = copy(state)
        headers = self._save(handle, encoded, changed=changed)  # first: what it raises has ended nothing
        if former is not None and (is_over or former.id != state.payload.id):
            successor = b"" if is_over or before.blank else id_hash(state.payload.id)
            try:
                if not await self._forgiving(self._end(former, successor)):
                    return None
            except StoreUnavailable:
                state.revert(before)
                raise
        state.former = None if is_over else state.payload
        state.is_cleared = False
        # What a list shows, its key, and that it lives. A blank one is listed only if a verb has made it somebody's.
        if not is_over and (before.amended or before.rotated or _half(before.payload) != _half(state.payload)):
            await self._track(former, state.payload)
        return headers

    async def _save_late(self, handle: Session[T] | SessionDict) -> bool:
        state = _revocable(handle._state)
        encoded, changed = self.compare(handle)
        if not state.is_cleared:
            return not changed  # the client keeps what is in its cookie
        if state.former is not None:
            await self.listing.leave(state.former)
        return not state.is_adrift and self.is_over(state, encoded)

    async def _is_held(self, state: RevocableState[T], former: Payload) -> bool:
        """Whether nobody has ended or renewed the session. For a renewal, what other processes did a moment ago counts.

        Of the subject's sessions, the renewed one would not be among those that had begun before.
        """
        return not state.is_superseded and not any(await self._endings.standing(former, afresh=state.renewed))

    async def _end(self, former: Payload, successor: bytes) -> bool:
        """Ends what the client had, at once or where it has a `successor` after the grace. False if it has another."""
        if not successor:
            await self.listing.leave(former)
            return True
        at = self.clock() + self._grace
        _, first = await self._endings.end(id_hash(former.id), began=former.began(), at=at, successor=successor)
        return first == successor

    async def _track(self, former: Payload | None, payload: Payload) -> None:
        """Brings the list up to date. A session that it lacks is a session all the same."""
        # It may be used until the end of this half without another look at the list, and lives so much longer.
        idle_timeout = min(payload.idle_timeout * 3 // 2, LAST_SECOND)
        try:
            await self.listing.track(former, replace(payload, idle_timeout=idle_timeout, data=_NO_DATA, bound=None))
        except StoreUnavailable as error:
            self.reporter.report(StoreFailed(problem=str(error)))

    async def _forgiving(self, answer: Awaitable[bool]) -> bool:
        """What the store says; true where it does not answer, and that is to be left open."""
        try:
            return await answer
        except StoreUnavailable as error:
            if not self._fail_open:
                raise
            self.reporter.report(StoreFailed(problem=str(error)))
            return True


def _half(payload: Payload) -> int:
    """Which half of an idle timeout it was used in last, of all since the epoch. None of them, where there is none."""
    return 2 * payload.renewed_at // payload.idle_timeout if payload.idle_timeout else 0


def _revocable(state: State[Any]) -> RevocableState[Any]:
    return cast("RevocableState[Any]", state)  # of a session that can be ended there is no other
