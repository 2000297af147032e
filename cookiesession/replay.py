"""The three-way replay: what two requests have made of one session, put together by top-level field."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cookiesession.codec import DECODING_ERRORS

_split: Final = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw]).decode
_join: Final = msgspec.msgpack.Encoder().encode


def replay(base: bytes, mine: bytes, theirs: bytes) -> bytes:
    """`theirs`, with what `mine` changed of `base`. All are encoded data.

    A field that I added, changed or removed is as in `mine`, every other as in `theirs`: a field that both changed is
    mine. Fields are the top-level entries of a map; data that is none, such as an array-like Struct, is one field.
    """
    try:
        before, after, merged = _split(base), _split(mine), _split(theirs)
    except DECODING_ERRORS:
        return theirs if mine == base else mine
    for name in before.keys() - after.keys():
        merged.pop(name, None)
    merged.update({name: value for name, value in after.items() if before.get(name) != value})
    return _join(merged)
