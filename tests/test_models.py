"""Tests of `models.py` and `validation.py`: typed sessions, by way of the manager as a user has them."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypedDict, TypeVar
from uuid import UUID, uuid4

import msgspec
import pytest
import typing_extensions
from harness import START, Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from cookiesession import ConfigurationError, Key, KeyRing, Session, SessionManager, UnencodableData
from cookiesession.events import Event, LateWrite, Rejected

if TYPE_CHECKING:
    from fractions import Fraction

RING = KeyRing(Key.generate())
T = TypeVar("T")


class Color(enum.Enum):
    """An enumeration that has no order."""

    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    """One of numbers."""

    LOW = 1
    HIGH = 2


class Address(BaseModel):
    """A nested model."""

    city: str = ""
    lines: list[str] = []


class Cat(BaseModel):
    """One side of a discriminated union."""

    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    """The other."""

    kind: Literal["dog"] = "dog"
    tricks: set[str] = set()


class Everything(BaseModel):
    """A model with every type that must survive."""

    aware: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    naive: datetime = datetime(2026, 1, 1)  # noqa: DTZ001 - naive on purpose
    day: date = date(2026, 1, 1)
    clock: time = time(12, 30)
    span: timedelta = timedelta(0)
    uuid: UUID = UUID(int=0)
    amount: Decimal = Decimal(0)
    color: Color = Color.RED
    level: Level = Level.LOW
    raw: bytes = b""
    colors: set[Color] = set()
    words: frozenset[str] = frozenset()
    pair: tuple[int, str] = (0, "")
    many: tuple[int, ...] = ()
    numbers: dict[int, str] = {}
    by_uuid: dict[UUID, int] = {}
    nested: Address = Address()
    maybe: Address | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    secret: SecretStr = SecretStr("")
    secret_bytes: SecretBytes = SecretBytes(b"")
    ip: IPv4Address = IPv4Address("127.0.0.1")
    ip6: IPv6Address = IPv6Address("::1")
    url: HttpUrl = HttpUrl("https://example.org/")
    path: Path = Path("/")
    ratio: float = 0.0


class Strict(Everything):
    """The same, strictly."""

    model_config = ConfigDict(strict=True)


class Visitor(BaseModel):
    """The README's."""

    user_id: int | None = None
    cart: list[str] = []


class VisitorStruct(msgspec.Struct):
    """The same as a Struct."""

    user_id: int | None = None
    cart: list[str] = []


@dataclasses.dataclass
class VisitorDataclass:
    """The same as a dataclass."""

    user_id: int | None = None
    cart: list[str] = dataclasses.field(default_factory=list)


@pydantic_dataclass
class VisitorPydanticDataclass:
    """The same as a dataclass of pydantic's."""

    user_id: int | None = None
    cart: list[str] = dataclasses.field(default_factory=list)


class VisitorDict(TypedDict, total=False):
    """The same as a TypedDict."""

    user_id: int | None
    cart: list[str]


@dataclasses.dataclass
class Network:
    """A dataclass with a type that msgspec does not know, and pydantic does."""

    address: IPv4Address = dataclasses.field(default_factory=lambda: IPv4Address("127.0.0.1"))


class NetworkDict(typing_extensions.TypedDict, total=False):
    """A TypedDict likewise."""

    address: IPv4Address


class TotalNetworkDict(typing_extensions.TypedDict):
    """One that is total."""

    address: IPv4Address


@pydantic_dataclass
class AmbiguousDataclass:
    """A dataclass with values that MessagePack cannot tell from others."""

    either: UUID | str = ""


CLASSES: list[Any] = [Visitor, VisitorStruct, VisitorDataclass, VisitorPydanticDataclass]


class Site:
    """A manager with a jar, as in the manager's tests."""

    def __init__(self, model: Any, jar: dict[bytes, bytes] | None = None, **options: Any) -> None:
        self.events: list[Event] = []
        all_options: dict[str, Any] = {"clock": Clock(), "on_event": self.events.append, **options}
        self.manager: SessionManager[Any] = SessionManager(RING, model=model, **all_options)
        self.jar = dict(jar or {})

    def open(self) -> Session[Any]:
        pairs = b"; ".join(b"%s=%s" % pair for pair in self.jar.items())
        return self.manager.session([(b"cookie", pairs)] if pairs else [])

    def save(self, session: Session[Any]) -> int:
        headers = asyncio.run(self.manager.save(session))
        for _, line in headers:
            name, _, rest = line.partition(b"=")
            self.jar[name] = rest.partition(b";")[0]
        return len(headers)

    def store(self, data: Any) -> Any:
        """`data` as the next request reads it."""
        session = self.open()
        session.data = data
        self.save(session)
        return self.open().data

    def rejected(self) -> list[Rejected]:
        return [event for event in self.events if isinstance(event, Rejected)]


