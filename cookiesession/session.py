"""The session as a handler sees it: `Session[T]`, and without a model the dict that stands for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from msgspec.structs import replace

from cookiesession.payload import ID_TEXT, PERSISTENT, id_hash

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from cookiesession.state import State

T = TypeVar("T")


class SessionDict(dict[str, Any]):
    """The data of a session without a model: a dict that JSON encoders, copies and third-party code take as one.

    Copies and pickles are plain dicts. The `repr` shows no value.
    """

    __slots__ = ("_state",)

    _state: State[dict[str, Any]]

    def mark_accessed(self) -> None:
        """Opens the session: Starlette calls this for `request.session`."""

    # What follows is for code written against Starlette's own session, or Flask's.

    def mark_modified(self) -> None:
        """Nothing: what changed is found by comparing."""

    @property
    def accessed(self) -> bool:
        """Whether the session has been opened."""
        return self._state.opened

    @property
    def modified(self) -> bool:
        """Whether the data is other than what is kept. Setting it does nothing."""
        return self._state.opened and self._state.owner.changed(self) is not None

    @modified.setter
    def modified(self, value: bool) -> None: ...

    def __repr__(self) -> str:
        return f"<SessionDict of {len(self)}>" if type(self) is SessionDict else "<SessionDict, unopened>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


class UnopenedDict(SessionDict):
    """A `SessionDict` until its first touch, which fills it and makes it one."""

    __slots__ = ()

    def mark_accessed(self) -> None:
        """Opens the session."""
        data = self._state.owner.open(self._state)
        self.__class__ = SessionDict  # type: ignore[assignment]  # to a class of the same layout
        dict.clear(self)
        dict.update(self, data)


PLACEHOLDER: Final[Any] = {object(): None}
"""What an unopened dict is made with.

