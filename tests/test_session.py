"""Tests of `session.py`: the dict that stands for a session, `Session` itself, and what changes."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness import START, Browser, Clock, handler
from starlette.responses import JSONResponse

from cookiesession import ConfigurationError, Key, KeyRing, Session, SessionManager, SessionMiddleware, get_session
from cookiesession.session import SessionDict, UnopenedDict

if TYPE_CHECKING:
    from collections.abc import Callable

RING = KeyRing(Key.generate())
DATA: dict[str, Any] = {"user": "ada", "cart": ["tea", {"sugar": 2}], "views": 3}

USES: dict[str, Callable[[Any], Any]] = {
    "bool": lambda s: dict(s) if s else None,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "dict()": dict,
    "dict.copy": lambda s: s.copy(),
    "dict.update from it": lambda s: _updated({}, s),
    "double star": lambda s: {**s},
    "equality": lambda s: DATA if s == DATA else None,
    "equality, reflected": lambda s: DATA if DATA == s else None,
    "fromkeys": lambda s: {key: s[key] for key in s},
    "get": lambda s: {key: s.get(key) for key in DATA},
    "in": lambda s: DATA if all(key in s for key in DATA) else None,
    "inequality": lambda s: None if s != DATA else DATA,
    "items": lambda s: dict(s.items()),
    "json.dumps": lambda s: json.loads(json.dumps(s)),
    "json.dumps, indented": lambda s: json.loads(json.dumps(s, indent=2)),
    "json.dumps, sorted": lambda s: json.loads(json.dumps(s, sort_keys=True)),
    "JSONResponse": lambda s: json.loads(bytes(JSONResponse(s).body)),
    "keys": lambda s: {key: s[key] for key in s.keys()},  # noqa: SIM118 - the point is keys()
    "keyword arguments": lambda s: _keywords(**s),
    "len": lambda s: DATA if len(s) == len(DATA) else None,
    "list": lambda s: {key: s[key] for key in list(s)},
    "match": lambda s: DATA if _matches(s) else None,
    "merge": lambda s: s | {},
    "merge, reflected": lambda s: {} | s,
    "pickled copy": lambda s: pickle.loads(pickle.dumps(s)),  # noqa: S301 - our own bytes
    "reversed": lambda s: {key: s[key] for key in reversed(list(reversed(s)))},
    "values": lambda s: dict(zip(DATA, s.values(), strict=True)),
}


def _updated(target: dict[str, Any], source: Any) -> dict[str, Any]:
    target.update(source)
    return target


def _keywords(**keywords: Any) -> dict[str, Any]:
    return keywords


def _matches(value: object) -> bool:
    match value:
        case {"user": "ada"}:
            return True
    return False


def _browser_with(data: dict[str, Any]) -> Browser:
    browser = Browser(SessionMiddleware(handler(lambda scope: scope["session"].update(data)), keys=RING))
    browser.request()
    return browser


def _opened(data: dict[str, Any] | None = None, **options: Any) -> tuple[SessionManager[Any], Session[Any]]:
    manager: SessionManager[Any] = SessionManager(RING, **options)
    session = manager.session([])
    session.data.update(data or {})
    return manager, session


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_every_use_of_a_dict_works_as_the_first_touch(use: Callable[[Any], Any]) -> None:
    """Straight from the scope of a bare ASGI application, before anything has opened the session."""
    browser = _browser_with(DATA)
    seen = []
    browser.app = SessionMiddleware(handler(lambda scope: seen.append(use(scope["session"]))), keys=RING)

    browser.request()

    assert [DATA] == seen
    assert type(seen[0]) is dict


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda s: s.__setitem__("b", 2), {"a": 1, "b": 2}, id="setitem"),
        pytest.param(lambda s: s.__delitem__("a"), {}, id="delitem"),
        pytest.param(lambda s: s.update(b=2), {"a": 1, "b": 2}, id="update"),
        pytest.param(lambda s: s.__ior__({"b": 2}), {"a": 1, "b": 2}, id="ior"),
        pytest.param(lambda s: s.setdefault("b", []).append(2), {"a": 1, "b": [2]}, id="setdefault"),
        pytest.param(lambda s: s.pop("a"), {}, id="pop"),
        pytest.param(lambda s: s.popitem(), {}, id="popitem"),
        pytest.param(lambda s: s.clear(), {}, id="clear"),
    ],
)
def test_every_change_to_a_dict_works_as_the_first_touch(
    change: Callable[[Any], Any], expected: dict[str, Any]
) -> None:
    """And the next request sees it."""
    browser = _browser_with({"a": 1})
    seen: list[dict[str, Any]] = []
    browser.app = SessionMiddleware(handler(lambda scope: change(scope["session"])), keys=RING)

    browser.request()
    browser.app = SessionMiddleware(handler(lambda scope: seen.append(dict(scope["session"]))), keys=RING)
    browser.request()

    assert [expected] == seen


def test_a_session_is_a_dict() -> None:
    """What asks with isinstance, such as OAuth clients, is told so before and after the first touch."""
    manager = SessionManager(RING)

    handle = manager.handle([])

    assert isinstance(handle, dict)
    assert type(handle) is UnopenedDict
    handle.mark_accessed()
    assert type(handle) is SessionDict


def test_what_reads_past_every_method_fails_rather_than_see_no_data() -> None:
    """An encoder in C that never calls a method cannot open the session: it raises, and finds no empty dict."""
    handle = SessionManager(RING).handle([])

    with pytest.raises(TypeError):
        msgspec.json.encode(handle)


def test_a_repr_shows_no_value() -> None:
    """Neither of the dict nor of the session, opened or not."""
    manager, session = _opened()
    unopened = manager.handle([])

    session.data["word"] = "hunter2"

    assert "<SessionDict of 1>" == repr(session.data)
    assert "<Session, opened>" == repr(session)
    assert "<SessionDict, unopened>" == repr(unopened)
    assert "<Session, unopened>" == repr(Session.of(unopened))
    assert "hunter2" not in f"{session.data} {session}"


def test_marks_of_starlettes_own_session_are_understood() -> None:
    """`mark_accessed()` opens; `mark_modified()` has nothing to do, since changes are found by comparing."""
    data: Any = SessionManager(RING).handle([])

    assert not data.accessed
    data.mark_accessed()
    data.mark_modified()
    data.modified = True

    assert data.accessed
    assert not data.modified
    assert {} == data
    data["cart"] = []
    assert data.modified


def test_an_unopened_session_is_not_modified() -> None:
    """And asking does not open it."""
    data: Any = SessionManager(RING).handle([])

    assert not data.modified
    assert not data.accessed


def test_a_copy_of_the_dicts_own_class_has_a_repr() -> None:
    """Some code makes one by `type(data)(data)`."""
    data: Any = SessionManager(RING).handle([])
    data["user"] = "ada"

    assert "<SessionDict of 1>" == repr(type(data)(data))


def test_data_can_be_replaced_and_keeps_its_identity() -> None:
    """`session.data` is the dict that `request.session` is, also after it was assigned."""
    _, session = _opened({"a": 1})
    data = session.data

    session.data = {"b": 2}

    assert {"b": 2} == session.data
    assert data is session.data


def test_data_can_be_replaced_by_itself() -> None:
    """Assigning what is there already changes nothing."""
    _, session = _opened({"a": 1})

    session.data = session.data

    assert {"a": 1} == session.data


def test_data_of_another_type_is_refused_at_once() -> None:
    """The error names the type and not the value."""
    _, session = _opened()

    with pytest.raises(TypeError, match="a dict, not list"):
        session.data = ["hunter2"]


def test_a_fresh_session_tells_what_it_is() -> None:
    """Identity and lifetime are there before anything is stored."""
    _, session = _opened(clock=Clock(), lifetime=timedelta(hours=1))

    assert session.is_new
    assert session.subject is None
    assert session.persistent
    assert 32 == len(session.id)
    assert session.id == session.id
    assert datetime.fromtimestamp(START, UTC) == session.created_at
    assert datetime.fromtimestamp(START + 3600, UTC) == session.expires_at


def test_ids_are_never_the_same() -> None:
    """128 random bits each."""
    manager = SessionManager(RING)

    ids = {manager.session([]).id for _ in range(1000)}

    assert 1000 == len(ids)


@pytest.mark.parametrize("id", ["", "aa", "A" * 32, "zz" * 16, "a" * 64, " " + "a" * 32], ids=repr)
def test_what_is_no_id_has_no_hash(id: str) -> None:
    """An `id_hash` among it, whose hash would name nothing."""
    with pytest.raises(ValueError, match=r"^an id is 32 hexadecimal digits, as session\.id gives it$"):
        Session.hash_of(id)


def test_renew_gives_a_new_id_and_keeps_the_data() -> None:
    """The lifetime starts again, as with a new session."""
    clock = Clock()
    _, session = _opened({"a": 1}, clock=clock, lifetime=timedelta(hours=1))
    before = session.id
    clock.now += 60

    session.renew()

    assert before != session.id
    assert {"a": 1} == session.data
    assert datetime.fromtimestamp(START + 60 + 3600, UTC) == session.expires_at


def test_clear_ends_the_session() -> None:
    """Data, subject and identity are gone, and what follows belongs to a new session."""
    _, session = _opened({"a": 1})
    session.subject = "42"
    session.persistent = False
    before = session.id

    session.clear()

    assert {} == session.data
    assert session.subject is None
    assert session.persistent
    assert session.is_new
    assert before != session.id


def test_a_subject_is_text() -> None:
    """A number would come back as text."""
    _, session = _opened()
    wrong: Any = 42

    with pytest.raises(TypeError, match="a str or None, not int"):
        session.subject = wrong


@pytest.mark.parametrize("value", ["on", None, 1, 0], ids=repr)
def test_persistence_is_true_or_false(value: Any) -> None:
    """What a form's box gives is neither, and must not be taken for its opposite."""
    session = SessionManager(KeyRing(Key.generate())).session([])

    with pytest.raises(TypeError, match=rf"^session\.persistent is a bool, not {type(value).__name__}$"):
        session.persistent = value

    assert session.persistent


