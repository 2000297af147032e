"""Schedules: what opens, what seals, and what a rotation leaves, at any second and in any order of a file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import ConfigurationError, Key
from cookiesession.keys import ALGORITHMS
from cookiesession.schedule import ADD, PROPAGATION, Schedule, ScheduledKey, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cookiesession.aead import Algorithm

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
LIFETIME = 14 * DAY
OLD, MIDDLE, NEW = Key.generate(), Key.generate(), Key.generate()


def scheduled(key: Key, activates: timedelta, retires: timedelta | None = None) -> ScheduledKey:
    """A key with times from `NOW` on, added an hour before it activates."""
    end = None if retires is None else NOW + retires
    return ScheduledKey(key=key, added=NOW + activates - HOUR, activates=NOW + activates, retires=end)


def ids(schedule: Schedule) -> list[str]:
    """The ids of all keys of a schedule."""
    return [each.key.id for each in schedule.keys]


def states(schedule: Schedule) -> list[str]:
    """What the keys of a schedule do now."""
    return [state for _, state in schedule.states(NOW)]


def rotated(schedule: Schedule, now: datetime = NOW, algorithm: Algorithm | None = None) -> Schedule:
    """A rotation as the tests' cron does it."""
    return schedule.rotate(now, every=30 * DAY, lifetime=LIFETIME, propagation=HOUR, algorithm=algorithm)


def entry(**changes: Any) -> dict[str, Any]:
    """One key as a JSON document has it."""
    return {"key": OLD.export(), "added": "2027-01-01T00:00:00Z", "activates": "2027-01-01T01:00:00Z"} | changes


def document(*entries: Any) -> bytes:
    """A JSON document of keys."""
    return msgspec.json.encode({"keys": entries})


# Documents


def test_json_and_toml_say_the_same() -> None:
    """Which one it is shows in the first character."""
    toml = f"""
    # made by hand
    [[keys]]
    key = "{OLD.export()}"
    added = 2027-01-01T00:00:00Z
    activates = 2027-01-01T02:00:00+01:00
    retires = 2027-03-01 00:00:00Z
    """
    json = b"\n " + document(entry(retires="2027-03-01T00:00:00Z"))

    of_toml, of_json = Schedule.parse(toml.encode()), Schedule.parse(json)

    assert of_toml == of_json
    assert of_json.keys == (
        ScheduledKey(
            key=OLD,
            added=datetime(2027, 1, 1, tzinfo=UTC),
            activates=datetime(2027, 1, 1, 1, tzinfo=UTC),
            retires=datetime(2027, 3, 1, tzinfo=UTC),
        ),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(b"", "missing required field `keys`", id="empty"),
        pytest.param(b"{", "neither JSON nor TOML", id="half of JSON"),
        pytest.param(document(entry())[:-20], "neither JSON nor TOML", id="JSON cut short"),
        pytest.param(b"[[keys", "neither JSON nor TOML", id="half of TOML"),
        pytest.param(b"\xff\xfe\x00", "neither JSON nor TOML", id="binary"),
        pytest.param(b"a = " + b"[" * 100_000, "neither JSON nor TOML", id="deep TOML"),
        pytest.param(b"a = " + b"1" * 5_000, "neither JSON nor TOML", id="number that Python does not convert"),
        pytest.param(b'{"keys": ' * 100_000, "list of keys", id="deep JSON"),
        pytest.param(b"{}", "missing required field `keys`", id="no keys"),
        pytest.param(document({}), r"missing required field `key` - at `\$\.keys\[0\]`", id="nothing of a key"),
        pytest.param(document(entry(key=None)), r"got `null` - at `\$\.keys\[0\]\.key`", id="null for a key"),
        pytest.param(document(entry(key="secret")), "a key starts with 'csk1'", id="a password"),
        pytest.param(document(entry(key=OLD.export()[:-4])), "damaged or cut short|is 32 bytes", id="a key cut short"),
        pytest.param(document(entry(added="2027-01-01T00:00:00")), "timezone component", id="a time without a zone"),
        pytest.param(document(entry(activates="tomorrow")), "Invalid RFC3339", id="not a time"),
        pytest.param(document(entry(activates=1_800_000_000)), "list of keys", id="a number for a time"),
        pytest.param(document(entry(retire="2027-03-01T00:00:00Z")), "unknown field$", id="a misspelt field"),
        pytest.param(document(entry(), entry()), "two keys of the ring have the id", id="one key twice"),
    ],
)
def test_document_that_is_wrong_is_refused(text: bytes, problem: str) -> None:
    """At once and by the place, never by being passed over."""
    with pytest.raises(ConfigurationError, match=problem):
        Schedule.parse(text)