C code may ask a dict's size before it calls any method: json takes 0 for "{}". With an entry it goes on to ask for the
items, and what reads past every method (orjson, msgspec) fails rather than see no data.
"""


def _opening(name: str) -> Callable[..., Any]:
    method = getattr(SessionDict, name)

    def touch(self: UnopenedDict, *args: Any, **kwargs: Any) -> Any:
        self.mark_accessed()
        return method(self, *args, **kwargs)

    return touch


for _name in (
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__"),
    *(
        "__reduce__",
        "__reversed__",
        "__ror__",
        "__setitem__",
        "clear",
        "copy",
        "get",
        "items",
        "keys",
        "pop",
        "popitem",
    ),
    *("setdefault", "update", "values"),
):
    setattr(UnopenedDict, _name, _opening(_name))


class Session(Generic[T]):
    """A visitor's data with its identity and lifetime. Nothing is read from the request before the first touch.

    Changes are found by comparing encoded bytes when the response starts, nested ones too.

    >>> from cookiesession import Key, KeyRing, SessionManager
    >>> session = SessionManager(KeyRing(Key.generate())).session(headers=[])
    >>> session.data["cart"] = ["tea"]
    >>> session.is_new, session.subject, session.persistent
    (True, None, True)
    """

    __slots__ = ("_data", "_state")

    def __init__(self, state: State[T], data: T | None = None) -> None:
        self._state = state
        self._data = data

    @classmethod
    def of(cls, handle: SessionDict | Session[T]) -> Session[T]:
        """The session behind what a request's scope holds: itself, or without a model its dict."""
        if isinstance(handle, Session):
            return handle
        session: Session[Any] = Session(handle._state, handle)
        return session

    @property
    def data(self) -> T:
        """The data. Assign to replace all of it; another type than the model's raises `TypeError`."""
        self._open()
        return self._data  # type: ignore[return-value]  # an opened session has data

    @data.setter
    def data(self, value: T) -> None:
        self._open().owner.require(value)
        if isinstance(self._data, SessionDict):
            replacement = dict(cast("dict[str, Any]", value))
            self._data.clear()
            self._data.update(replacement)
        else:
            self._data = value

    @property
    def id(self) -> str:
        """The session's identity: 128 random bits as 32 hexadecimal digits, only ever made here. Do not log it."""
        state = self._open()
        state.owner.identify(state)  # drawn when first asked for, which is no change
        return state.payload.id.hex()

    @property
    def subject(self) -> str | None:
        """Whose session it is, such as a user's id. None until you say so."""
        return self._open().payload.subject

    @subject.setter
    def subject(self, value: str | None) -> None:
        if not isinstance(value, str | None):
            raise TypeError(f"session.subject is a str or None, not {type(value).__name__}")
        if value != self.subject:
            self._replace(subject=value)

    @property
    def id_hash(self) -> str:
        """The SHA-256 of `id` in hexadecimal digits: it names the session in lists, and opens nothing."""
        return self.hash_of(self.id)

    @staticmethod
    def hash_of(id: str) -> str:
        """The `id_hash` of the session with this `id`. Raises `ValueError` for what is no id."""
        if not ID_TEXT.fullmatch(id):  # an id_hash, say, whose hash names nothing
            raise ValueError("an id is 32 hexadecimal digits, as session.id gives it")
        return id_hash(bytes.fromhex(id)).hex()

    @property
    def label(self) -> str | None:
        """What tells the session from the others of its subject in a list: the browser's name, say."""
        return self._open().payload.label

    @label.setter
    def label(self, value: str | None) -> None:
        if not isinstance(value, str | None):
            raise TypeError(f"session.label is a str or None, not {type(value).__name__}")
        if value != self.label:
            self._replace(label=value)

    @property
    def is_new(self) -> bool:
        """Whether the session began with this request."""
        return self._open().is_new

    @property
    def created_at(self) -> datetime:
        """When the session began, in UTC and whole seconds."""
        return datetime.fromtimestamp(self._open().payload.created_at, UTC)

    @property
    def expires_at(self) -> datetime:
        """When the session ends at the latest, in UTC and whole seconds."""
        return datetime.fromtimestamp(self._open().payload.expires_at, UTC)

    @property
    def remaining(self) -> timedelta:
        """How long until `expires_at`; never negative."""
        state = self._open()
        return state.owner.remaining(state.payload)

    @property
    def has_expired(self) -> bool:
        """Whether the request brought a session whose time was over, in the place of which this new one is.

        A store forgets what has expired: with one, an idle session may be gone like any that was ended.
        """
        state = self._open()
        return state.is_new and state.expired

    @property
    def persistent(self) -> bool:
        """Whether the browser keeps the session when it closes. Assign to decide."""
        return bool(self._open().payload.flags & PERSISTENT)

    @persistent.setter
    def persistent(self, value: bool) -> None:
        if not isinstance(value, bool):  # a form's "on" or None would be neither
            raise TypeError(f"session.persistent is a bool, not {type(value).__name__}")
        if value != self.persistent:
            self._replace(flags=self._state.payload.flags ^ PERSISTENT)

    def renew(self) -> None:
        """Gives the session a new id and a whole new lifetime; the data stays. Call it at each change of privilege."""
        state = self._open()
        state.payload = state.owner.renewed(state.payload)
        state.amended = state.renewed = True

    def clear(self, *, site_data: bool = False) -> None:
        """Ends the session. What is stored after it belongs to a new one.

        `site_data` also asks the browser to forget all that it has of the site: `Clear-Site-Data` for its cache,
        cookies and storage (W3C Clear Site Data). Browsers do so over TLS alone, and all cookies go: not only ours, but
        those of the whole domain with its subdomains, and what the session holds after it in the same response.

        In a cookie, a copy of the old session that somebody kept still opens until it expires, unless there is a
        `Revocation`: see SECURITY.md.
        """
        state = self._open()
        fresh = state.owner.begin(state)
        state.site_data = state.site_data or site_data
        state.overdue = state.overdue or site_data
        if isinstance(self._data, SessionDict):
            self._data.clear()
        else:
            self._data = fresh

    def expire_after(self, lifetime: timedelta) -> None:
        """Ends this session `lifetime` from now, whatever the manager's lifetime. Raises `ConfigurationError`.

        With a `Revocation` it lives no longer than the manager's: nobody would remember for longer that it was ended.
        """
        state = self._open()
        self._replace(expires_at=state.owner.expiry(state.payload, lifetime))

    def load(self) -> Awaitable[None]:
        """Fetches the session from the store, if it is there and has not been fetched. Raises `StoreUnavailable`."""
        return self._state.owner.load(self._state)

    def transact(self, change: Callable[[T], T | None]) -> Awaitable[None]:
        """Has `change` change the newest data in the store, and saves it at once, by its version.

        `change` gets the data and changes it, or returns other data. It may be called several times, until nobody was
        faster: of 200 concurrent increments none is lost. `data` then holds the result, and what the handler has
        changed besides is still saved with the response. A new session is not in the store yet, and only changed.

        Raises `SessionEnded` where somebody has ended or renewed the session meanwhile, `StoreUnavailable`,
        `UnencodableData`, what `change` raises, and `ConfigurationError` where the manager has no store, or `overflow`.
        """
        return self._state.owner.transact(self, change)

    def mark_accessed(self) -> None:
        """Opens the session: Starlette calls this for `request.session`."""
        self._open()

    def __repr__(self) -> str:
        return f"<Session, {'opened' if self._state.opened else 'unopened'}>"

    def _open(self) -> State[T]:
        state = self._state
        if not state.opened:
            if isinstance(self._data, SessionDict):
                self._data.mark_accessed()
            else:
                self._data = state.owner.open(state)
        return state

    def _replace(self, **changes: Any) -> None:
        state = self._open()
        state.payload = replace(state.payload, **changes)
        state.amended = True
