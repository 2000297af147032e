"""Codecs of models: what all of them share, upgrades, and what msgspec decodes straight into itself."""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, get_origin

import msgspec

from cookiesession.codec import DECODING_ERRORS, decode_plain
from cookiesession.errors import ConfigurationError, InvalidToken, UnencodableData
from cookiesession.events import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

Upgrade = Callable[[Any], Any]
"""From the plain data of an old session to new data, plain or as the model, or to None."""

_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")  # how msgspec ends the message of a validation error


def is_typed_dict(kind: Any) -> bool:
    """Whether a class is a `TypedDict`, of the standard library's or of typing_extensions."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


class ModelCodec(ABC, Generic[T]):
    """What the codecs of all models share. A subclass says how to encode, decode, validate and take apart."""

    def __init__(self, model: Any, upgrade: Upgrade | None) -> None:
        self._model = model
        self._class: type[T] = get_origin(model) or model
        self._name = self._class.__name__
        self._upgrade = upgrade
        self._is_dict = is_typed_dict(self._class)
        self._reporter = Reporter(None, time.monotonic)

    encode: Callable[[T], bytes]

    def default(self) -> T:
        """The data of a new session: the model, built without arguments."""
        return self._class()

    def decode(self, encoded: bytes, /) -> T:
        """The model of `encoded`, by way of `upgrade` where it is of an older shape. Raises `InvalidToken`."""
        try:
            return self.read(encoded)
        except InvalidToken as invalid:
            if self._upgrade is None or invalid.reason != "invalid":
                raise
            return self._upgraded(encoded, self._upgrade, invalid)

    @abstractmethod
    def read(self, encoded: bytes) -> T:
        """The model of `encoded`, of the present shape. Raises `InvalidToken`."""

    @abstractmethod
    def validate(self, plain: Any) -> T:
        """The model of plain Python data, or of itself. Raises `InvalidToken`."""

    @abstractmethod
    def entries(self, data: T) -> Iterable[tuple[str, Any]]:
        """The names and values of the fields of `data`."""

    def way(self, name: str) -> str:
        """`session.data.name`, or of a `TypedDict` `session.data["name"]`."""
        return f"session.data[{name!r}]" if self._is_dict else f"session.data.{name}"

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is of the model's type."""
        if not isinstance(data, dict if self._is_dict else self._class):
            raise TypeError(f"session.data is a {self._name}, not {type(data).__name__}")

    def same(self, encoded: bytes, kept: bytes) -> bool:
        """Whether `kept` holds the data of `encoded` after all: a set has no order, and a field may be new."""
        try:
            return encoded == self.encode(self.read(kept))
        except InvalidToken:
            return False

    def verify(self, data: T, encoded: bytes, kept: bytes) -> None:  # all of it: a field may depend on others
        """Raises `UnencodableData` unless `encoded` gives `data` again, rather than change a value in silence."""
        again, path = None, None
        try:
            again = self.read(encoded)
        except InvalidToken as invalid:
            path = invalid.path
        if again is None:  # raised here, since a ValidationError carries the values and would be the context
            where = self.way(path) if path else "session.data"
            raise UnencodableData(f"{where} would not be accepted when it comes back")
        if again == data:
            return
        new = dict(self.entries(again))
        for name, value in self.entries(data):
            if not _alike(value, new.get(name)):
                raise UnencodableData(f"{self.way(name)} would come back as something else")
        if type(again) is not type(data):
            raise UnencodableData(f"session.data would come back as {self._name}, and is {type(data).__name__}")

    def _upgraded(self, encoded: bytes, upgrade: Upgrade, invalid: InvalidToken) -> T:
        try:
            new = upgrade(decode_plain(encoded))
        except Exception as error:
            # Without the traceback, whose frames hold the session's values for whoever collects them; and at a bounded
            # rate, since a client may bring an old session as often as it likes.
            self._reporter.log(ModelCodec, logging.ERROR, "upgrade raised %s", type(error).__name__)
            raise invalid from error
        if new is None:
            raise invalid
        return self.validate(new)


class MsgspecCodec(ModelCodec[T]):
    """A `msgspec.Struct`, a dataclass or a `TypedDict`, of types that msgspec knows, decoded straight into itself."""

    def __init__(self, model: Any, upgrade: Upgrade | None = None) -> None:
        super().__init__(model, upgrade)
        kind: Any = msgspec.inspect.type_info(model)
        self._fields = [field.name for field in kind.fields]
        if missing := [field.name for field in kind.fields if field.required]:
            raise needs_defaults(self._name, missing)
        self.encode = msgspec.msgpack.Encoder().encode
        self._read = msgspec.msgpack.Decoder(model).decode

    def read(self, encoded: bytes) -> T:
        """The model of `encoded`."""
        try:
            return cast("T", self._read(encoded))
        except msgspec.ValidationError as error:
            raise InvalidToken("invalid", _path(error)) from error
        except DECODING_ERRORS as error:
            raise InvalidToken("undecodable") from error
        except Exception as error:  # whatever the model's own code raises
            raise InvalidToken("invalid") from error

    def validate(self, plain: Any) -> T:
        """The model of plain data, or of itself."""
        try:
            return cast("T", msgspec.convert(plain, self._model))
        except msgspec.ValidationError as error:
            raise InvalidToken("invalid", _path(error)) from error
        except Exception as error:  # whatever the model's own code raises
            raise InvalidToken("invalid") from error

    def entries(self, data: T) -> Iterable[tuple[str, Any]]:
        """The fields of `data`."""
        if isinstance(data, dict):
            return data.items()
        return [(name, getattr(data, name)) for name in self._fields]


def trouble(model: Any) -> str:
    """What msgspec cannot do with a model; nothing if it can."""
    try:
        msgspec.msgpack.Decoder(model)
        kind: Any = msgspec.inspect.type_info(model)
    except (TypeError, NameError) as error:  # the latter for what is imported under TYPE_CHECKING
        return str(error)
    strange = [field.name for field in kind.fields if _is_strange(field.type)]
    return f"msgspec cannot read back the type of {strange[0]}" if strange else ""


def needs_defaults(model: str, fields: Iterable[str]) -> ConfigurationError:
    """The error for a model that a new session could not begin with."""
    return ConfigurationError(
        f"a session's model is built without arguments, so that a handler never sees None; "
        f"give {model} a default for: {', '.join(fields)}"
    )


def _alike(one: object, other: object) -> bool:
    # NaN is not equal to itself.
    return one == other or (type(one) is type(other) and repr(one) == repr(other))


def _is_strange(kind: object) -> bool:
    """Whether msgspec meets, anywhere in a type, a class that it knows nothing of."""
    if isinstance(kind, msgspec.inspect.CustomType):
        return True
    inner = (getattr(kind, name, ()) for name in ("item_type", "item_types", "key_type", "value_type", "types"))
    return any(_is_strange(part) for found in inner for part in (found if isinstance(found, tuple) else (found,)))


def _path(error: Exception) -> str | None:
    found = _PATH.search(str(error))
    return found["path"] if found else None
