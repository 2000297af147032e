"""Tests of `recent.py`: a token that has been opened opens again for less, and for nobody and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import START, Clock
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cookiesession import Cookie, Key, KeyRing, SessionManager, envelope
from cookiesession.chunks import INDEXES, scatter
from cookiesession.events import Opened, Rejected, Sealed
from cookiesession.guards import user_agent
from cookiesession.payload import COMPRESSED, PERSISTENT, Payload
from cookiesession.recent import LIMIT, Recent, Unsealed

if TYPE_CHECKING:
    from cookiesession.events import Event

OLD, NEW = Key.generate(), Key.generate()
RING = KeyRing(NEW, OLD)
PAYLOAD = Payload(PERSISTENT, START, START, START + 1000, 0, bytes(16), None, b"\x80")
UNSEALED = Unsealed(PAYLOAD, OLD, 100, INDEXES[1])
END = b"the-last-24-characters.."
ADA, EVE = (b"user-agent", b"Ada's browser"), (b"user-agent", b"Eve's browser")


class Rings:
    """A source of keys that is given others while the application runs."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring

    def current(self, now: float) -> KeyRing:
        return self.ring


class Looking(Rings):
    """One that has others where it looks again."""

    found: KeyRing

    def refresh(self, now: float) -> KeyRing:
        return self.found


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


def cookies(*parts: bytes) -> list[tuple[bytes, bytes]]:
    """Cookies as the header has them, the last at least as long as an end."""
    return scatter([*parts[:-1], parts[-1].rjust(len(END), b".")])


def remember(recent: Recent, *parts: bytes) -> None:
    """Adds a token of these chunks."""
    size = sum(map(len, parts))
    recent.add(cookies(*parts), RING, Unsealed(PAYLOAD, NEW, size, INDEXES[len(parts)]), START)


def test_what_a_ring_has_opened_it_finds_again() -> None:
    """With the key that did it."""
    recent = Recent()
    recent.add(cookies(b"token"), RING, UNSEALED, START)

    assert UNSEALED == recent.find(cookies(b"token"), RING, START)
    assert recent.find(cookies(b"other"), RING, START) is None


def test_another_ring_finds_nothing() -> None:
    """Though it has the same keys: whether they are still to be used is for it to say."""
    recent = Recent()
    recent.add(cookies(b"token"), RING, UNSEALED, START)
    again = KeyRing(NEW, OLD)

    assert recent.find(cookies(b"token"), again, START) is None
    recent.add(cookies(b"other"), again, UNSEALED, START)
    assert recent.find(cookies(b"token"), RING, START) is None
    assert recent.find(cookies(b"token"), again, START) is None