# Every kind of model


@pytest.mark.parametrize("model", CLASSES, ids=lambda model: model.__name__)
def test_a_handler_gets_the_model_and_its_changes_are_kept(model: Any) -> None:
    """From the first request on, nested changes included; an equal rewrite writes nothing."""
    site = Site(model)

    session = site.open()
    fresh = session.data
    session.data.user_id = 42
    session.data.cart.append("tea")
    written = site.save(session)
    later = site.open()
    later.data.cart = list(later.data.cart)
    unchanged = site.save(later)

    assert model() != fresh
    assert type(fresh) is model
    assert model(user_id=42, cart=["tea"]) == later.data
    assert (1, 0) == (written, unchanged)


def test_a_typed_dict_is_a_dict_with_a_schema() -> None:
    """And `session.data` is a plain one."""
    site = Site(VisitorDict)

    again = site.store({"user_id": 42, "cart": ["tea"]})

    assert {"user_id": 42, "cart": ["tea"]} == again
    assert type(again) is dict


def test_a_dataclass_of_types_that_only_pydantic_knows_is_validated_by_pydantic() -> None:
    """Where msgspec knows them all, it decodes straight into the dataclass."""
    again = Site(Network).store(Network(IPv4Address("10.0.0.1")))

    assert Network(IPv4Address("10.0.0.1")) == again


def test_a_typed_dict_of_such_types_too() -> None:
    """Made with typing_extensions, as pydantic asks for before Python 3.12."""
    again = Site(NetworkDict).store({"address": IPv4Address("10.0.0.1")})

    assert {"address": IPv4Address("10.0.0.1")} == again


def test_a_typed_session_that_was_cleared_is_a_new_one() -> None:
    """With the model's defaults."""
    site = Site(Visitor)
    site.store(Visitor(user_id=42))
    session = site.open()
    before = session.id

    session.clear()

    assert Visitor() == session.data
    assert before != session.id
    assert 1 == site.save(session)


def test_a_session_that_only_looks_at_its_model_has_no_cookie() -> None:
    """Nor has one whose data is the default again."""
    site = Site(Visitor)
    looked = site.open()
    looked.mark_accessed()
    first = site.save(looked)
    site.store(Visitor(user_id=1))
    session = site.open()

    session.data = Visitor()
    site.save(session)

    assert 0 == first
    assert b"" == site.jar[b"__Host-session"]


class Numbered(BaseModel):
    """A model whose default is a new one every time."""

    number: UUID = Field(default_factory=uuid4)


def test_a_default_that_differs_each_time_is_not_written_for_a_mere_look() -> None:
    """It is stored once somebody changes it."""
    site = Site(Numbered)
    session = site.open()
    session.mark_accessed()

    looked = site.save(session)
    session.data.number = UUID(int=7)
    changed = site.save(session)

    assert (0, 1) == (looked, changed)
    assert UUID(int=7) == site.open().data.number


class Frozen(BaseModel):
    """A model that is changed by assigning another."""

    model_config = ConfigDict(frozen=True)
    name: str = ""


def test_a_frozen_model_is_changed_by_assignment() -> None:
    """To `session.data`."""
    assert Frozen(name="ada") == Site(Frozen).store(Frozen(name="ada"))


class Box(BaseModel, Generic[T]):
    """A generic model."""

    item: T | None = None


class Numbers(RootModel[list[int]]):
    """A model that is not a map."""

    root: list[int] = []


@dataclasses.dataclass
class Pair(Generic[T]):
    """A generic dataclass."""

    items: list[T] = dataclasses.field(default_factory=list)


class Loose(BaseModel):
    """A model that keeps fields it does not know."""

    model_config = ConfigDict(extra="allow")
    name: str = ""


