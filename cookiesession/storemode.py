"""`StoreMode`: what both modes with a store have in common. Changes that come late, and renewals that are under way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar, cast
from weakref import WeakValueDictionary

from cookiesession.errors import StoreUnavailable, UnencodableData
from cookiesession.events import LateWrite, StoreFailed
from cookiesession.payload import id_hash
from cookiesession.rules import Rules

if TYPE_CHECKING:
    from cookiesession.codec import Codec
    from cookiesession.configuration import Configuration
    from cookiesession.payload import Payload
    from cookiesession.session import Session, SessionDict
    from cookiesession.state import State
    from cookiesession.storestate import StoreState

T = TypeVar("T")


class StoreMode(Rules[T], ABC, Generic[T]):
    """The owner of sessions of which a store has something to say."""

    def __init__(self, configuration: Configuration, codec: Codec[T]) -> None:
        super().__init__(configuration, codec)
        # By their new ids, the sessions that are being renewed: until they are saved, the store knows the old alone.
        self._renewing: WeakValueDictionary[str, StoreState[T]] = WeakValueDictionary()

    @abstractmethod
    def _former(self, state: StoreState[T]) -> Payload | None:
        """What the client has until the response, and the store knows."""
        ...

    @abstractmethod
    async def _save_late(self, handle: Session[T] | SessionDict) -> bool:
        """Saves what came after the headers had left. Whether nothing was left to be saved in the end."""
        ...

    async def commit_late(self, handle: Session[T] | SessionDict) -> None:
        """Saves a change that came after the headers had left, as far as the client has what that needs.

        Never raises: there is nobody left to tell but the operator.
        """
        try:
            is_lost = not await self._save_late(handle)
        except UnencodableData:
            is_lost = True
        except StoreUnavailable as error:
            self.reporter.report(StoreFailed(problem=str(error)))
            is_lost = True
        if is_lost or handle._state.site_data:
            self.reporter.report(LateWrite())

    def identify(self, state: State[T]) -> None:
        """Gives the payload of `state` an id, if it has none yet."""
        super().identify(state)
        if state.renewed:
            self._renewing[state.payload.id.hex()] = cast("StoreState[T]", state)

    def renewed_from(self, id: str) -> bytes | None:
        """The `id_hash()` that a session has until the response, of which this is the new `id`."""
        state = self._renewing.get(id)
        former = None if state is None else self._former(state)
        return None if former is None else id_hash(former.id)
