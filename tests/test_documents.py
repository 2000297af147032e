"""Key files as text: what a change of the keys leaves of a document."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookiesession import ConfigurationError, Key
from cookiesession.cli.documents import document
from cookiesession.schedule import Schedule, ScheduledKey

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
KEYS = [Key("xaes-256-gcm", bytes(range(number, number + 32))) for number in range(8)]
OLD, NEW, THIRD = (ScheduledKey(key=key, added=NOW, activates=NOW) for key in KEYS[:3])
END = NOW + timedelta(days=15)

TABLES = f"""\
# The keys of the shop.

[[keys]]
key = '{OLD.key.export()}'  # Ada's
added =      2027-01-15T09:00:00+01:00
activates =  2027-01-15T08:00:00Z

# Since the move.
[[keys]]
  key = "{NEW.key.export()}"
  added = 2027-01-15T08:00:00Z
  activates = 2027-01-15T08:00:00Z
# The end.
"""
ARRAY = f"""\
# The keys of the shop.
keys = [
  # The first.
  {{ key = "{OLD.key.export()}", added = 2027-01-15T08:00:00Z, activates = 2027-01-15T08:00:00Z }}, # Ada's
  # The second.
  {{ key = "{NEW.key.export()}", added = 2027-01-15T08:00:00Z, activates = 2027-01-15T08:00:00Z }},
] # The end.
"""


def merged(text: str, *keys: ScheduledKey) -> str:
    """The document with these keys in place of its own, once it has been read back."""
    result = document(Schedule(keys), text.encode())
    assert Schedule(keys) == Schedule.parse(result)
    return result.decode()


@pytest.mark.parametrize("as_json", [False, True], ids=["toml", "json"])
@pytest.mark.parametrize("blank", [b"", b" \n"], ids=["nothing", "blank"])
def test_new_document_reads_back(blank: bytes, as_json: bool) -> None:
    """In both formats, with every time."""
    schedule = Schedule((replace(OLD, retires=END), NEW))

    text = document(schedule, blank, as_json=as_json)

    assert schedule == Schedule.parse(text)
    assert as_json == text.startswith(b"{")
    assert text.endswith(b"\n")


def test_new_toml_is_laid_out_for_people() -> None:
    """A heading that warns, and a table for each key."""
    text = document(Schedule((OLD, replace(NEW, retires=END)))).decode()

    heading, first, second = text.split("\n\n")
    assert heading.startswith("# Keys of cookiesession. Whoever reads this file can read and write every session.\n")
    assert first == (
        f'[[keys]]\nkey = "{OLD.key.export()}"\nadded = 2027-01-15T08:00:00Z\nactivates = 2027-01-15T08:00:00Z'
    )
    assert second.endswith("retires = 2027-01-30T08:00:00Z\n")


def test_json_says_when_in_utc() -> None:
    """Its times are the strings that people expect."""
    elsewhere = replace(OLD, added=datetime.fromisoformat("2027-01-15T09:00:00+01:00"))

    entry = msgspec.json.decode(document(Schedule((elsewhere,)), as_json=True))["keys"][0]

    assert {"key": OLD.key.export(), "added": "2027-01-15T08:00:00Z", "activates": "2027-01-15T08:00:00Z"} == entry


@pytest.mark.parametrize("text", [TABLES, ARRAY], ids=["tables", "array"])
def test_same_keys_leave_the_text_alone(text: str) -> None:
    """To the byte."""
    assert text == merged(text, OLD, NEW)


def test_added_table_stands_at_the_end() -> None:
    """Everything before it is as it was."""
    result = merged(TABLES, OLD, NEW, THIRD)

    assert result.startswith(TABLES + f'\n[[keys]]\nkey = "{THIRD.key.export()}"\n')


def test_added_table_follows_text_that_does_not_end_its_line() -> None:
    """As some editors leave it."""
    result = merged(TABLES.rstrip("\n"), OLD, NEW, THIRD)

    assert result.startswith(TABLES + "\n[[keys]]\n")


def test_retirement_stands_in_its_own_table() -> None:
    """Above the comment that belongs to the next one."""
    result = merged(TABLES, replace(OLD, retires=END), NEW)

    line = "activates =  2027-01-15T08:00:00Z\n"
    assert result == TABLES.replace(line, line + "retires = 2027-01-30T08:00:00Z\n", 1)


def test_retirement_is_put_off_where_it_stands() -> None:
    """Its comment stays beside it."""
    line = "activates =  2027-01-15T08:00:00Z\n"
    text = TABLES.replace(line, line + "retires = 2027-01-20T08:00:00Z  # ask Ada\n", 1)

    result = merged(text, replace(OLD, retires=END), NEW)

    assert result == text.replace("2027-01-20", "2027-01-30")


def test_removed_table_leaves_the_comments_around_it() -> None:
    """Those above the next key above all."""
    result = merged(TABLES, NEW)

    assert result == TABLES[: TABLES.index("[[keys]]")] + TABLES[TABLES.index("# Since") :]


def test_removed_last_table_leaves_the_end() -> None:
    """Also where another key takes its place."""
    assert "\n# Since the move.\n# The end.\n" in merged(TABLES, OLD)
    assert merged(TABLES, THIRD).startswith("# The keys of the shop.\n\n# Since the move.\n# The end.\n\n[[keys]]\n")


def test_array_of_inline_tables_stays_one() -> None:
    """A key more, a retirement and a key less."""
    more = merged(ARRAY, replace(OLD, retires=END), NEW, THIRD)
    less = merged(more, NEW, THIRD)

    assert "[[" not in more
    assert all(f"# {words}" in more for words in ("The keys", "The first", "Ada's", "The second", "The end"))
    assert "# The second" in less
    assert OLD.key.export() not in less


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("end", ["", ",", "|", ",|", "|# the end|", ",|# the end|", " # the end|", "|,|# the end|"])
def test_array_takes_another_key_however_it_ends(newline: str, end: str) -> None:
    """Without a comma before a comment, say, which is where one that was forgotten made a file of no keys."""
    entry = f'{{key = "{OLD.key.export()}", added = 2027-01-15T08:00:00Z, activates = 2027-01-15T08:00:00Z}}'
    text = f"keys = [{entry}{end}]|".replace("|", newline)

    more = merged(text, OLD, NEW, THIRD)
    merged(more, THIRD)

    assert text.count("# the end") == more.count("# the end")
    assert text.count(newline) > 1 or more.count(newline) == 1


def test_text_that_would_not_read_back_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of a layout on its way: the file stays as it was, and the error says what to do."""
    monkeypatch.setattr("tomlkit.dumps", lambda toml: ARRAY.replace("activates", "activate"))

    with pytest.raises(ConfigurationError, match=r"\[\[keys\]\]"):
        document(Schedule((OLD,)), ARRAY.encode())


