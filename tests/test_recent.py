"""Tests of `recent.py`: a token that has been opened opens again for less, and for nobody and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import START, Clock
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import Cookie, Key, KeyRing, SessionManager, envelope
from cookiesession.guards import user_agent
from cookiesession.payload import PERSISTENT, Payload
from cookiesession.recent import LIMIT, Recent

if TYPE_CHECKING:
    from cookiesession.events import Event

OLD, NEW = Key.generate(), Key.generate()
RING = KeyRing(NEW, OLD)
PAYLOAD = Payload(PERSISTENT, START, START, START + 1000, 0, bytes(16), None, b"\x80")
ADA, EVE = (b"user-agent", b"Ada's browser"), (b"user-agent", b"Eve's browser")


class Rings:
    """A source of keys that is given others while the application runs."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring

    def current(self, now: float) -> KeyRing:
        return self.ring


@pytest.fixture(name="opened")
def _opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The tokens for which keys were used, in their order."""
    tokens: list[bytes] = []
    real = envelope.open

    def counting(token: bytes, ring: KeyRing, binding: bytes, *, now: int) -> tuple[bytes, Key]:
        tokens.append(token)
        return real(token, ring, binding, now=now)

    monkeypatch.setattr(envelope, "open", counting)
    return tokens


def _cookie(manager: SessionManager[Any], **data: Any) -> tuple[bytes, bytes]:
    """The Cookie header of a session."""
    session = manager.session([ADA])
    session.data.update(data)
    [(_, line)] = manager.mode.commit(session)  # type: ignore[misc]  # of a cookie, there is nothing to await
    return b"cookie", line.partition(b";")[0]


# What is remembered


def test_what_a_ring_has_opened_it_finds_again() -> None:
    """With the key that did it."""
    recent = Recent()
    recent.add(b"token", RING, PAYLOAD, OLD)

    assert (b"token", PAYLOAD, OLD) == recent.find(b"token", RING)
    assert recent.find(b"other", RING) is None


def test_another_ring_finds_nothing() -> None:
    """Though it has the same keys: whether they are still to be used is for it to say."""
    recent = Recent()
    recent.add(b"token", RING, PAYLOAD, NEW)
    again = KeyRing(NEW, OLD)

    assert recent.find(b"token", again) is None
    recent.add(b"other", again, PAYLOAD, NEW)
    assert recent.find(b"token", RING) is None
    assert recent.find(b"token", again) is None


def test_what_nobody_asks_for_is_forgotten() -> None:
    """And what somebody does ask for stays, however much comes."""
    recent = Recent(limit=10)
    recent.add(b"kept", RING, PAYLOAD, NEW)
    recent.add(b"lost", RING, PAYLOAD, NEW)

    for number in range(20):
        recent.add(b"%d" % number, RING, PAYLOAD, NEW)
        assert recent.find(b"kept", RING) is not None

    assert recent.find(b"lost", RING) is None


def test_another_token_with_the_same_end_finds_nothing() -> None:
    """The end is what a token is looked up by, and the whole is what counts."""
    recent = Recent()
    end = b"the-last-24-characters.."
    recent.add(b"a" + end, RING, PAYLOAD, NEW)

    assert recent.find(b"b" + end, RING) is None
    assert recent.find(end, RING) is None
    assert recent.find(b"a" + end, RING) is not None


@given(st.lists(st.binary(min_size=1, max_size=4000), max_size=100), st.integers(0, 5000))
def test_no_more_is_remembered_than_the_limit(tokens: list[bytes], limit: int) -> None:
    """In each of two generations, but for one token that is longer by itself."""
    recent = Recent(limit)
    for token in tokens:
        recent.add(token, RING, PAYLOAD, NEW)

    for generation in (recent._newer, recent._older):
        assert sum(len(token) for token, _, _ in generation.values()) <= limit or len(generation) == 1


# Opening


def test_a_token_is_opened_once(opened: list[bytes]) -> None:
    """Each request has data of its own nevertheless."""
    manager = SessionManager(RING)
    cookie = _cookie(manager, cart=["tea"])

    first = manager.session([cookie])
    first.data["cart"].append("cake")
    second = manager.session([cookie])

    assert second.data == {"cart": ["tea"]}
    assert len(opened) == 1


def test_a_token_is_not_remembered_by_who_sealed_it(opened: list[bytes]) -> None:
    """Whoever never comes back would take the place of those who do."""
    manager = SessionManager(RING)

    _cookie(manager, a=1)

    assert opened == []
    assert manager.mode._cookies._recent._newer == {}  # type: ignore[union-attr]  # a cookie's mode has them


def test_every_opening_is_an_event() -> None:
    """Of the same kind and size: an operator sees which keys are in use."""
    events: list[Event] = []
    manager = SessionManager(RING, on_event=events.append)
    cookie = _cookie(manager, a=1)
    events.clear()

    for _ in range(2):
        assert manager.session([cookie]).data == {"a": 1}

    assert events[0] == events[1]


@pytest.mark.parametrize("idle", [None, timedelta(seconds=600)], ids=["absolute", "idle"])
def test_what_is_remembered_expires_to_the_second(idle: timedelta | None) -> None:
    """As what is opened does. Case F76."""
    clock = Clock()
    manager = SessionManager(RING, lifetime=timedelta(seconds=600), idle_timeout=idle, clock=clock)
    cookie = _cookie(manager, a=1)

    for now, is_new in ((START, False), (START + 599, False), (START + 600, True), (START - 60, False)):
        clock.now = now
        assert is_new == manager.session([cookie]).is_new
    clock.now = START - 61
    assert manager.session([cookie]).is_new


def test_a_key_that_is_taken_out_opens_nothing_that_was_remembered() -> None:
    """At once. Case B26."""
    source = Rings(KeyRing(OLD))
    manager = SessionManager(source)
    cookie = _cookie(manager, a=1)
    assert manager.session([cookie]).data == {"a": 1}

    source.ring = KeyRing(NEW)

    assert manager.session([cookie]).is_new


def test_a_session_under_an_older_key_is_sealed_anew_though_it_is_remembered() -> None:
    """Each time that its cookie comes."""
    source = Rings(KeyRing(OLD))
    manager = SessionManager(source)
    cookie = _cookie(manager, a=1)
    source.ring = RING

    for _ in range(2):
        session = manager.session([cookie])
        assert session.data == {"a": 1}
        assert manager.mode.commit(session)


def test_what_is_remembered_opens_for_its_client_alone() -> None:
    """A guard is asked each time."""
    manager = SessionManager(RING, bind=user_agent)
    cookie = _cookie(manager, a=1)

    assert not manager.session([ADA, cookie]).is_new
    assert manager.session([EVE, cookie]).is_new
    assert not manager.session([ADA, cookie]).is_new


def test_what_is_remembered_for_one_cookie_does_not_open_in_another() -> None:
    """Of the same name's first bytes, say. Case A6."""
    manager, other = (SessionManager(RING, cookie=Cookie(name=name)) for name in ("session", "session2"))
    name, value = _cookie(manager, a=1)
    moved = value.replace(b"__Host-session", b"__Host-session2")

    assert manager.session([(name, value)]).data == {"a": 1}
    assert other.session([(name, moved)]).is_new


@given(st.data())
def test_no_other_token_is_taken_for_one_that_is_remembered(data: st.DataObject) -> None:
    """Whatever is changed of it. Case A1."""
    manager = SessionManager(RING)
    name, value = _cookie(manager, a=1)
    assert manager.session([(name, value)]).data == {"a": 1}
    at = data.draw(st.integers(len(b"__Host-session="), len(value) - 1))
    other = data.draw(st.binary(min_size=1, max_size=2).filter(lambda some: some != value[at : at + 1]))

    assert manager.session([(name, value[:at] + other + value[at + 1 :])]).is_new


def test_what_is_refused_is_not_remembered() -> None:
    """Anybody can send any number of such tokens."""
    manager = SessionManager(RING)
    name, value = _cookie(manager, a=1)

    for number in range(100):
        assert manager.session([(name, value[:-3] + b"%03d" % number)]).is_new

    assert manager.mode._cookies._recent._newer == {}  # type: ignore[union-attr]  # a cookie's mode has them


def test_a_few_megabytes_are_remembered_at_most() -> None:
    """SECURITY.md says so."""
    assert LIMIT == 2**19
