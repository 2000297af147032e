"""Codecs of models that pydantic validates: `BaseModel`, dataclasses and `TypedDict`. Imported when one is used."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pydantic

from cookiesession import codec
from cookiesession.errors import ConfigurationError, InvalidToken
from cookiesession.models import ModelCodec, is_typed_dict, needs_defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cookiesession.models import Upgrade

T = TypeVar("T")


class PydanticCodec(ModelCodec[T]):
    """A model that pydantic validates on the way in.

    The values themselves are encoded, not what a serializer makes of them, and are validated by field name. So aliases,
    computed fields, field serializers and masks such as `SecretStr`'s do not come between a session and its data.
    Private attributes are the request's own and begin anew with each.
    """

    def __init__(self, model: Any, upgrade: Upgrade | None = None) -> None:
        super().__init__(model, upgrade)
        self.encode = codec.encoder(_plain)
        try:
            adapter = pydantic.TypeAdapter(model)
            self._validate = adapter.validator.validate_python  # of a class that is not defined yet there is none
            self._names = frozenset(_field_names(adapter.core_schema))
            default = self.default()
            if self._is_dict:
                self.validate(default)
        except pydantic.errors.PydanticUserError as error:
            raise ConfigurationError(f"{self._name} cannot be a session's model: {error.message}") from error
        except (pydantic.ValidationError, InvalidToken, TypeError) as error:
            raise needs_defaults(self._name, _required(model)) from error

    def read(self, encoded: bytes) -> T:
        """The model of `encoded`."""
        return self.validate(codec.decode_plain(encoded))

    def validate(self, plain: Any) -> T:
        """The model of plain data, or of itself."""
        try:
            # Not strict, so that a strict model gets its UUID from text and its set from a list.
            return cast("T", self._validate(plain, strict=False, by_alias=False, by_name=True))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise InvalidToken("invalid", path=self._path(first["loc"], plain)) from error
        except Exception as error:  # whatever the model's own validators raise
            raise InvalidToken("invalid") from error

    def entries(self, data: T) -> Iterable[tuple[str, Any]]:
        """The fields of `data`."""
        if isinstance(data, pydantic.BaseModel):
            return {**data.__dict__, **(data.__pydantic_extra__ or {})}.items()
        if isinstance(data, dict):
            return data.items()
        return [(field.name, getattr(data, field.name)) for field in dataclasses.fields(cast("Any", data))]

    def _path(self, location: Iterable[int | str], value: Any) -> str:
        """A path into `value`. A part may also be the key of a mapping, which is data and not to be told."""
        shown = []
        for part in location:
            is_position = isinstance(part, int) and isinstance(value, list)
            shown.append(str(part) if is_position or part in self._names else "[...]")
            value = _inside(value, part)
        return ".".join(shown)


def _field_names(schema: Any) -> Iterator[str]:
    """The names of all fields in a core schema, at any depth."""
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from _field_names(part)
    elif isinstance(schema, dict):
        fields = schema.get("fields", ())
        yield from (field["name"] if isinstance(field, dict) else field for field in fields)  # of a map, a list, names
        for part in schema.values():
            yield from _field_names(part)


def _inside(value: Any, part: int | str) -> Any:
    """What a part of a path leads to; `value` itself where the part names an alternative, such as one of a union."""
    if isinstance(value, list):
        return value[part] if isinstance(part, int) else value
    return value.get(part, value) if isinstance(value, dict) else value


def _plain(value: Any) -> object:
    """What MessagePack can hold of a value that it cannot; called again for what is inside."""
    if isinstance(value, pydantic.RootModel):
        return value.root
    if isinstance(value, pydantic.BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, pydantic.SecretStr | pydantic.SecretBytes):
        return value.get_secret_value()
    kind: Any = type(value)
    try:
        return _dumper(kind)(value, mode="json")
    except (pydantic.errors.PydanticUserError, TypeError, ValueError):  # whose words may hold the value
        raise TypeError(f"Encoding objects of type {kind.__name__} is unsupported") from None


@functools.lru_cache(maxsize=256)
def _dumper(kind: Any) -> Callable[..., object]:
    """What makes plain data of the values of a class that pydantic knows."""
    return pydantic.TypeAdapter(kind).dump_python


def _required(model: Any) -> list[str]:
    """The names of the fields that have no default."""
    if is_typed_dict(model):
        return sorted(model.__required_keys__)
    if issubclass(model, pydantic.BaseModel):
        return [name for name, field in model.model_fields.items() if field.is_required()]
    nothing = dataclasses.MISSING
    return [
        f.name for f in dataclasses.fields(model) if f.init and f.default is nothing and f.default_factory is nothing
    ]