class Aliased(BaseModel):
    """A model whose fields have other names outside, and are validated only by them."""

    model_config = ConfigDict(alias_generator=lambda name: name.upper(), extra="forbid")
    name: str = ""
    nested: Address = Field(Address(), validation_alias="in", serialization_alias="out")


class Masked(BaseModel):
    """A model that shows something else to the world."""

    card: str = ""

    @field_serializer("card")
    def _mask(self, card: str) -> str:
        return "*" * len(card)

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def last(self) -> str:
        """The last four digits."""
        return self.card[-4:]


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (Box[int], Box[int](item=3)),
        (Numbers, Numbers([1, 2, 3])),
        (Pair[int], Pair([1, 2])),
        (Loose, Loose.model_validate({"name": "a", "more": 1})),
        (Aliased, Aliased.model_validate({"NAME": "a", "in": {"city": "b"}})),
        (Masked, Masked(card="4242424242424242")),
        (Everything, Everything(pet=Dog(tricks={"sit", "roll"}))),
    ],
    ids=["generic", "root", "generic dataclass", "extra", "aliases", "serializers and computed", "union"],
)
def test_what_pydantic_can_do_survives(model: Any, data: Any) -> None:
    """The values themselves are stored, whatever names and masks the model shows outside."""
    assert data == Site(model).store(data)


class Private(BaseModel):
    """A model with an attribute of the request's own."""

    name: str = ""
    _cache: list[int] = PrivateAttr(default_factory=list)


def test_private_attributes_begin_anew() -> None:
    """They are not part of the data, and changing one writes nothing."""
    site = Site(Private)
    site.store(Private(name="ada"))

    session = site.open()
    session.data._cache.append(1)
    written = site.save(session)
    session.data.name = "bob"
    site.save(session)

    assert 0 == written
    assert [] == site.open().data._cache
    assert "bob" == site.open().data.name


_moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - made aware below
_fields: dict[str, st.SearchStrategy[Any]] = {
    "aware": st.builds(
        lambda moment, hours: moment.replace(tzinfo=timezone(timedelta(hours=hours))), _moments, st.integers(-12, 12)
    ),
    "naive": _moments,
    "day": st.dates(),
    "clock": st.times(),
    "span": st.timedeltas(timedelta(days=-4000), timedelta(days=4000)),
    "uuid": st.uuids(),
    "amount": st.decimals(allow_nan=False, allow_infinity=False, places=4),
    "color": st.sampled_from(Color),
    "level": st.sampled_from(Level),
    "raw": st.binary(max_size=20),
    "colors": st.sets(st.sampled_from(Color)),
    "words": st.frozensets(st.text(max_size=5), max_size=4),
    "pair": st.tuples(st.integers(-(2**63), 2**63), st.text(max_size=5)),
    "many": st.lists(st.integers(0, 9), max_size=3).map(tuple),
    "numbers": st.dictionaries(st.integers(-5, 5), st.text(max_size=3), max_size=3),
    "by_uuid": st.dictionaries(st.uuids(), st.integers(0, 5), max_size=2),
    "nested": st.builds(Address, city=st.text(max_size=5), lines=st.lists(st.text(max_size=3), max_size=2)),
    "maybe": st.none() | st.builds(Address),
    "pet": st.builds(Cat, lives=st.integers(0, 9)) | st.builds(Dog, tricks=st.sets(st.text(max_size=3), max_size=3)),
    "secret": st.text(max_size=5).map(SecretStr),
    "secret_bytes": st.binary(max_size=5).map(SecretBytes),
    "ip": st.ip_addresses(v=4),
    "ip6": st.ip_addresses(v=6),
    "url": st.sampled_from([HttpUrl("https://a.example/b?c=d#e"), HttpUrl("http://[::1]:8080/")]),
    "path": st.sampled_from([Path("/a/b"), Path("c.txt")]),
    "ratio": st.floats(),
}


@pytest.mark.parametrize("model", [Everything, Strict], ids=["lax", "strict"])
@given(fields=st.fixed_dictionaries(_fields))
@settings(max_examples=150, deadline=None)
def test_every_type_survives_exactly(model: type[Everything], fields: dict[str, Any]) -> None:
    """In value and in type, in a lax and in a strict model."""
    site = Site(model, compress=True)
    data = model(**fields)

    again = site.store(data)
    session = site.open()
    session.mark_accessed()

    for name, value in fields.items():
        got = getattr(again, name)
        assert type(got) is type(value)
        assert value == got or repr(value) == repr(got)  # NaN is not equal to itself
    assert 0 == site.save(session)


