"""What a token says to whoever has the keys, and exactly why it does not open. No I/O, no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from cookiesession import base64url, chunks, codec, cookies, envelope, payload
from cookiesession.aead import Fernet
from cookiesession.cookies import Cookie
from cookiesession.errors import InvalidToken
from cookiesession.inspection.report import Contents, Header, KnownKey, Report
from cookiesession.keys import VERSION, KeyRing
from cookiesession.payload import Payload
from cookiesession.schedule import Schedule, moment
from cookiesession.schema import codec_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from cookiesession.aead import Algorithm
    from cookiesession.cookies import Prefix
    from cookiesession.errors import Reason
    from cookiesession.keys import Key

# NIST SP 800-38D for both of GCM, C2SP XAES-256-GCM for its longer nonce; the initialization vector of Fernet's CBC.
_NONCES: Final = {"xaes-256-gcm": 24, "aes-256-gcm": 12, "fernet": 16}
_PREFIXES: Final[tuple[Prefix, ...]] = ("__Host-", "__Secure-", "")
_AFTER_ALL_TIMES: Final = 2**64  # a second that no token can come after: Fernet writes 64 bits
# Also as curl and browsers show them.
_FIELD: Final = re.compile(rb"[<>\s]*(?:(set-)?cookie):", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The reports on all that a server would try, in its order."""

    name: bytes
    """The cookie that was looked for, or the relative of it that was there: `session` for `__Host-session`."""
    reports: tuple[Report, ...]
    """The first without a reason is the session. There are none where there is no such cookie."""
    present: tuple[bytes, ...]
    """The names of all cookies that there were."""

    @property
    def is_live(self) -> bool:
        """Whether a server gets a session, as far as the tokens tell."""
        return any(report.reason is None for report in self.reports)


def inspect(
    text: bytes,
    keys: KeyRing | Schedule,
    *,
    name: bytes = Cookie().full_name,
    now: int,
    max_chunks: int = Cookie.max_chunks,
    model: Any = None,
) -> Inspection:
    """What a server at `now` (seconds since the epoch) makes of `text`: a token, or `Cookie` and `Set-Cookie` lines.

    - `keys`: the ring, or the keys with their times, of which those that have retired are tried too.
    - `name`: the cookie's full name. Where no header has it, that with another prefix is looked for.
    - `max_chunks` and `model`: those of the server. Without a model, any data is accepted.

    What only a store or a request can tell is not known here: whether the session was ended, and whom a guard lets in.

    Any bytes give an inspection. Raises `ConfigurationError` for keys that have all retired, and for what is no model.
    """
    values = list(_values(text, name))
    headers = [(b"cookie", value) for value in values]
    decode = codec.decode_plain if model is None else codec_for(model).decode
    present = tuple(dict.fromkeys(_names(values)))
    for relative in _relatives(name):
        found = cookies.read(headers, relative)
        if candidates := list(chunks.gather(found, max_chunks)[1]):
            inspector = _Inspector(keys, relative, now, max_chunks, decode)
            return Inspection(name=relative, reports=tuple(map(inspector.report, candidates)), present=present)
    return Inspection(name=name, reports=(), present=present)


def _values(text: bytes, name: bytes) -> Iterator[bytes]:
    """The values of Cookie headers in a text; a lone token becomes that of the cookie `name`."""
    lines = text.strip().splitlines()
    fields = [(found, line[found.end() :]) for line in lines if (found := _FIELD.match(line))]
    if fields:
        for found, value in fields:
            yield value.partition(b";")[0] if found[1] else value
    elif b";" in text or b"=" in text.strip().rstrip(b"="):
        yield from lines
    elif lines:
        yield name + b"=" + text.strip()


def _names(values: Iterable[bytes]) -> Iterator[bytes]:
    """The names of all cookies in Cookie headers."""
    for cookie in b";".join(values).split(b";"):
        name, equals, _ = cookie.partition(b"=")
        if equals:
            yield name.strip(cookies.BLANK)


def _relatives(name: bytes) -> list[bytes]:
    """A cookie's name, and those that another prefix would have given it, the strictest first."""
    bare = re.sub(rb"^__(host|secure)-", b"", name, flags=re.IGNORECASE)
    names = [name, *(prefix.encode() + bare for prefix in _PREFIXES)]
    return list(dict.fromkeys(filter(None, names)))  # a prefix alone leaves no name


