"""What a browser makes of Set-Cookie lines, as far as the benchmarks need it: which cookies it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from measuring import NAVIGATION, other_cookies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from measuring import Headers

LIMIT: Final = 4096
"""Bytes of name and value: RFC 6265bis, section 5.6. Chromium and Firefox refuse a cookie that is longer."""


class Jar:
    """Cookies by name."""

    def __init__(self) -> None:
        self.cookies: dict[bytes, bytes] = {}
        self.refused = False
        """Whether there was a cookie that no browser keeps."""

    def take(self, lines: Iterable[bytes]) -> None:
        """Sets the cookies of a response, the ones that are too long too."""
        for line in lines:
            name, _, value = line.partition(b";")[0].partition(b"=")
            self.refused |= len(name) + len(value) > LIMIT
            self.cookies[name] = value

    def headers(self, others: int) -> Headers:
        """Those of a navigation with these cookies and `others` that are not the session's."""
        pairs = [name + b"=" + value for name, value in self.cookies.items() if value]
        cookies = [*other_cookies(others), *pairs] if pairs else []
        return [*NAVIGATION, *([(b"cookie", b"; ".join(cookies))] if cookies else [])]

    def size(self) -> int:
        """The bytes of all values."""
        return sum(map(len, self.cookies.values()))