# What cannot survive


class Ambiguous(BaseModel):
    """Models with values that MessagePack cannot tell from others."""

    either: UUID | str = ""
    anything: Any = None
    parsed: Json[list[int]] | None = None
    one: Address | Cat = Address()
    number: int = 0


class Unknown:
    """What pydantic knows nothing of."""


class AnyStruct(msgspec.Struct):
    """A Struct whose field says nothing of its type."""

    anything: Any = None


class More(Visitor):
    """More than the model says."""

    more: int = 0


class Same(Visitor):
    """No more than the model says, but another class."""


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (Ambiguous, Ambiguous(either=UUID(int=1)), r"session\.data\.either would come back as something else"),
        (Ambiguous, Ambiguous(anything=(1, 2)), r"session\.data\.anything would come back"),
        (Ambiguous, Ambiguous.model_validate({"parsed": "[1]"}), r"session\.data\.parsed would not be accepted"),
        (Ambiguous, Ambiguous(number=2**70), r"session\.data\.number cannot be encoded"),
        (Ambiguous, Ambiguous(anything=object()), r"session\.data\.anything cannot be encoded"),
        (Ambiguous, Ambiguous(anything=Unknown()), r"anything cannot be encoded: .* of type Unknown is unsupported"),
        (AnyStruct, AnyStruct({1, 2}), r"session\.data\.anything would come back"),
        (AnyStruct, AnyStruct(object()), r"session\.data\.anything cannot be encoded"),
        (Visitor, More(more=1), r"session\.data\.more would come back"),
        (Visitor, Same(user_id=1), r"session\.data would come back as Visitor, and is Same"),
        (AmbiguousDataclass, AmbiguousDataclass(UUID(int=1)), r"session\.data\.either would come back"),
        (VisitorDict, {"user_id": object()}, r"session\.data\['user_id'\] cannot be encoded"),
        (NetworkDict, {"address": object()}, r"session\.data\['address'\] cannot be encoded"),
        (VisitorDict, {"user_id": "x"}, r"session\.data\['user_id'\] would not be accepted|session\.data would not"),
    ],
    ids=[
        "union",
        "tuple",
        "Json",
        "int",
        "object",
        "unknown",
        "set",
        "in a Struct",
        "more",
        "subclass",
        "dataclass",
        "object in dict",
        "object in pydantic dict",
        "dict",
    ],
)
def test_what_would_change_in_silence_is_refused_by_name(model: Any, data: Any, message: str) -> None:
    """At save, before anything is sent, and without the value or an error that carries it."""
    site = Site(model)
    session = site.open()
    session.data = data

    with pytest.raises(UnencodableData, match=message) as caught:
        site.save(session)

    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert {} == site.jar


@pytest.mark.parametrize("model", [*CLASSES, VisitorDict], ids=lambda model: model.__name__)
def test_data_of_another_type_is_refused_at_once(model: Any) -> None:
    """By its type and not its value."""
    session = Site(model).open()

    with pytest.raises(TypeError, match=f"session.data is a {model.__name__}, not str"):
        session.data = "hunter2"


# What cannot be a model


class NoDefaults(BaseModel):
    """Two fields without a default."""

    user_id: int
    name: str = ""
    cart: list[str]


class NoDefaultsStruct(msgspec.Struct):
    """Likewise."""

    user_id: int
    cart: list[str]


@dataclasses.dataclass
class NoDefaultsDataclass:
    """Likewise."""

    user_id: int
    cart: list[str]


@pydantic_dataclass
class NoDefaultsPydanticDataclass:
    """Likewise."""

    user_id: int
    cart: list[str]


class NoDefaultsDict(TypedDict):
    """Likewise: a total one."""

    user_id: int
    cart: list[str]


