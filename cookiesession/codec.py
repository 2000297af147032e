"""Data to bytes and back. MessagePack by way of msgspec, which reads plain data and nothing that runs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar

import msgspec

from cookiesession.errors import InvalidToken, UnencodableData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_ENCODED: Final = 256 * 1024
"""Bytes of encoded data that a compressed session may hold, on the way in and on the way out."""

# msgspec raises RecursionError, UnicodeError, OverflowError, TypeError, ValueError and BufferError besides its own.
ENCODING_ERRORS: Final[tuple[type[Exception], ...]] = (
    msgspec.MsgspecError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    BufferError,  # of a memoryview with gaps
)
DECODING_ERRORS: Final[tuple[type[Exception], ...]] = (*ENCODING_ERRORS, MemoryError)

_LARGE: Final = 100  # bytes of an entry, on the average, above which it is better compared than read back

T = TypeVar("T")


class Codec(Protocol[T]):
    """How the data of a session becomes bytes, and is validated when it comes back."""

    def default(self) -> T:
        """The data of a new session."""
        ...

    def encode(self, data: T, /) -> bytes:
        """The bytes of `data`. Raises one of `ENCODING_ERRORS`."""
        ...

    def decode(self, encoded: bytes, /) -> T:
        """The data of `encoded`, whatever the bytes are, or `InvalidToken`, or one of `DECODING_ERRORS`."""
        ...

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is of the type that a session of this codec holds."""
        ...

    def same(self, encoded: bytes, kept: bytes) -> bool:
        """Whether two encodings that differ hold the same data."""
        ...

    def verify(self, data: T, encoded: bytes, kept: bytes) -> None:
        """Raises `UnencodableData` unless `encoded`, which `data` gave, gives it again. That `kept` does is known."""
        ...

    def entries(self, data: T) -> Iterable[tuple[str, Any]]:
        """The names and values of the top-level entries of `data`."""
        ...

    def way(self, name: str) -> str:
        """How a handler gets to the entry of this name."""
        ...