def test_another_ring_finds_nothing_whatever_another_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes between the looks of this one."""
    recent, other, ends_at = Recent(), KeyRing(NEW), Payload.ends_at

    def interrupted(payload: Payload) -> int:
        monkeypatch.setattr(Payload, "ends_at", ends_at)
        recent.add(cookies(b"other"), other, UNSEALED, START)
        return ends_at(payload)

    monkeypatch.setattr(Payload, "ends_at", interrupted)
    recent.add(cookies(b"token"), RING, UNSEALED, START)

    assert UNSEALED == recent.find(cookies(b"other"), other, START)
    assert recent.find(cookies(b"token"), other, START) is None
    assert recent.find(cookies(b"other"), RING, START) is None


@pytest.mark.parametrize(("now", "is_known"), [(-1, False), (0, True), (999, True), (1000, False)])
def test_what_was_valid_is_valid_until_it_ends(now: int, *, is_known: bool) -> None:
    """Whether it was before, when a clock was put back, is for opening to say."""
    recent = Recent()
    recent.add(cookies(b"token"), RING, UNSEALED, START)

    assert is_known == (recent.find(cookies(b"token"), RING, START + now) is not None)


def test_what_nobody_asks_for_is_forgotten() -> None:
    """And what somebody does ask for stays, however much comes."""
    recent = Recent(limit=10)
    remember(recent, b"kept")
    remember(recent, b"lost")

    for number in range(20):
        remember(recent, b"%d" % number)
        assert recent.find(cookies(b"kept"), RING, START) is not None

    assert recent.find(cookies(b"lost"), RING, START) is None


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(cookies(b"another-first-chunk", END), id="another-chunk"),
        pytest.param(cookies(END), id="one-chunk-less"),
        pytest.param(cookies(b"first-chunk", b"b" + END), id="a-longer-chunk"),
        pytest.param([(b"", b"first-chunk"), (b".2", END)], id="another-name"),
        pytest.param([(b"", b"first-chunk "), (b".1", END)], id="a-blank"),
    ],
)
def test_other_cookies_with_the_same_end_find_nothing(others: list[tuple[bytes, bytes]]) -> None:
    """The end is what they are looked up by, and the whole is what counts."""
    recent = Recent()
    remember(recent, b"first-chunk", END)

    assert recent.find(others, RING, START) is None
    assert recent.find(cookies(b"first-chunk", END), RING, START) is not None


def test_an_end_that_could_be_guessed_is_not_remembered() -> None:
    """Else whoever guesses it could measure how much of the first chunk is right."""
    recent = Recent()
    for end in (b"x", END[1:]):
        recent.add(scatter([b"first-chunk", end]), RING, UNSEALED, START)

        assert recent.find(scatter([b"first-chunk", end]), RING, START) is None

    assert recent._newer == {}


@given(st.lists(st.integers(1, 400), max_size=50), st.integers(0, 1000))
def test_no_more_is_remembered_than_the_limit(sizes: list[int], limit: int) -> None:
    """In each of two generations, but for one token that is longer by itself. And no less than the last so many."""
    recent = Recent(limit)
    for number, size in enumerate(sizes):
        recent.add(cookies(b"%d" % number), RING, Unsealed(PAYLOAD, NEW, size, INDEXES[1]), START)

    for generation in (recent._newer, recent._older):
        held = [unsealed.size for _, unsealed, *_ in generation.values()]
        assert sum(held) <= limit or len(held) == 1
    last = {number for number in range(len(sizes)) if sum(sizes[number:]) <= limit}
    assert last <= {int(ending.strip(b".")) for ending in recent._older | recent._newer}


@pytest.mark.parametrize("long", ["data", "subject", "label"])
def test_what_was_compressed_counts_as_long_as_it_is(long: str) -> None:
    """A token may hold a thousand times as much as it is long, and anybody can have a session like that."""
    recent = Recent(limit=1200)
    payload = replace(PAYLOAD, flags=COMPRESSED, **{"data": b"", long: b"x" * 400 if long == "data" else "x" * 400})

    for number in range(10):
        recent.add(cookies(b"%d" % number), RING, Unsealed(payload, NEW, 200, INDEXES[1]), START)

    assert len(recent._newer) == len(recent._older) == 2


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


def test_chunks_are_joined_once(opened: list[bytes]) -> None:
    """And written over the same cookies as ever."""
    manager = SessionManager(RING)
    session = manager.session([])
    session.data["text"] = "x" * 5000
    lines = [line for _, line in manager.mode.commit(session)]  # type: ignore[union-attr]  # of a cookie's mode
    header = b"; ".join(line.partition(b";")[0] for line in lines)

    for _ in range(2):
        session = manager.session([(b"cookie", header)])
        assert session.data == {"text": "x" * 5000}
    session.data["text"] = "short"
    written = [line for _, line in manager.mode.commit(session)]  # type: ignore[union-attr]  # of a cookie's mode

    assert len(opened) == 1
    assert len(written) == 2
    assert b"Max-Age=0" in written[1]


def test_cookies_are_remembered_only_where_they_are_one_token_and_nothing_else(opened: list[bytes]) -> None:
    """What else comes with it is looked at each time, and reported."""
    events: list[Event] = []
    manager = SessionManager(RING, on_event=events.append)
    name, value = _cookie(manager, a=1)
    events.clear()

    for _ in range(2):
        assert manager.session([(name, b"__Host-session=forged; " + value)]).data == {"a": 1}

    assert [type(event) for event in events] == [Rejected, Opened] * 2
    assert len(opened) == 4


@pytest.mark.parametrize(
    "equals",
    [b" " * 60_000 + b"=", b"=" + b" " * 60_000, b"\t="],
    ids=["after-the-name", "before-the-value", "a-tab"],
)
def test_blanks_are_not_remembered(opened: list[bytes], equals: bytes) -> None:
    """They belong to no token, and whoever has a session could fill the memory with them."""
    manager = SessionManager(RING)
    name, value = _cookie(manager, a=1)

    for _ in range(2):
        assert manager.session([(name, value.replace(b"=", equals, 1))]).data == {"a": 1}

    assert len(opened) == 2
    assert manager.mode._cookies._recent._newer == {}  # type: ignore[union-attr]  # a cookie's mode has them


def test_a_token_is_not_remembered_by_who_sealed_it(opened: list[bytes]) -> None:
    """Whoever never comes back would take the place of those who do."""
    manager = SessionManager(RING)

    _cookie(manager, a=1)

    assert opened == []
    assert manager.mode._cookies._recent._newer == {}  # type: ignore[union-attr]  # a cookie's mode has them


@pytest.mark.parametrize("length", [1, 5000], ids=["one-cookie", "two-cookies"])
def test_every_opening_is_an_event(length: int) -> None:
    """Of the same kind and size as the sealing: an operator sees which keys are in use."""
    events: list[Event] = []
    manager = SessionManager(RING, on_event=events.append)
    session = manager.session([])
    session.data["text"] = "x" * length
    lines = [line for _, line in manager.mode.commit(session)]  # type: ignore[union-attr]  # of a cookie's mode
    header = b"; ".join(line.partition(b";")[0] for line in lines)

    for _ in range(2):
        assert manager.session([(b"cookie", header)]).data == {"text": "x" * length}

    [sealed, first, second] = events
    assert isinstance(sealed, Sealed)
    assert Opened(key_id=NEW.id, primary=True, size=sealed.size, chunks=sealed.chunks) == first == second


@pytest.mark.parametrize(("lifetime", "idle"), [(600, None), (3600, 600)], ids=["absolute", "idle"])
def test_what_is_remembered_expires_to_the_second(lifetime: int, idle: int | None) -> None:
    """As what is opened does. Case F76."""
    clock = Clock()
    idle_timeout = None if idle is None else timedelta(seconds=idle)
    manager = SessionManager(RING, lifetime=timedelta(seconds=lifetime), idle_timeout=idle_timeout, clock=clock)
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


def test_what_another_look_has_opened_does_not_open_before_it() -> None:
    """It was another ring's: the next request looks again, and the key may have been taken out."""
    source = Looking(KeyRing(OLD))
    manager = SessionManager(source)
    cookie = _cookie(SessionManager(KeyRing(NEW)), a=1)
    source.found = RING
    assert manager.session([cookie]).data == {"a": 1}

    source.found = source.ring

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
