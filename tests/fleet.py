"""A fleet in one thread and no real time: instances that share a key file, each with a clock and delays of its own.

Every time is in whole seconds, and events of one second happen in the order write, read, request.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal

from harness import START
from key_readers import ScheduleReader

from cookiesession import Key, SessionManager
from cookiesession.events import Event, Opened, Rejected
from cookiesession.schedule import Schedule, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from key_readers import Reader

    from cookiesession.aead import Algorithm

SKEW: Final = 300
"""Seconds by which any clock, an instance's or the operator's, may be ahead or behind."""

TOLERANCE: Final = 60
"""Seconds: how far ahead of its own clock an instance takes a session, and may seal it again."""

# What a refusal says where the key is not at hand. A Fernet token names none: another Fernet key finds it forged.
WANTS_A_KEY: Final = frozenset({"unknown_key", "forged"})

_BY_CHANCE: Final = 20  # requests at any time, beside those around each event


@dataclass(frozen=True)
class Operation:
    """What the operator does, after a pause or (without one) when the keys change next by the operator's clock."""

    verb: Literal["rotate", "add", "withdraw"]
    skew: int
    pause: int | None = None
    algorithm: Algorithm | None = None


@dataclass(frozen=True)
class Plan:
    """A fleet and what happens to it. `activation` is how long before it seals a key is added by hand."""

    skews: tuple[int, ...]
    read_within: int
    lifetime: int
    every: int
    propagation: int
    activation: int
    rotation_lifetime: int
    operations: tuple[Operation, ...]
    seed: int

    def versions(self) -> Iterator[tuple[int, Schedule]]:
        """The contents of the key file, each with the time at which it is written."""
        now, schedule = START, Schedule().add(Key.generate(), moment(START), timedelta(0))
        yield now, schedule
        for operation in self.operations:
            coming = [each.timestamp() - operation.skew for each in schedule.boundaries()]
            later = [int(each) for each in coming if each > now]
            now = now + operation.pause if operation.pause is not None else min(later, default=now)
            before, schedule = schedule, self._after(operation, schedule, moment(now + operation.skew))
            if schedule != before:
                yield now, schedule

    def _after(self, operation: Operation, schedule: Schedule, now: datetime) -> Schedule:
        if operation.verb == "rotate":
            every, propagation = timedelta(seconds=self.every), timedelta(seconds=self.propagation)
            lifetime = timedelta(seconds=self.rotation_lifetime)
            return schedule.rotate(
                now, every=every, lifetime=lifetime, propagation=propagation, algorithm=operation.algorithm
            )
        if operation.verb == "add":
            key = Key.generate(operation.algorithm or "xaes-256-gcm")
            return schedule.add(key, now, timedelta(seconds=self.activation))
        # A key may be taken back as long as all will have read so before the first of them seals with it.
        still = now + timedelta(seconds=self.read_within + 2 * SKEW)
        unused = [each.key.id for each in schedule.keys if each.activates > still and not each.retires]
        return schedule.retire(unused[-1], now) if unused else schedule


@dataclass
class Client:
    """A browser and the session that it holds: the last of its cookies that arrived, and what is in it."""

    cookie: bytes
    times: tuple[datetime, datetime]
    count: int

    @property
    def ends(self) -> float:
        """The second at which its session is over."""
        return self.times[1].timestamp()


@dataclass(frozen=True)
class Loss:
    """A session that an instance refused for want of a key while it was still valid."""

    instance: int
    at: int
    left: float


