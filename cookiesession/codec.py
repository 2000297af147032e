"""Data to bytes and back. MessagePack by way of msgspec, which reads plain data and nothing that runs."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar

import msgspec

from cookiesession.errors import InvalidToken, UnencodableData

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ENCODED: Final = 256 * 1024
"""Bytes of encoded data that a compressed session may hold, on the way in and on the way out."""

# msgspec raises RecursionError, UnicodeError, OverflowError, TypeError and ValueError besides its own.
ENCODING_ERRORS: Final[tuple[type[Exception], ...]] = (
    msgspec.MsgspecError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
)
DECODING_ERRORS: Final[tuple[type[Exception], ...]] = (*ENCODING_ERRORS, MemoryError)

T = TypeVar("T")


class Codec(Protocol[T]):
    """How the data of a session becomes bytes. Its equality is that of the bytes."""

    def default(self) -> T:
        """The data of a new session."""
        ...

    def encode(self, data: T, /) -> bytes:
        """The bytes of `data`. Raises one of `ENCODING_ERRORS`."""
        ...

    def decode(self, encoded: bytes, /) -> T:
        """The data of `encoded`, whatever the bytes are, or one of `DECODING_ERRORS`."""
        ...


class DictCodec:
    """A plain dict of what MessagePack holds.

    None, bool, 64-bit int, float, str, bytes, aware datetime, list and dict come back equal. A tuple or a set comes
    back as a list, a UUID, Decimal, date or naive datetime as a str.
    """

    def __init__(self) -> None:
        # The C methods themselves: a method around each would take as long as they do.
        self.encode = msgspec.msgpack.Encoder().encode
        self.decode = msgspec.msgpack.Decoder(dict[Any, Any], ext_hook=_refuse_extension).decode

    def default(self) -> dict[str, Any]:
        """An empty dict."""
        return {}


class _Extension(msgspec.Struct, omit_defaults=True):
    """The map before the data in an extended session. Later versions may add fields; an older one passes them over."""

    subject: str | None = None


_extended_encoder: Final = msgspec.msgpack.Encoder()
_extended_decoder: Final = msgspec.msgpack.Decoder(tuple[_Extension, msgspec.Raw])


def extend(encoded: bytes, subject: str) -> bytes:
    """`encoded` data together with its session's subject."""
    try:
        return _extended_encoder.encode((_Extension(subject), msgspec.Raw(encoded)))
    except ENCODING_ERRORS as error:
        raise UnencodableData(f"session.subject cannot be encoded: {_reason(error)}") from None


def reduce(extended: bytes) -> tuple[bytes, str | None]:
    """The data's bytes and the subject that `extend()` put together. Raises `InvalidToken`."""
    try:
        extension, encoded = _extended_decoder.decode(extended)
    except DECODING_ERRORS as error:
        raise InvalidToken("undecodable") from error
    return bytes(encoded), extension.subject


def compress(encoded: bytes) -> bytes:
    """A zlib stream of `encoded`."""
    return zlib.compress(encoded, 9)


def decompress(compressed: bytes) -> bytes:
    """What `compress()` was given. Never makes more than `MAX_ENCODED` bytes. Raises `InvalidToken`."""
    stream = zlib.decompressobj()
    try:
        encoded = stream.decompress(compressed, MAX_ENCODED)
    except zlib.error as error:
        raise InvalidToken("undecodable") from error
    if not stream.eof or stream.unused_data:
        raise InvalidToken("undecodable")
    return encoded


def largest_entries(codec: Codec[Any], data: Any, most: int = 3) -> list[tuple[str, int]]:
    """The names of the largest top-level entries of a dict, with the bytes each takes. Never a value."""
    sizes = [(str(name), len(codec.encode({name: value}))) for name, value in _entries(data)]
    return sorted(sizes, key=lambda entry: entry[1], reverse=True)[:most]


def _refuse_extension(code: int, data: memoryview) -> NoReturn:
    raise ValueError("an extension type is not ours")


def unencodable(codec: Codec[Any], data: Any, error: Exception) -> UnencodableData:
    """The error for `data` that `codec` cannot encode, with the top-level entry that is to blame."""
    for name, value in _entries(data):
        try:
            codec.encode({name: value})
        except ENCODING_ERRORS as found:
            return UnencodableData(f"session[{name!r}] cannot be encoded: {_reason(found)}")
    return UnencodableData(f"the session cannot be encoded: {_reason(error)}")


def _entries(data: Any) -> Iterable[tuple[Any, Any]]:
    return data.items() if isinstance(data, dict) else ()


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it contains itself, or is nested too deeply"
    if isinstance(error, UnicodeError):
        return "a str in it is not valid Unicode"
    return str(error)