@pytest.mark.parametrize(
    "model",
    [NoDefaults, NoDefaultsStruct, NoDefaultsDataclass, NoDefaultsPydanticDataclass, NoDefaultsDict],
    ids=lambda model: model.__name__,
)
def test_a_model_without_defaults_is_refused_with_its_fields(model: Any) -> None:
    """So that a handler never sees None."""
    with pytest.raises(ConfigurationError, match=f"give {model.__name__} a default for: ") as caught:
        SessionManager(RING, model=model)

    assert {"user_id", "cart"} == set(str(caught.value).rpartition(": ")[2].split(", "))


def test_a_total_typed_dict_of_pydantics_is_refused_too() -> None:
    """By the same rule."""
    with pytest.raises(ConfigurationError, match="give TotalNetworkDict a default for: address"):
        SessionManager(RING, model=TotalNetworkDict)


class Strange(msgspec.Struct):
    """A Struct with a type that msgspec does not know."""

    many: dict[str, list[IPv4Address]] = {}


class Clash(msgspec.Struct):
    """A Struct with a union that msgspec cannot tell apart."""

    either: UUID | str = ""


class Odd:
    """A class of no kind."""


@dataclasses.dataclass
class Hopeless:
    """A dataclass with a type that nobody knows."""

    odd: Odd | None = None


class Unkept(BaseModel):
    """A model that begins with what cannot be encoded."""

    handle: Any = object()


@dataclasses.dataclass
class UnkeptDataclass:
    """Likewise."""

    handle: Any = dataclasses.field(default_factory=object)


@pytest.mark.parametrize("model", [Unkept, UnkeptDataclass], ids=lambda model: model.__name__)
def test_default_that_cannot_be_encoded_is_refused_at_start_up(model: Any) -> None:
    """With the field."""
    with pytest.raises(ConfigurationError, match=r"^a new session could not be saved: session\.data\.handle cannot be"):
        SessionManager(RING, model=model)


class Unseen(msgspec.Struct):
    """A Struct with a type that is imported for the type checker alone."""

    share: Fraction | None = None


@dataclasses.dataclass
class UnseenDataclass:
    """Likewise."""

    share: Fraction | None = None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unseen, "Unseen cannot be a session's model: name 'Fraction' is not defined"),
        (UnseenDataclass, "UnseenDataclass cannot be a session's model: "),
        (Strange, "Strange cannot be a session's model: msgspec cannot read back the type of many"),
        (Clash, "Clash cannot be a session's model: "),
        (Hopeless, "Hopeless cannot be a session's model: "),
        (Odd, "model is a pydantic BaseModel"),
        (dict, "model is a pydantic BaseModel"),
        (list[int], "model is a pydantic BaseModel"),
        ("Visitor", "model is a pydantic BaseModel"),
        (Visitor(), "model is a pydantic BaseModel"),
    ],
    ids=["unseen", "unseen dataclass", "Struct", "union", "dataclass", "class", "dict", "list", "name", "instance"],
)
def test_what_is_no_model_is_refused_at_start_up(model: Any, message: str) -> None:
    """With what would be one."""
    with pytest.raises(ConfigurationError, match=message):
        SessionManager(RING, model=model)


def test_an_upgrade_needs_a_model() -> None:
    """Without one there is nothing to upgrade to."""
    with pytest.raises(ConfigurationError, match="upgrade goes with a model"):
        SessionManager(RING, model=None, upgrade=dict)  # type: ignore[call-overload]  # the checker says so too


# Old sessions meet new code


class Old(BaseModel):
    """What was deployed yesterday."""

    name: str = ""
    age: int = 0
    tags: list[str] = []


class Added(BaseModel):
    """A field more, with a default."""

    name: str = ""
    age: int = 0
    tags: list[str] = []
    city: str = "Turin"


class Removed(BaseModel):
    """A field less."""

    name: str = ""


class Renamed(BaseModel):
    """A field under another name, and none that is unknown."""

    model_config = ConfigDict(extra="forbid")
    full_name: str = ""
    age: int = 0


class Retyped(BaseModel):
    """A field of another type."""

    name: str = ""
    age: int = 0
    tags: dict[str, int] = {}


class RetypedStruct(msgspec.Struct):
    """Likewise as a Struct."""

    name: str = ""
    age: int = 0
    tags: dict[str, int] = {}


def _old_jar() -> dict[bytes, bytes]:
    site = Site(Old)
    site.store(Old(name="ada", age=36, tags=["x"]))
    return site.jar


