"""Keys with times: which of them open, which one seals, and what a rotation makes of them. No files, no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from cookiesession.errors import ConfigurationError
from cookiesession.keys import Key, KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cookiesession.aead import Algorithm

ADD: Final = "python -m cookiesession keys add FILE"
"""The command that adds a key to a file, and makes the file where there is none."""

PROPAGATION: Final = timedelta(hours=1)
"""How long a new key waits before it seals: until every instance has read the file, whatever its clock says."""

KeyState = Literal["pending", "primary", "active", "retired"]
"""A pending key opens and does not seal yet, an active one opens and no longer seals."""


@dataclass(frozen=True, kw_only=True)
class ScheduledKey:
    """A key and its times: in the file since `added`, sealing from `activates` on, of no use from `retires` on."""

    key: Key
    added: datetime
    activates: datetime
    retires: datetime | None = None

    def has_retired(self, now: datetime) -> bool:
        """Whether the key opens nothing any more."""
        return self.retires is not None and self.retires <= now


@dataclass(frozen=True)
class Schedule:
    """The keys of a key file, in its order. Every method that changes one gives a new one.

    >>> from datetime import UTC, datetime, timedelta
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> schedule = Schedule().add(Key.generate(), now, timedelta(0)).add(Key.generate(), now, timedelta(hours=1))
    >>> [state for _, state in schedule.states(now)]
    ['primary', 'pending']
    """

    keys: tuple[ScheduledKey, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Schedule:
        """The schedule in a JSON or TOML document. Raises `ConfigurationError`, which shows nothing of the keys."""
        entries, problem = [], ""
        try:
            decode = msgspec.json.decode if text.lstrip()[:1] == b"{" else msgspec.toml.decode
            entries = decode(text, type=_Document).keys
        except msgspec.ValidationError as error:
            # Shows no value, but the name of an unknown field: a key, where somebody wrote one there.
            shown = re.sub("(?<=unknown field).*", "", str(error), flags=re.DOTALL)
            problem = f"it is not a list of keys with their times: {shown}"
        except (msgspec.DecodeError, ValueError, RecursionError):  # a ValueError for no UTF-8, or a number without end
            problem = f"it is neither JSON nor TOML; make one with: {ADD}"
        if problem:
            raise ConfigurationError(problem)  # here, so that what it does not show is not its context either
        schedule = cls(tuple(entry.scheduled() for entry in entries))
        if schedule.keys:
            KeyRing(*(each.key for each in schedule.keys))  # refuses two keys of one id
        return schedule

    def with_keys_of(self, other: Schedule) -> Schedule:
        """The same, with the key objects that `other` holds already, which have ciphers at hand and have counted."""
        held = {each.key: each.key for each in other.keys}
        return Schedule(tuple(replace(each, key=held.get(each.key, each.key)) for each in self.keys))

    def ring(self, now: datetime) -> KeyRing:
        """The keys that open at `now`, with the newest active one first: it seals, and the others follow by age.

        Where none is active yet (the clock is behind, say) the first to become so seals. Raises `ConfigurationError`
        where there is no key, or every one has retired.
        """
        live = [each for each in self.keys if not each.has_retired(now)]
        if not live:
            problem = "every key in it has retired" if self.keys else "it holds no key"
            raise ConfigurationError(f"{problem}; add one with: {ADD}")
        primary = _primary(live, now)
        others = sorted((each for each in live if each is not primary), key=_age, reverse=True)
        return KeyRing(primary.key, *(each.key for each in others))

    def states(self, now: datetime) -> Iterator[tuple[ScheduledKey, KeyState]]:
        """Every key with what it does at `now`."""
        live = [each for each in self.keys if not each.has_retired(now)]
        primary = _primary(live, now) if live else None
        for each in self.keys:
            if each is primary:
                yield each, "primary"
            elif each.has_retired(now):
                yield each, "retired"
            else:
                yield each, "pending" if each.activates > now else "active"

    def boundaries(self) -> list[datetime]:
        """The times at which the ring changes, in order."""
        times = {each.activates for each in self.keys} | {each.retires for each in self.keys if each.retires}
        return sorted(times)

    def successor(self, scheduled: ScheduledKey, now: datetime) -> ScheduledKey | None:
        """The key that seals after `scheduled`, of those that have not retired at `now`."""
        later = (each for each in self.keys if _age(each) > _age(scheduled) and not each.has_retired(now))
        return min(later, key=_age, default=None)

    def add(self, key: Key, now: datetime, activate_in: timedelta) -> Schedule:
        """With `key`, which opens as soon as the file is read and seals after `activate_in`."""
        return Schedule((*self.keys, ScheduledKey(key=key, added=now, activates=now + activate_in)))

    def rotate(
        self,
        now: datetime,
        *,
        every: timedelta,
        lifetime: timedelta,
        propagation: timedelta = PROPAGATION,
        algorithm: Algorithm | None = None,
    ) -> Schedule:
        """The next key where the newest is `every` old, a time of retirement for those it replaces, and no dead ones.

        A key whose successor has begun to seal retires once the last session it can have sealed is over: `lifetime`
        after that beginning, and `propagation` later for clocks that differ. Doing it again changes nothing.
        """
        if not self.keys:
            raise ConfigurationError(f"there is no key to rotate; add one with: {ADD}")
        newest = max(self.keys, key=_age)
        standing = [each for each in self.keys if each.retires is None]
        rotated = self
        if not standing or now - max(standing, key=_age).added >= every:
            rotated = self.add(Key.generate(algorithm or newest.key.algorithm), now, propagation)
        margin = lifetime + propagation
        dated = [rotated._retired_by_successor(each, now, margin) for each in rotated.keys]
        return Schedule(tuple(each for each in dated if not each.has_retired(now)))

    def retire(self, id: str, at: datetime) -> Schedule:
        """With the key `id` retired from `at` on, and with it every session that is still under it.

        Raises `ConfigurationError` where there is no such key, and where no key without an end would be left.
        """
        if id not in {each.key.id for each in self.keys}:
            raise ConfigurationError(f"it holds no key with the id {id}")
        changed = tuple(replace(each, retires=at) if each.key.id == id else each for each in self.keys)
        if all(each.retires is not None for each in changed):
            raise ConfigurationError(f"no key would be left to seal after {id}; add one first with: {ADD}")
        before, after = (
            _primary([each for each in keys if not each.has_retired(at)], at) for keys in (self.keys, changed)
        )
        if before.key.id == id and after.retires is not None:  # which is before the sessions end that it would seal
            raise ConfigurationError(
                f"{after.key.id} would seal after {id}, and ends itself; add one first with: {ADD} --activate-in 0s"
            )
        return Schedule(changed)

    def _retired_by_successor(self, scheduled: ScheduledKey, now: datetime, margin: timedelta) -> ScheduledKey:
        # One that ends itself, because somebody said so, may leave the sealing to this one again.
        later = (each for each in self.keys if _age(each) > _age(scheduled) and each.retires is None)
        successor = min(later, key=_age, default=None)
        if scheduled.retires is not None or successor is None or successor.activates > now:
            return scheduled
        return replace(scheduled, retires=successor.activates + margin)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A key as it stands in a document. A misspelt `retires` must not be passed over."""

    key: str
    added: Annotated[datetime, msgspec.Meta(tz=True)]
    activates: Annotated[datetime, msgspec.Meta(tz=True)]
    retires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def scheduled(self) -> ScheduledKey:
        return ScheduledKey(key=Key.parse(self.key), added=self.added, activates=self.activates, retires=self.retires)


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[_Entry]


def _age(scheduled: ScheduledKey) -> tuple[datetime, datetime, str]:
    # The id decides between keys of one second: instances agree, in whatever order the file has them.
    return scheduled.activates, scheduled.added, scheduled.key.id


def _primary(live: list[ScheduledKey], now: datetime) -> ScheduledKey:
    active = [each for each in live if each.activates <= now]
    return max(active, key=_age) if active else min(live, key=_age)


def moment(now: float) -> datetime:
    """A time in seconds since the epoch as schedules have it."""
    return datetime.fromtimestamp(now, UTC)