@pytest.mark.parametrize("cut", range(0, 230, 7))
def test_half_a_document_is_never_an_exception_of_another_kind(cut: int) -> None:
    """Whoever reads the file need only expect one."""
    toml = f'[[keys]]\nkey = "{OLD.export()}"\nadded = 2027-01-01T00:00:00Z\nactivates = 2027-01-01T02:00:00Z\n'
    toml += f'[[keys]]\nkey = "{NEW.export()}"\n'

    with pytest.raises(ConfigurationError):
        Schedule.parse(toml[: len(toml) - 1 - cut].encode())


@given(st.binary())
def test_any_bytes_are_a_schedule_or_a_configuration_error(text: bytes) -> None:
    """A file of a disk that fails may hold anything."""
    with pytest.raises(ConfigurationError):
        Schedule.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(document(entry(), entry(key=OLD.export() + "A")), id="in a key"),
        pytest.param(document(entry(**{OLD.export(): 1})), id="for a field's name"),
        pytest.param(document(entry(added=OLD.export())), id="for a time"),
        pytest.param(document(entry(), entry()), id="twice"),
        pytest.param(f'keys = [{{ key = "{OLD.export()}" '.encode(), id="before the end"),
        pytest.param(f'{OLD.export()} = "{OLD.export()}"\n'.encode() * 2, id="for a name in TOML"),
    ],
)
def test_refusal_shows_nothing_of_a_key(text: bytes, everything_said: Callable[[BaseException], str]) -> None:
    """Wherever in the document somebody wrote one."""
    secret = OLD.export().rpartition(".")[2]

    with pytest.raises(ConfigurationError) as refusal:
        Schedule.parse(text)

    said = everything_said(refusal.value)
    assert secret[:10] not in said
    assert secret[-10:] not in said


def test_equal_keys_keep_their_objects() -> None:
    """A reading changes nothing for a key that stays: it has its ciphers, and has counted its seals."""
    held = Schedule((scheduled(OLD, -DAY), scheduled(MIDDLE, HOUR)))
    text = document(entry(), entry(key=NEW.export()))

    read = Schedule.parse(text).with_keys_of(held)

    assert read == Schedule.parse(text)
    assert OLD is read.keys[0].key


# Rings


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_newest_active_key_seals_in_every_order(order: Sequence[int]) -> None:
    """The order of a file means nothing. Case B20, CVE-2025-47278."""
    keys = (scheduled(OLD, -60 * DAY), scheduled(MIDDLE, -30 * DAY), scheduled(NEW, HOUR))

    ring = Schedule(tuple(keys[index] for index in order)).ring(NOW)

    assert ring.keys == (MIDDLE, NEW, OLD)


def test_pending_key_opens_and_seals_from_its_second_on() -> None:
    """Every instance can open what the first of them seals."""
    schedule = Schedule((scheduled(OLD, -DAY), scheduled(NEW, HOUR)))

    before, at = schedule.ring(NOW + HOUR - SECOND), schedule.ring(NOW + HOUR)

    assert before.keys == (OLD, NEW)
    assert at.keys == (NEW, OLD)


def test_key_opens_until_the_second_it_retires() -> None:
    """And not in that second."""
    schedule = Schedule((scheduled(OLD, -DAY, retires=HOUR), scheduled(NEW, -HOUR)))

    before, at = schedule.ring(NOW + HOUR - SECOND), schedule.ring(NOW + HOUR)

    assert before.keys == (NEW, OLD)
    assert at.keys == (NEW,)


def test_first_key_to_activate_seals_where_none_is_active() -> None:
    """A clock that is behind is no reason to have no session."""
    schedule = Schedule((scheduled(NEW, 2 * HOUR), scheduled(OLD, HOUR)))

    assert schedule.ring(NOW).primary == OLD


def test_instances_agree_on_keys_of_one_second() -> None:
    """Whichever way their files have them."""
    keys = (scheduled(OLD, -DAY), scheduled(MIDDLE, -DAY), scheduled(NEW, -DAY))

    primaries = {Schedule(order).ring(NOW).primary.id for order in permutations(keys)}

    assert len(primaries) == 1


def test_document_of_no_key_can_be_added_to() -> None:
    """But gives no ring."""
    schedule = Schedule.parse(document())

    assert schedule == Schedule()
    with pytest.raises(ConfigurationError, match=f"it holds no key; add one with: {ADD}"):
        schedule.ring(NOW)


