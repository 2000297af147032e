"""Key files as text: a schedule into a TOML document, whose comments and layout stay, or into a JSON one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import tomlkit
from tomlkit.items import AoT, Table, Whitespace

from cookiesession.errors import ConfigurationError
from cookiesession.keys import Key
from cookiesession.schedule import Schedule
from cookiesession.times import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cookiesession.schedule import ScheduledKey

_HEAD: Final = """\
# Keys of cookiesession. Whoever reads this file can read and write every session.
# Change it with: python -m cookiesession keys
"""


def document(schedule: Schedule, text: bytes = b"", *, as_json: bool = False) -> bytes:
    """The document that holds `schedule` and not what `text` held, or a new one of TOML or JSON where that is blank.

    `text` is a document that `Schedule.parse()` reads. In TOML the comments stay, but for those inside of an entry
    that goes. Raises `ConfigurationError` rather than return what does not read back as `schedule`.
    """
    if text.lstrip().startswith(b"{") or (as_json and not text.strip()):
        entries = [_fields(each) for each in schedule.keys]
        return (json.dumps({"keys": entries}, default=stamp, indent=2) + "\n").encode()
    if not text.strip():
        return _with_tables(_HEAD, schedule.keys).encode()
    merged = _merged(text.decode(), schedule).encode()
    if not _reads_as(schedule, merged):  # a file of keys is too dear to trust that every layout was understood
        raise ConfigurationError(
            "its layout is one that cannot be kept: write each key as a table of its own, [[keys]]"
        )
    return merged


def _reads_as(schedule: Schedule, text: bytes) -> bool:
    try:
        return Schedule.parse(text) == schedule
    except ConfigurationError:
        return False


def _fields(scheduled: ScheduledKey) -> dict[str, str | datetime]:
    fields: dict[str, str | datetime] = {
        "key": scheduled.key.export(),
        "added": scheduled.added,
        "activates": scheduled.activates,
    }
    return fields if scheduled.retires is None else {**fields, "retires": scheduled.retires}


def _merged(text: str, schedule: Schedule) -> str:
    toml: Any = tomlkit.parse(text if text.endswith("\n") else text + "\n")
    entries = toml["keys"]
    missing = {each.key.id: each for each in schedule.keys}
    loose = ""
    for index in reversed(range(len(entries))):
        scheduled = missing.pop(Key.parse(entries[index]["key"]).id, None)
        if scheduled is None:
            loose = _remove(entries, index) + loose
        elif scheduled.retires is not None:
            _set_retirement(entries[index], scheduled.retires)
    if isinstance(entries, AoT):
        if not entries:
            del toml["keys"]  # else it would be written as an empty array
        return _with_tables(tomlkit.dumps(toml) + loose, missing.values())
    on_lines = "\n" in entries.as_string()
    for scheduled in missing.values():  # not by append(), which leaves out the comma where a comment ends the array
        table = _filled(tomlkit.inline_table(), scheduled)
        entries.add_line(table, indent="  " if on_lines else "", newline=on_lines)
    return tomlkit.dumps(toml)


def _with_tables(text: str, added: Iterable[ScheduledKey]) -> str:
    """A document of `[[keys]]` with more of them at its end, which is the one place where they always may stand."""
    tables = ["[[keys]]\n" + _filled(tomlkit.table(), each).as_string() for each in added]
    return "\n\n".join([text.rstrip("\n"), *tables]).rstrip("\n") + "\n"


def _filled(table: Any, scheduled: ScheduledKey) -> Any:
    for name, value in _fields(scheduled).items():
        table[name] = value
    return table


def _set_retirement(entry: Any, retires: datetime) -> None:
    tail = [] if "retires" in entry else _cut_tail(entry)
    entry["retires"] = retires
    for item in tail:
        entry.add(item)


def _remove(entries: Any, index: int) -> str:
    """Removes an entry, and gives the comments between it and the end, for want of a next entry to stand before."""
    tail = _cut_tail(entries[index])
    del entries[index]
    while tail and isinstance(tail[0], Whitespace):
        del tail[0]
    text = "".join(item.as_string() for item in tail)
    if index == len(entries):
        return text
    entries[index].trivia.indent = text + entries[index].trivia.indent
    return ""


def _cut_tail(entry: Any) -> list[Any]:
    """Cuts off the blank lines and the comments below the last line of a `[[keys]]`: they belong to what follows."""
    tail: list[Any] = []
    if isinstance(entry, Table):  # the others are inline
        body = entry.value.body
        while body[-1][0] is None:
            tail.insert(0, body.pop()[1])
    return tail