@dataclass
class Fleet:
    """Instances with managers of their own, and the clients that hop between them."""

    plan: Plan
    reader: Callable[[Schedule, Callable[[], float]], Reader] = lambda schedule, _: ScheduleReader(schedule)
    now: int = START
    served: int = 0
    late: int = 0  # of those served: under a key that no longer seals there, or does not seal yet
    expired: int = 0
    losses: list[Loss] = field(default_factory=list)
    reported: list[Event] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def run(self) -> Fleet:
        """All that the plan says, and requests around each of its events and at other times."""
        self.random = Random(self.plan.seed)  # noqa: S311 - it is to be repeatable
        self.events: list[tuple[int, int, int, Callable[[], None]]] = []
        self.order = count()
        versions = list(self.plan.versions())
        self.schedule = versions[0][1]
        self.readers = [self.reader(self.schedule, self._clock(skew)) for skew in self.plan.skews]
        self.managers = [self._manager(*each) for each in zip(self.readers, self.plan.skews, strict=True)]
        for at, schedule in versions[1:]:
            self._at(at, 0, self._write, schedule)
            for reader in self.readers:
                self._at(at + self._delay(), 1, self._read, reader)
        self._plan_requests({boundary for _, schedule in versions for boundary in schedule.boundaries()})
        while self.events:
            self.now, _, _, act = heapq.heappop(self.events)
            act()
        return self

    def _plan_requests(self, boundaries: Iterable[datetime]) -> None:
        changes = [int(each.timestamp()) - skew for each in boundaries for skew in self.plan.skews]
        changes += [at for at, *_ in self.events]
        last = max(START, *changes)
        around = [at + self.random.choice((-1, -1, 0, 0, 1)) for at in changes for _ in range(2)]
        by_chance = [self.random.randint(START, last + self.plan.lifetime) for _ in range(_BY_CHANCE)]
        for at in around + by_chance:
            self._at(max(at, START), 2, self._request)

    def _at(self, at: int, rank: int, act: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (at, rank, next(self.order), lambda: act(*arguments)))

    def _delay(self) -> int:
        return self.random.choice((0, self.plan.read_within, self.random.randint(0, self.plan.read_within)))

    def _clock(self, skew: int) -> Callable[[], float]:
        return lambda: self.now + skew

    def _manager(self, reader: Reader, skew: int) -> SessionManager[dict[str, Any]]:
        return SessionManager(
            reader,
            lifetime=timedelta(seconds=self.plan.lifetime),
            on_event=self.reported.append,
            clock=self._clock(skew),
        )

    def _write(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def _read(self, reader: Reader) -> None:
        reader.read(self.schedule)

    def _request(self) -> None:
        if not self.clients or self.random.random() < 0.25:
            self._begin()
        client = self.random.choice(self.clients[-8:])
        for instance in self.random.sample(range(len(self.managers)), 2):
            self._visit(client, instance)

    def _begin(self) -> None:
        """A new client, who comes back in the last second of its session and in the first after it."""
        session = self.managers[self.random.randrange(len(self.managers))].session([])
        session.data["count"] = 1
        cookie = self._answer(session)
        assert cookie is not None
        client = Client(cookie, (session.created_at, session.expires_at), 1)
        self.clients.append(client)
        for seconds in (1, 0):
            instance = self.random.randrange(len(self.managers))
            at = int(client.ends) - seconds - self.plan.skews[instance]
            self._at(max(at, self.now), 2, self._visit, client, instance)

    def _visit(self, client: Client, instance: int) -> None:
        if not client.cookie:
            return
        self.reported.clear()
        session = self.managers[instance].session([(b"cookie", client.cookie)])
        data = session.data
        [event] = self.reported
        if isinstance(event, Rejected):
            self._refused(client, instance, event.reason)
            return
        assert isinstance(event, Opened)
        self.late += not event.primary
        assert (client.times, client.count) == ((session.created_at, session.expires_at), data["count"])
        self.served += 1
        if self.random.random() < 0.5:
            data["count"] += 1
        cookie = self._answer(session)
        if cookie is not None and self.random.random() < 0.75:  # else the response is lost on its way
            client.cookie, client.count = cookie, data["count"]

    def _refused(self, client: Client, instance: int, reason: str) -> None:
        """The cookie stays where clocks are to blame: the key has to be there when its time comes."""
        now = self.now + self.plan.skews[instance]
        if reason == "future":
            return
        client.cookie = b""
        if now >= client.ends:
            self.expired += 1
            return
        assert reason in WANTS_A_KEY, reason
        self.losses.append(Loss(instance, self.now, client.ends - now))

    def _answer(self, session: Any) -> bytes | None:
        """The cookie that a response sets, if it sets one."""
        lines = session._state.owner.commit(session)
        return lines[0][1].partition(b";")[0] if lines else None