class _Inspector:
    """Looks at one candidate after the other, as the manager does, and goes on where the manager stops."""

    def __init__(
        self,
        keys: KeyRing | Schedule,
        name: bytes,
        now: int,
        max_chunks: int,
        decode: Callable[[bytes], object],
    ) -> None:
        self._now = now
        self._name = name
        self._max_chunks = max_chunks
        self._decode = decode
        self._ring = keys if isinstance(keys, KeyRing) else keys.ring(moment(now))
        known = list(_known(keys, moment(now)))
        self._all = KeyRing(*(key for key, _ in known))
        self._known = {each.id: each for _, each in known}

    def report(self, parts: Sequence[bytes]) -> Report:
        """The report on a token in these chunks."""
        token, reason, path, header, contents = b"", None, None, None, None
        try:
            token = chunks.join(parts)
        except InvalidToken as invalid:
            reason = invalid.reason
        else:
            reason, path = self._verdict(token)
            header, contents = self._facts(token)
        return Report(
            name=self._name,
            reason=reason,
            path=path,
            parts=tuple(parts),
            token=token,
            other_name=self._other_name(token) if reason == "forged" else None,
            known=tuple(self._known.values()),
            max_chunks=self._max_chunks,
            now=self._now,
            header=header,
            contents=contents,
        )

    def _verdict(self, token: bytes) -> tuple[Reason | None, str | None]:
        """Why the manager refuses a token, if it does, and the path to a field that the model refuses."""
        try:
            plaintext, _ = _open(token, self._ring, self._name, self._now)
            if data := payload.unpack(plaintext, self._now).data:  # else it is in a store
                self._decode(data)
        except InvalidToken as invalid:
            return invalid.reason, invalid.path
        return None, None

    def _facts(self, token: bytes) -> tuple[Header | None, Contents | None]:
        """What can be read of a token whatever the time, and with keys that have retired."""
        try:
            sealed = base64url.decode(token.rstrip(b"="))
        except ValueError:
            return None, None
        try:
            plaintext, key = _open(token, self._all, self._name, _AFTER_ALL_TIMES)
        except InvalidToken:
            return self._header(sealed, None), None
        return self._header(sealed, key.id), _contents(plaintext)

    def _header(self, sealed: bytes, opened_by: str | None) -> Header:
        version, key_id, sealed_at = sealed[:1], opened_by, None
        algorithm: Algorithm | None = None
        if version == Fernet.VERSION:
            algorithm, sealed_at = "fernet", int.from_bytes(sealed[1:9], "big")
        elif version == VERSION:
            header = sealed[: envelope.HEADER]
            key = self._all.by_header.get(header)
            key_id, algorithm = header[len(VERSION) :].hex(), key.algorithm if key else None
        return Header(
            version=version[0] if version else None,
            length=len(sealed),
            algorithm=algorithm,
            key_id=key_id,
            key=self._known.get(key_id or ""),
            nonce=_NONCES[algorithm] if algorithm else None,
            sealed_at=sealed_at,
        )

    def _other_name(self, token: bytes) -> bytes | None:
        """The name of a common cookie that the token was sealed for."""
        for name in dict.fromkeys(_relatives(self._name) + _relatives(Cookie().full_name)):
            if name == self._name:
                continue
            try:
                _open(token, self._all, name, _AFTER_ALL_TIMES)
            except InvalidToken:
                continue
            return name
        return None


def _open(token: bytes, ring: KeyRing, name: bytes, now: int) -> tuple[bytes, Key]:
    """The plaintext of a session, or of the id of one that is in a store, and its key. Raises `InvalidToken`."""
    try:
        return envelope.open(token, ring, envelope.bind("cookie", name), now=now)
    except InvalidToken as invalid:
        if invalid.reason != "forged":
            raise
    return envelope.open(token, ring, envelope.bind("id", name), now=now)


def _known(keys: KeyRing | Schedule, now: datetime) -> Iterator[tuple[Key, KnownKey]]:
    """All keys, with what each does at `now`."""
    if isinstance(keys, Schedule):
        for each, state in keys.states(now):
            yield each.key, KnownKey(each.key.id, each.key.algorithm, state, each.retires)
        return
    for key in keys.keys:
        yield key, KnownKey(key.id, key.algorithm, "primary" if key is keys.primary else "active", None)


def _contents(plaintext: bytes) -> Contents | None:
    """What is in an authentic plaintext, whether or not it is valid now; None for an unknown layout."""
    body = plaintext.rstrip(b"\0")
    if not body.endswith(payload.END, payload.HEADER.size):
        return None
    flags, created_at, renewed_at, expires_at, idle_timeout, _ = payload.HEADER.unpack_from(body)
    opened = Payload(flags, created_at, renewed_at, expires_at, idle_timeout, b"", None, b"")
    data = None
    is_readable = is_ticket = False
    try:
        # At a second at which it was valid: what a session was last written at, and before its end.
        opened = payload.unpack(plaintext, min(opened.renewed_at, opened.expires_at - 1))
        is_ticket = not opened.data
        data = None if is_ticket else codec.decode_plain(opened.data)
        is_readable = True
    except InvalidToken as invalid:
        if invalid.reason == "unsupported":
            return None
    return Contents(
        payload=replace(opened, id=b""),
        length=len(plaintext),
        padding=len(plaintext) - len(body) + 1,
        encoded=len(body) - 1 - payload.HEADER.size,
        is_compressed=opened.flags & payload.COMPRESSED != 0,
        is_readable=is_readable,
        is_ticket=is_ticket,
        data=data,
    )