def _rename(old: Any) -> Any:
    return {"full_name": old["name"], "age": old["age"]}


def test_a_field_that_was_added_has_its_default() -> None:
    """And reading such a session writes nothing."""
    site = Site(Added, _old_jar())

    session = site.open()
    data = session.data

    assert Added(name="ada", age=36, tags=["x"], city="Turin") == data
    assert 0 == site.save(session)


@pytest.mark.parametrize("change", [False, True], ids=["read", "changed late"])
def test_a_field_that_was_added_is_no_late_write(change: bool) -> None:
    """Though it is not in the cookie's bytes; a real change after the response has started still is one."""
    site = Site(Added, _old_jar())
    session = site.open()
    session.mark_accessed()
    site.save(session)

    if change:
        session.data.tags.append("late")
    asyncio.run(site.manager.save_late(session))

    assert change == (LateWrite() in site.events)


def test_a_field_that_was_removed_is_forgotten() -> None:
    """Where the model does not forbid it."""
    assert Removed(name="ada") == Site(Removed, _old_jar()).open().data


@pytest.mark.parametrize("model", [Retyped, RetypedStruct])
def test_a_session_that_no_longer_fits_begins_anew(model: Any) -> None:
    """With an event that names the field, and no value."""
    site = Site(model, _old_jar())

    session = site.open()

    assert model() == session.data
    assert session.is_new
    assert [Rejected(reason="invalid", path="tags")] == site.rejected()


def test_a_field_that_was_renamed_is_upgraded_and_kept_so() -> None:
    """The new shape is written with the next response, so that `upgrade` can go one lifetime later."""
    site = Site(Renamed, _old_jar(), upgrade=_rename)

    session = site.open()
    data = session.data
    written = site.save(session)
    without = Site(Renamed, site.jar).open().data

    assert Renamed(full_name="ada", age=36) == data == without
    assert not session.is_new
    assert 1 == written


@pytest.mark.parametrize("model", [Retyped, RetypedStruct])
def test_an_upgrade_may_return_the_model_itself(model: Any) -> None:
    """Or plain data, which is validated."""
    jar = _old_jar()

    itself = Site(model, jar, upgrade=lambda old: model(name=old["name"], tags={"x": 1})).open().data
    plain = Site(model, jar, upgrade=lambda old: {**old, "tags": {"x": 1}}).open().data

    assert model(name="ada", tags={"x": 1}) == itself
    assert model(name="ada", age=36, tags={"x": 1}) == plain


async def _later(old: Any) -> Any:
    return old


@pytest.mark.parametrize("upgrade", [_later, {"uid": "user_id"}], ids=["async", "no function"])
def test_an_upgrade_that_cannot_be_called_is_refused_at_construction(upgrade: Any) -> None:
    """It would end every old session, and be noticed by those who are signed out."""
    with pytest.raises(ConfigurationError, match="upgrade is a plain function"):
        Site(Renamed, upgrade=upgrade)


def _raises(_: Any) -> Any:
    raise LookupError("hunter2")


