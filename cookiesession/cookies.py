"""Cookies as they stand in headers: attributes and prefixes on the way out, our own scanner on the way in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, get_args

from cookiesession.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

SameSite = Literal["lax", "strict", "none"]
Prefix = Literal["__Host-", "__Secure-", ""]

LINE_LIMIT: Final = 3800
"""Bytes of a whole Set-Cookie line. One passes nginx's default 4 KB response header buffer; 4,000 do not."""

MAX_AGE_LIMIT: Final = 400 * 24 * 60 * 60
"""Seconds: browsers cap a cookie's age at 400 days (RFC 6265bis, section 5.5)."""

MAX_CHUNKS: Final = 9
"""The most that `Cookie(max_chunks=...)` may be: 34 KB, twice what most servers take in all headers."""

BLANK: Final = b" \t"
"""What may stand around names and values (RFC 6265, section 5.2)."""

# The cookies of a header in which our name is looked for, once it has been seen. Each costs a copy of what follows it,
# and a browser has room for 150 to 180 cookies of a site.
_MOST: Final = 200

# RFC 9110, section 5.6.2, less the dot before a final number: our chunks are named so.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CHUNK_NAME: Final = re.compile(r".*\.[0-9]+")
# RFC 6265, section 4.1.1: any character but controls and ";", and a URL's path has no space. Browsers ignore an
# attribute of over 1,024 bytes.
_PATH: Final = re.compile(r"/[\x21-\x3A\x3C-\x7E]{0,1023}")
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """The session cookie's name, attributes and limits. Always `HttpOnly`.

    `Secure` with `path="/"` and no domain gives the name the prefix `__Host-`, `Secure` alone `__Secure-`: browsers
    then take the cookie only from this host, or only over TLS. `prefix=""` opts out. A session may take up to
    `max_chunks` cookies (1 to 9) of 3,800 bytes each.

    Raises `ConfigurationError` for what browsers would refuse or ignore.

    >>> Cookie(name="sid", samesite="strict").full_name
    b'__Host-sid'
    >>> Cookie(name="sid", domain="example.org").full_name
    b'__Secure-sid'
    """

    name: str = "session"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    samesite: SameSite = "lax"
    partitioned: bool = False
    prefix: Prefix | None = None
    max_chunks: int = 2

    def __post_init__(self) -> None:
        _require(_fits(_TOKEN, self.name), "a cookie's name is a token of RFC 9110: letters, digits, - and _ will do")
        _require(
            not self.name.lower().startswith(("__host-", "__secure-")), "give the cookie's name without its prefix"
        )
        _require(not _CHUNK_NAME.fullmatch(self.name), "a cookie's name may not end in a dot and digits, as chunks do")
        _require(
            _fits(_PATH, self.path),
            "a cookie's path starts with / and holds printable ASCII but neither ; nor space",
        )
        if self.domain is not None:
            _require(_fits(_DOMAIN, self.domain), "a cookie's domain is a host name without a leading dot, or None")
        _require(
            type(self.secure) is bool and type(self.partitioned) is bool,  # "no" would be true
            "secure and partitioned are True or False",
        )
        _require(self.samesite in get_args(SameSite), "samesite is 'lax', 'strict' or 'none'")
        _require(self.secure or self.samesite != "none", "browsers refuse SameSite=None without secure=True")
        _require(self.secure or not self.partitioned, "browsers refuse Partitioned without secure=True")
        _require(self.prefix in (None, *get_args(Prefix)), "prefix is '__Host-', '__Secure-', '' or None")
        _require(self.secure or not self.prefix, f"the prefix {self.prefix} needs secure=True")
        _require(
            self.prefix != "__Host-" or (self.path == "/" and self.domain is None),
            "the prefix __Host- needs path='/' and no domain",
        )
        _require(
            type(self.max_chunks) is int and 1 <= self.max_chunks <= MAX_CHUNKS, f"max_chunks is 1 to {MAX_CHUNKS}"
        )
        _require(self.room > 1000, "the cookie's name, path and domain leave no room for a session")

    @cached_property
    def full_name(self) -> bytes:
        """The name with its prefix, as it stands in headers."""
        prefix = self.prefix
        if prefix is None:
            host = self.path == "/" and self.domain is None
            prefix = "" if not self.secure else "__Host-" if host else "__Secure-"
        return (prefix + self.name).encode()

    @cached_property
    def room(self) -> int:
        """Bytes of a token that one cookie takes, whatever its age and chunk number."""
        return LINE_LIMIT - len(self.line(self.full_name + b".9", b"", MAX_AGE_LIMIT))

    @cached_property
    def _attributes(self) -> bytes:
        parts = [f"; Path={self.path}"]
        if self.domain is not None:
            parts.append(f"; Domain={self.domain}")
        if self.secure:
            parts.append("; Secure")
        parts.append(f"; HttpOnly; SameSite={self.samesite.capitalize()}")
        if self.partitioned:
            parts.append("; Partitioned")
        return "".join(parts).encode()

    @cached_property
    def _aged(self) -> bytes:
        return self._attributes + b"; Max-Age="

    def line(self, name: bytes, value: bytes, max_age: int | None) -> bytes:
        """A Set-Cookie line. `max_age` is in seconds, capped at 400 days; without one the cookie ends with the browser.

        A deletion is a line with no value and an age of 0, which carries every attribute: browsers ignore a `__Host-`
        deletion without `Secure` and `Path=/`.
        """
        return name + b"=" + value + self.attributes(max_age)

    def attributes(self, max_age: int | None) -> bytes:
        """What follows the value in a Set-Cookie line."""
        if max_age is None:
            return self._attributes
        if not 0 <= max_age <= MAX_AGE_LIMIT:
            max_age = 0 if max_age < 0 else MAX_AGE_LIMIT
        return self._aged + b"%d" % max_age


def read(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[tuple[bytes, bytes]]:
    """The cookies whose names start with `name` in all Cookie headers: the rest of each name, and the value, in order.

    It splits on ";" and at the first "=", compares bytes and unquotes nothing. Both may still have spaces and tabs
    around them, which are to be trimmed, and nothing else. In each header it looks at no more than 200 cookies that
    have `name` anywhere in them.
    """
    found: list[tuple[bytes, bytes]] = []
    for header, cookies in headers:
        if header != b"cookie":
            continue
        left = _MOST
        before, named, after = cookies.partition(name)
        while named and left:
            cookie, _, after = after.partition(b";")
            # The name is at the start of a cookie, but for blanks.
            if before[-2:] == b"; " or not before.rpartition(b";")[2].strip(BLANK):
                suffix, equals, value = cookie.partition(b"=")
                if equals:
                    found.append((suffix, value))
            left -= 1
            before, named, after = after.partition(name)
    return found


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)
