"""Why a token does not open, in words for its operator. Reads no token and no clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cookiesession import chunks
from cookiesession.aead import CLOCK_SKEW, Fernet
from cookiesession.codec import MAX_ENCODED
from cookiesession.cookies import LINE_LIMIT, MAX_CHUNKS
from cookiesession.inspection.report import span, visible, when

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cookiesession.errors import Reason
    from cookiesession.inspection.report import Contents, Header, Report

_FOREIGN: Final = re.compile(rb"[^A-Za-z0-9_-]")  # to base64url: RFC 4648, section 5


def explain(report: Report) -> str:
    """A sentence with the particulars of the report's reason. They are for the operator, and not for the client."""
    if report.contents is not None and report.reason in _OF_CONTENTS:
        return _OF_CONTENTS[report.reason](report, report.contents)
    return _OF_TOKEN[report.reason](report)


# Of what is opened


def _live(report: Report, contents: Contents) -> str:
    rest = span(contents.payload.ends_at() - report.now)
    if contents.is_ticket:
        return f"it opens, and names a session in a store, which lives for another {rest} at most, if it has not ended"
    return f"it opens, and lives for another {rest} if it is not used"


def _expired(report: Report, contents: Contents) -> str:
    end = contents.payload.expires_at
    return f"its lifetime ended at {when(end)}, {span(report.now - end)} ago"


def _idle(report: Report, contents: Contents) -> str:
    payload = contents.payload
    end = payload.renewed_at + payload.idle_timeout
    return (
        f"nobody used it for its idle timeout of {span(payload.idle_timeout)} after {when(payload.renewed_at)}: "
        f"it ended at {when(end)}, {span(report.now - end)} ago"
    )


def _future(report: Report, contents: Contents | None = None) -> str:
    times = [contents.payload.created_at, contents.payload.renewed_at] if contents else []
    if report.header is not None and report.header.sealed_at is not None:
        times.append(report.header.sealed_at)
    latest = max(times)
    return (
        f"it was made at {when(latest)}, {span(latest - report.now)} from now, and {CLOCK_SKEW}s are tolerated: "
        "one of two clocks is wrong"
    )


def _undecodable(report: Report, contents: Contents) -> str:
    if contents.is_compressed and not contents.payload.data:
        return f"its compressed data is damaged, or is more than {MAX_ENCODED} bytes"
    return "it is authentic, and its data is no MessagePack of plain data"


# Of what is not


def _malformed(report: Report) -> str:
    text = report.token.rstrip(b"=")
    if found := _FOREIGN.search(text):
        character = ascii(found[0].decode("latin-1"))
        return f"character {found.start() + 1} of {len(report.token)} is {character}, which base64url does not have"
    if len(text) % 4 == 1:
        return f"its {len(text)} characters make no whole number of bytes: some are missing, or too many"
    if report.header is None:
        return f"its last character, {chr(text[-1])!r}, sets bits that belong to no byte: the end is missing or changed"
    return _malformed_envelope(report.header, ends_padded=text != report.token)


def _malformed_envelope(header: Header, *, ends_padded: bool) -> str:
    if header.version is None:
        return "it is nothing but padding"
    if header.version == Fernet.VERSION[0]:
        return "it is a Fernet token whose padding (=) is missing, or too long"
    if header.version != 1:
        return (
            f"its first byte is 0x{header.version:02x}, and version 1 writes 0x01 and Fernet 0x80: "
            "it is from a newer version, or is no token"
        )
    if ends_padded:
        return "it ends in =, as only Fernet tokens do"
    return f"its {header.length} bytes are too few for a key id, a nonce of {header.nonce} bytes and a tag"


def _too_large(report: Report) -> str:
    longest = max(map(len, report.parts))
    return f"a cookie has {longest} bytes, and none that was written here has more than {LINE_LIMIT}"


def _incomplete(report: Report) -> str:
    if len(report.parts) == 1:
        return f"the cookie {visible(report.name)} is empty, or only later chunks of it are there"
    named = zip(chunks.names(report.name), report.parts, strict=False)
    missing = ", ".join(visible(name) for name, part in named if not part)
    return (
        f"it is the first of {len(report.parts)} chunks, and there is no {missing}: "
        "look at the whole Cookie header, and at what drops cookies on the way"
    )


def _chunk_count(report: Report) -> str:
    count = report.parts[0][:1]
    if b"2" <= count <= b"%d" % MAX_CHUNKS:
        return f"it is the first of {count.decode()} chunks, and the limit is max_chunks={report.max_chunks}"
    return f"it begins with {visible(count)!r} and a dot, and a count of chunks is 2 to {MAX_CHUNKS}"


def _unknown_key(report: Report) -> str:
    keys = f"the keys are {', '.join(map(str, report.known))}"
    header = report.header
    if header is not None and header.key is not None:
        return f"its key is out of use: {header.key}; {keys}"
    if header is not None and header.key_id is not None:
        return f"it names the key {header.key_id or 'of no id'}, and {keys}"
    return f"it is a Fernet token, and no Fernet key is in use; {keys}"


def _forged(report: Report) -> str:
    key = report.header.key if report.header is not None else None
    if key is not None and key.state == "retired":  # of Fernet, whose tokens do not say so themselves
        return f"its key is out of use: {key}"
    if report.other_name is not None:
        return f"it was sealed for the cookie {visible(report.other_name)}, and not for {visible(report.name)}"
    return (
        f"it does not authenticate under {f'the key {key}' if key else 'any Fernet key'} "
        f"for the cookie {visible(report.name)}: "
        "it is changed or cut short, or was sealed for another cookie or purpose"
    )


def _unsupported(report: Report) -> str:
    return "it is authentic, and what is inside has a layout that this version does not read: a newer version wrote it"


def _invalid(report: Report) -> str:
    where = f" at {report.path}" if report.path else ""
    return f"it is authentic, and the model refuses its data{where}, unless an upgrade makes something of it"


_OF_CONTENTS: Final[Mapping[Reason | None, Callable[[Report, Contents], str]]] = {
    None: _live,
    "expired": _expired,
    "idle": _idle,
    "future": _future,
    "undecodable": _undecodable,
}
_OF_TOKEN: Final[Mapping[Reason | None, Callable[[Report], str]]] = {
    "malformed": _malformed,
    "too_large": _too_large,
    "incomplete": _incomplete,
    "chunk_count": _chunk_count,
    "unknown_key": _unknown_key,
    "forged": _forged,
    "unsupported": _unsupported,
    "future": _future,
    "invalid": _invalid,
}