def test_expire_after_counts_from_now() -> None:
    """For this session alone."""
    clock = Clock()
    _, session = _opened(clock=clock)
    clock.now += 10

    session.expire_after(timedelta(minutes=5))

    assert datetime.fromtimestamp(START + 10 + 300, UTC) == session.expires_at


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta.max, 300])
def test_expire_after_refuses_what_is_no_lifetime(lifetime: Any) -> None:
    """Case C45."""
    _, session = _opened()

    with pytest.raises(ConfigurationError, match="timedelta"):
        session.expire_after(lifetime)


def test_a_lifetime_ends_in_2106_at_the_latest() -> None:
    """The layout holds 32 bits of seconds; a later end is cut to that."""
    _, session = _opened(clock=Clock())

    session.expire_after(timedelta(days=36500))

    assert datetime.fromtimestamp(2**32 - 1, UTC) == session.expires_at


def test_get_session_gives_the_verbs_of_a_dict() -> None:
    """The session behind `request.session`, from any connection."""
    from starlette.requests import HTTPConnection  # noqa: PLC0415 - for this test alone

    seen = []

    def handle(scope: Any) -> None:
        connection = HTTPConnection(scope)
        connection.session["a"] = 1
        session = get_session(connection)
        seen.append((dict(session.data), session.data is connection.session))

    Browser(SessionMiddleware(handler(handle), keys=RING)).request()

    assert [({"a": 1}, True)] == seen


@pytest.mark.parametrize("scope", [{}, {"session": {}}, {"session": None}], ids=["none", "another's", "null"])
def test_get_session_without_the_middleware_says_what_to_do(scope: dict[str, Any]) -> None:
    """And so it does where somebody else's session is in the scope."""
    from starlette.requests import HTTPConnection  # noqa: PLC0415 - for this test alone

    with pytest.raises(ConfigurationError, match="add SessionMiddleware"):
        get_session(HTTPConnection({"type": "http", "headers": [], **scope}))