@pytest.mark.parametrize(
    "upgrade",
    [lambda _: None, lambda _: {"tags": "wrong"}, lambda _: [1], _raises],
    ids=["gives up", "wrong", "another shape", "raises"],
)
@pytest.mark.parametrize("model", [Retyped, RetypedStruct])
def test_an_upgrade_that_fails_gives_a_fresh_session(
    model: Any, upgrade: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a 500, and what it raised is logged by its type alone."""
    site = Site(model, _old_jar(), upgrade=upgrade)

    data = site.open().data

    assert model() == data
    assert ["invalid"] == [event.reason for event in site.rejected()]
    assert "hunter2" not in caplog.text
    assert (upgrade is _raises) == any(record.levelno == logging.ERROR for record in caplog.records)


def test_an_old_session_that_comes_again_and_again_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has one for which `upgrade` raises can send it as often as they like."""
    site = Site(Retyped, _old_jar(), upgrade=_raises)

    for _ in range(1000):
        site.open().mark_accessed()

    assert 1000 == len(site.rejected())
    assert ["upgrade raised LookupError"] == [text for text in caplog.messages if "upgrade" in text]


@pytest.mark.parametrize(
    "plain",
    [
        [1, 2],
        "text",
        None,
        7,
        {"tags": {"x": "y"}},
        {"age": "hunter2"},
        {"name": {"deep": [[[["hunter2"]]]]}},
    ],
    ids=["list", "str", "None", "int", "nested", "text for int", "map for text"],
)
@pytest.mark.parametrize("model", [Retyped, RetypedStruct, VisitorDict, VisitorDataclass])
def test_sealed_data_of_any_shape_gives_a_session(model: Any, plain: Any) -> None:
    """Case D52: a fresh one where it does not fit, with an event that shows no value."""
    from test_manager import NAME, _payload, _sealed  # noqa: PLC0415 - the one use here

    from cookiesession.payload import pack  # noqa: PLC0415 - likewise

    events: list[Event] = []
    manager: SessionManager[Any] = SessionManager(RING, model=model, clock=lambda: START, on_event=events.append)
    token = _sealed(pack(_payload(msgspec.msgpack.encode(plain))), key=RING.primary)

    data = manager.session([(b"cookie", NAME + b"=" + token)]).data

    assert isinstance(data, dict if model is VisitorDict else model)
    assert "hunter2" not in repr(events)


def test_a_megabyte_of_nesting_within_the_limit_gives_a_session() -> None:
    """Case D49, through a model: compressed, so that it fits."""
    from test_manager import NAME, _payload, _sealed  # noqa: PLC0415 - the one use here

    from cookiesession.payload import pack  # noqa: PLC0415 - likewise

    for model in (Loose, AnyStruct):
        manager: SessionManager[Any] = SessionManager(RING, model=model, clock=lambda: START)
        deep = b"\x81\xa8anything" + b"\x91" * 200_000 + b"\xc0"
        token = _sealed(pack(_payload(deep), compress=True), key=RING.primary)

        session = manager.session([(b"cookie", NAME + b"=" + token)])

        assert model() == session.data


class Priced(BaseModel):
    """A nested model with mappings, whose keys are data."""

    deep: dict[str, dict[str, list[Address]]] = {}
    wide: dict[int, list[int | Address]] = {}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"deep": {"ada@example.org": {"city": [{"city": ["wrong"]}]}}}, "deep.[...].city.0.city"),
        ({"wide": {4929123412341234: [1, "wrong"]}}, "wide.[...].1.[...]"),
        ({"wide": {4929123412341234: [1, {"city": ["wrong"]}]}}, "wide.[...].1.[...]"),
        ({"wide": {"ada@example.org": []}}, "wide.[...].[...]"),
        ({"wide": {4929123412341234: {5: "wrong"}}}, "wide.[...]"),
        ([4929123412341234], ""),
    ],
    ids=["text", "number", "alternative", "key", "no list", "no map"],
)
def test_the_path_of_a_refused_field_shows_no_key_of_a_mapping(data: Any, path: str) -> None:
    """Keys may be data, such as e-mail addresses or numbers of cards; names of fields and positions alone are told."""
    from test_manager import NAME, _payload, _sealed  # noqa: PLC0415 - the one use here

    from cookiesession.payload import pack  # noqa: PLC0415 - likewise

    events: list[Event] = []
    manager = SessionManager(RING, model=Priced, clock=lambda: START, on_event=events.append)
    token = _sealed(pack(_payload(msgspec.msgpack.encode(data))), key=RING.primary)

    manager.session([(b"cookie", NAME + b"=" + token)]).mark_accessed()

    assert [Rejected(reason="invalid", path=path)] == events


class Careless(BaseModel):
    """A model whose own code fails in its own way."""

    name: str = ""

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        return {"": ""}[name]


@dataclasses.dataclass
class CarelessDataclass:
    """Likewise."""

    name: str = ""

    def __post_init__(self) -> None:
        {"": ""}[self.name]


@pytest.mark.parametrize("model", [Careless, CarelessDataclass])
def test_a_model_whose_own_code_raises_gives_a_fresh_session(model: Any) -> None:
    """Whatever it raises: a KeyError is no 500 either. The same for what `upgrade` makes."""
    jar = _old_jar()

    plainly = Site(model, jar)
    upgraded = Site(model, jar, upgrade=lambda old: old)

    assert model() == plainly.open().data == upgraded.open().data
    assert ["invalid"] == [event.reason for event in plainly.rejected()]