def test_no_ring_is_left_of_retired_keys() -> None:
    """The message says what to do."""
    with pytest.raises(ConfigurationError, match=f"every key in it has retired; add one with: {ADD}"):
        Schedule((scheduled(OLD, -DAY, retires=-HOUR),)).ring(NOW)


def test_states_tell_what_each_key_does() -> None:
    """In the file's order."""
    schedule = Schedule(
        (
            scheduled(NEW, HOUR),
            scheduled(Key.generate(), -90 * DAY, retires=-DAY),
            scheduled(MIDDLE, -DAY),
            scheduled(OLD, -60 * DAY, retires=DAY),
        )
    )

    assert states(schedule) == ["pending", "retired", "primary", "active"]


def test_states_of_keys_of_one_second_agree_with_the_ring() -> None:
    """The one that does not seal is active, and pending no more."""
    schedule = Schedule((scheduled(OLD, timedelta(0)), scheduled(NEW, timedelta(0))))

    assert sorted(states(schedule)) == ["active", "primary"]


def test_states_of_retired_keys_name_no_primary() -> None:
    """A file that is wrong can still be listed."""
    schedule = Schedule((scheduled(OLD, -DAY, retires=-HOUR),))

    assert states(schedule) == ["retired"]


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.none() | st.integers(-5, 5)), min_size=1, max_size=4),
    st.integers(-6, 6),
    st.booleans(),
)
def test_ring_changes_at_boundaries_alone(
    times: Sequence[tuple[int, int | None]], hour: int, just_before: bool
) -> None:
    """Whoever keeps a ring until the next boundary has the right one."""
    keys = (OLD, MIDDLE, NEW, Key.generate())
    schedule = Schedule(
        tuple(
            scheduled(key, start * HOUR, None if end is None else end * HOUR)
            for key, (start, end) in zip(keys, times, strict=False)
        )
    )
    later = NOW + hour * HOUR - (SECOND if just_before else timedelta(0))
    earlier = max((time for time in schedule.boundaries() if time <= later), default=NOW - 7 * HOUR)

    def keys_at(now: datetime) -> tuple[Key, ...]:
        try:
            return schedule.ring(now).keys
        except ConfigurationError:
            return ()

    assert keys_at(earlier) == keys_at(later)
    assert schedule.boundaries() == sorted(schedule.boundaries())


# Changes


def test_first_key_of_a_schedule_seals_at_once() -> None:
    """There is nobody yet whom it could surprise."""
    schedule = Schedule().add(OLD, NOW, HOUR)

    assert schedule.keys == (ScheduledKey(key=OLD, added=NOW, activates=NOW + HOUR),)
    assert schedule.ring(NOW).primary == OLD


def test_rotation_adds_the_next_key_when_the_newest_is_old_enough() -> None:
    """It waits for every instance to read it, and has its predecessor's algorithm."""
    schedule = Schedule((scheduled(OLD, HOUR - 30 * DAY),))

    early, due = rotated(schedule, NOW - SECOND), rotated(schedule)

    assert early == schedule
    assert states(due) == ["primary", "pending"]
    assert due.keys[1].added == NOW
    assert due.keys[1].activates == NOW + HOUR
    assert due.keys[1].key.algorithm == OLD.algorithm


@pytest.mark.parametrize(("before", "after"), list(product(ALGORITHMS, ALGORITHMS)))
def test_rotation_changes_the_algorithm_when_asked(before: Algorithm, after: Algorithm) -> None:
    """Algorithm migration is rotation."""
    schedule = Schedule((scheduled(Key.generate(before), -60 * DAY),))

    changed, kept = rotated(schedule, algorithm=after), rotated(schedule)

    assert changed.keys[-1].key.algorithm == after
    assert kept.keys[-1].key.algorithm == before


def test_rotation_dates_the_end_of_a_key_once_its_successor_seals() -> None:
    """One lifetime after that, and the time that clocks may differ."""
    schedule = Schedule((scheduled(OLD, -40 * DAY), scheduled(NEW, HOUR)))

    pending, active = rotated(schedule), rotated(schedule, NOW + HOUR)

    assert pending == schedule
    assert [each.retires for each in active.keys] == [NOW + HOUR + LIFETIME + HOUR, None]


def test_rotation_drops_what_has_retired() -> None:
    """A secret that opens nothing need not lie about."""
    schedule = Schedule((scheduled(OLD, -40 * DAY, retires=timedelta(0)), scheduled(NEW, -DAY)))

    assert ids(rotated(schedule, NOW - SECOND)) == [OLD.id, NEW.id]
    assert ids(rotated(schedule)) == [NEW.id]