def test_text_of_other_keys_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that reads well, and has lost a change."""
    monkeypatch.setattr("tomlkit.dumps", lambda toml: ARRAY)

    with pytest.raises(ConfigurationError, match="layout"):
        document(Schedule((OLD,)), ARRAY.encode())


def test_json_document_stays_json() -> None:
    """Whatever its file is called."""
    text = document(Schedule((OLD,)), as_json=True)

    result = document(Schedule((OLD, NEW)), b"\n " + text)

    assert Schedule((OLD, NEW)) == Schedule.parse(result)
    assert result.startswith(b"{")


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A document of the first four keys in some layout, and its comments outside of the entries."""
    newline = draw(st.sampled_from(["\n", "\n\n", "\r\n"]))
    equals = draw(st.sampled_from([" = ", "=", "\t= "]))
    comments = [f"# comment {number} [[keys]]" for number in range(draw(st.integers(0, 9)))]
    free = list(comments)

    def some() -> str:
        return "".join(free.pop() + newline for _ in range(draw(st.integers(0, 2))) if free)

    text = some() + newline
    for key in KEYS[:4]:
        fields = [f'key{equals}"{key.export()}"', f"added{equals}2027-01-15T08:00:00Z"]
        fields += [f"activates{equals}2027-01-15 08:00:00.000Z", f"retires{equals}2027-01-15T18:00:00+09:00"]
        text += some() + draw(st.sampled_from(["[[keys]]", "[[ keys ]]", '  [["keys"]]  # here'])) + newline
        text += newline.join(draw(st.permutations(fields[: draw(st.integers(3, 4))]))) + newline + some()
    return text.rstrip("\r\n") if draw(st.booleans()) else text, [each for each in comments if each not in free]


def changed(keys: tuple[ScheduledKey, ...], data: Any) -> Schedule:
    """Some of the keys, some of them with another retirement, and some new ones."""
    kept = [each for each in keys if data.draw(st.booleans())]
    dated = [replace(each, retires=END) if data.draw(st.booleans()) else each for each in kept]
    unused = [key for key in KEYS if key not in {each.key for each in keys}]
    new = [replace(OLD, key=key) for key in unused[: data.draw(st.integers(0, 3))]]
    return Schedule((*dated, *new)) if dated or new else Schedule(keys)


@given(layout=laid_out(), data=st.data())
def test_any_layout_takes_any_change(layout: tuple[str, list[str]], data: st.DataObject) -> None:
    """What is read back is the schedule, and no comment is lost."""
    text, comments = layout
    schedule = changed(Schedule.parse(text.encode()).keys, data)

    result = document(schedule, text.encode())

    assert schedule == Schedule.parse(result)
    assert [each for each in comments if each not in result.decode()] == []


@given(layout=laid_out(), changes=st.lists(st.data(), max_size=4))
def test_changes_follow_one_another(layout: tuple[str, list[str]], changes: list[st.DataObject]) -> None:
    """What was written is a layout like any other."""
    text = layout[0].encode()

    for data in changes:
        schedule = changed(Schedule.parse(text).keys, data)
        text = document(schedule, text)
        assert schedule == Schedule.parse(text)
