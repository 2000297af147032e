"""From a session's model to the codec that reads and writes it."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any, get_origin

from msgspec import Struct

from cookiesession.codec import DictCodec
from cookiesession.errors import ConfigurationError
from cookiesession.models import MsgspecCodec, is_typed_dict, trouble

if TYPE_CHECKING:
    from cookiesession.codec import Codec
    from cookiesession.models import Upgrade


def codec_for(model: Any, upgrade: Upgrade | None = None) -> Codec[Any]:
    """The codec of a model, or of the dict that there is without one. Raises `ConfigurationError` for what is none."""
    if model is None:
        if upgrade is not None:
            raise ConfigurationError("upgrade goes with a model: without one, any dict is accepted")
        return DictCodec()
    if upgrade is not None and (not callable(upgrade) or inspect.iscoroutinefunction(upgrade)):
        raise ConfigurationError("upgrade is a plain function: sessions open where nothing can be awaited")
    kind = get_origin(model) or model
    is_class = isinstance(kind, type)
    is_struct = is_class and issubclass(kind, Struct)
    is_pydantic = is_class and hasattr(kind, "__pydantic_validator__")
    if not is_class or not (is_struct or is_pydantic or dataclasses.is_dataclass(kind) or is_typed_dict(kind)):
        raise ConfigurationError("model is a pydantic BaseModel, a msgspec.Struct, a dataclass or a TypedDict")
    reason = "" if is_pydantic else trouble(model)
    if is_struct and reason:
        raise ConfigurationError(f"{kind.__name__} cannot be a session's model: {reason}")
    if not is_pydantic and not reason:
        return MsgspecCodec(model, upgrade)
    from cookiesession.validation import PydanticCodec  # noqa: PLC0415 - pydantic is slow to import

    return PydanticCodec(model, upgrade)