def test_rotation_after_a_long_pause_drops_what_outlived_everything() -> None:
    """A cron job that did not run for months catches up in one run."""
    schedule = Schedule((scheduled(OLD, -400 * DAY), scheduled(MIDDLE, -300 * DAY), scheduled(NEW, -DAY)))

    assert ids(rotated(schedule)) == [MIDDLE.id, NEW.id]


def test_rotation_leaves_an_end_that_somebody_set() -> None:
    """Earlier or later than its own."""
    schedule = Schedule((scheduled(OLD, -40 * DAY, retires=2 * HOUR), scheduled(NEW, -DAY)))

    assert rotated(schedule) == schedule


def test_rotation_replaces_the_last_key_that_has_an_end() -> None:
    """Somebody retires the only key: the next one is due, however young it is."""
    schedule = Schedule((scheduled(NEW, -HOUR, retires=DAY),))

    assert states(rotated(schedule)) == ["primary", "pending"]


@given(st.lists(st.integers(-100, 5), min_size=1, max_size=5), st.integers(1, 40))
def test_rotation_twice_is_rotation_once(starts: Sequence[int], every: int) -> None:
    """Made for cron, which may run too often."""
    schedule = Schedule(tuple(scheduled(Key.generate(), start * DAY) for start in starts))

    once = schedule.rotate(NOW, every=every * DAY, lifetime=LIFETIME)

    assert once == once.rotate(NOW, every=every * DAY, lifetime=LIFETIME)
    assert once.ring(NOW).keys


def test_propagation_is_an_hour_by_default() -> None:
    """As the documentation says."""
    schedule = Schedule((scheduled(OLD, -60 * DAY),)).rotate(NOW, every=DAY, lifetime=LIFETIME)

    assert PROPAGATION == HOUR
    assert schedule.keys[1].activates == NOW + HOUR


def test_retired_key_is_gone_at_once() -> None:
    """What a compromised key needs. Case B26."""
    schedule = Schedule((scheduled(OLD, -DAY), scheduled(NEW, HOUR)))

    retired = schedule.retire(OLD.id, NOW)

    assert retired.ring(NOW).keys == (NEW,)
    assert retired.keys == (replace(schedule.keys[0], retires=NOW), schedule.keys[1])


def test_key_that_is_not_there_cannot_retire() -> None:
    """A mistyped id is not a success."""
    with pytest.raises(ConfigurationError, match="holds no key with the id 0badcafe"):
        Schedule((scheduled(OLD, -DAY),)).retire("0badcafe", NOW)


@pytest.mark.parametrize("end", [None, DAY], ids=["alone", "beside one that ends"])
def test_last_key_without_an_end_cannot_retire(end: timedelta | None) -> None:
    """The file would run out of keys, and says which command comes first."""
    others = () if end is None else (scheduled(OLD, -40 * DAY, retires=end),)
    schedule = Schedule((*others, scheduled(NEW, -DAY)))

    with pytest.raises(ConfigurationError, match=f"no key would be left to seal after {NEW.id}; add one first"):
        schedule.retire(NEW.id, NOW + HOUR)


def test_retirement_leaves_no_key_to_seal_that_ends_itself() -> None:
    """Its sessions would end before their time. Once another key is due to seal, the same is no harm."""
    dated = (scheduled(OLD, -40 * DAY, retires=DAY), scheduled(MIDDLE, -DAY), scheduled(NEW, HOUR))

    with pytest.raises(ConfigurationError, match=f"{OLD.id} would seal after {MIDDLE.id}, .*--activate-in 0s"):
        Schedule(dated).retire(MIDDLE.id, NOW)

    assert Schedule(dated).retire(MIDDLE.id, NOW + HOUR).ring(NOW + HOUR).primary == NEW


def test_rotation_sets_no_end_by_a_successor_that_ends_itself() -> None:
    """When that has gone, the key before it seals again."""
    schedule = Schedule((scheduled(OLD, -10 * DAY), scheduled(NEW, -DAY, retires=DAY)))

    assert rotated(schedule).keys[:2] == schedule.keys


def test_rotation_of_no_key_says_what_to_do() -> None:
    """There is nothing to go by."""
    with pytest.raises(ConfigurationError, match="there is no key to rotate; add one with"):
        rotated(Schedule())


def test_moment_is_in_utc() -> None:
    """Seconds since the epoch, as clocks give them."""
    assert moment(1_800_000_000) == NOW