class DictCodec:
    """A plain dict of what MessagePack holds.

    None, bool, 64-bit int, float, str, bytes, aware datetime, list and dict come back equal. A tuple or a set comes
    back as a list, a UUID, Decimal, date or naive datetime as a str, a subclass of str, int or float as one of these.
    """

    def __init__(self) -> None:
        # The C methods themselves: a method around each would take as long as they do.
        self.encode = encoder(_base)
        self.decode = msgspec.msgpack.Decoder(dict[Any, Any], ext_hook=_refuse_extension).decode

    def default(self) -> dict[str, Any]:
        """An empty dict."""
        return {}

    def require(self, data: object) -> None:
        """Raises `TypeError` unless `data` is a mapping."""
        if not isinstance(data, Mapping):
            raise TypeError(f"session.data is a dict, not {type(data).__name__}")

    def same(self, encoded: bytes, kept: bytes) -> bool:
        """Never: a dict and its encoding have one order."""
        return False

    def verify(self, data: dict[str, Any], encoded: bytes, kept: bytes) -> None:
        """Some of what can be encoded cannot be read back, such as a key that becomes a map."""
        try:
            self.decode(encoded if len(encoded) < _LARGE * len(data) else self._changes(data, encoded, kept))
        except DECODING_ERRORS:
            pass  # raised below, out of this one's context
        else:
            return
        blamed = [name for name, value in data.items() if not self._can_decode(self.encode({name: value}))]
        where = self.way(blamed[0]) if blamed else "the session"
        raise UnencodableData(f"{where} could not be read back: it holds what MessagePack does not")

    def entries(self, data: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        """The items, by their keys."""
        return data.items()

    def way(self, name: object) -> str:
        """`session[key]`."""
        return f"session[{name!r}]" if isinstance(name, str | int) else f"session[{_shown(name)}]"

    def _changes(self, data: dict[str, Any], encoded: bytes, kept: bytes) -> bytes:
        """The entries of `encoded` that are not in `kept`: taking others apart takes longer than comparing them."""
        try:
            before, after = _read_entries(kept), _read_entries(encoded)
        except DECODING_ERRORS:
            return encoded
        if len(after) < len(data):
            return encoded  # two keys, a UUID and its text say, have become one, which hides the earlier entry
        return self.encode({name: raw for name, raw in after.items() if before.get(name) != raw})

    def _can_decode(self, encoded: bytes) -> bool:
        try:
            self.decode(encoded)
        except DECODING_ERRORS:
            return False
        return True


class Extension(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session may have besides its data. Later versions may add fields; an older one passes them over."""

    subject: str | None = None
    label: str | None = None
    superseded_by: bytes | None = None
    bound: bytes | None = None
    fraction: int = 0

    def __repr__(self) -> str:
        return "<Extension>"  # neither whose session it is nor what tells it from others


NO_EXTENSION: Final = Extension()
"""That of most sessions, which are encoded without it."""

_extended_encoder: Final = msgspec.msgpack.Encoder()
_extended_decoder: Final = msgspec.msgpack.Decoder(tuple[Extension, msgspec.Raw])

_NO_DATA: Final = b"\xc0"  # MessagePack's nil: of a cookie that holds an id alone, an array of two would lack its end


def extend(encoded: bytes, extension: Extension) -> bytes:
    """`encoded` data together with its session's extension. Raises `UnencodableData`."""
    try:
        return _extended_encoder.encode((extension, msgspec.Raw(encoded or _NO_DATA)))
    except UnicodeError:
        pass
    # Raised here, since a UnicodeEncodeError carries the text and would be this one's context.
    blamed = "label" if extension.subject is None or _is_unicode(extension.subject) else "subject"
    raise UnencodableData(f"session.{blamed} cannot be encoded: it is not valid Unicode")


def reduce(extended: bytes) -> tuple[bytes, Extension]:
    """The data's bytes and the extension that `extend()` put together. Raises `InvalidToken`."""
    try:
        extension, raw = _extended_decoder.decode(extended)
    except DECODING_ERRORS as error:
        raise InvalidToken("undecodable") from error
    encoded = bytes(raw)
    return b"" if encoded == _NO_DATA else encoded, extension


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


def encoder(hook: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    """What encodes plain data, and by way of `hook` what MessagePack cannot hold."""
    return msgspec.msgpack.Encoder(enc_hook=hook).encode


def decode_plain(encoded: bytes) -> Any:
    """The plain data of `encoded`, without a model. Raises `InvalidToken`."""
    try:
        return _plain_decoder.decode(encoded)
    except DECODING_ERRORS as error:
        raise InvalidToken("undecodable") from error


def largest_entries(codec: Codec[T], data: T, most: int = 3) -> list[tuple[str, int]]:
    """The largest top-level entries of `data`, with the bytes each takes. Never a value."""
    encode = codec.encode
    sizes = [(_shown(name), len(encode(value))) for name, value in codec.entries(data)]
    return sorted(sizes, key=lambda entry: entry[1], reverse=True)[:most]


def _shown(name: object) -> str:
    # A key that is no text may hold values, and only its type is told.
    return str(name) if isinstance(name, str | int) else f"a {type(name).__name__}"


def unencodable(codec: Codec[T], data: T, error: Exception) -> UnencodableData:
    """The error for `data` that `codec` cannot encode, with the top-level entry that is to blame."""
    encode: Callable[[Any], bytes] = codec.encode
    for name, value in codec.entries(data):
        try:
            encode({name: value})
        except ENCODING_ERRORS as found:
            return UnencodableData(f"{codec.way(name)} cannot be encoded: {_reason(found)}")
    return UnencodableData(f"the session cannot be encoded: {_reason(error)}")


def _base(value: object) -> object:
    """What MessagePack can hold of a subclass of what it holds, such as a text that is marked as safe HTML."""
    if isinstance(value, str):
        return str.__str__(value)  # its own may be another
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def _refuse_extension(code: int, data: memoryview) -> NoReturn:
    raise ValueError("an extension type is not ours")


def _is_unicode(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text


_read_entries: Final = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw]).decode

_plain_decoder: Final = msgspec.msgpack.Decoder(ext_hook=_refuse_extension)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it contains itself, or is nested too deeply"
    if isinstance(error, UnicodeError):
        return "a str in it is not valid Unicode"
    return str(error)
