"""The demonstration's application, through httpx and without a socket."""

from __future__ import annotations

import base64
import hashlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest

from cookiesession import KeySource
from cookiesession.cookies import LINE_LIMIT
from cookiesession.demo import create_app
from cookiesession.demo.app import RotatingRing
from cookiesession.events import SessionEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

COOKIE = "__Host-demo_session"
ACTIONS = ("set", "remove", "grow", "shrink", "persistent", "renew", "clear", "rotate", "tamper")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough."""
    return "asyncio"


@pytest.fixture
def app() -> Starlette:
    """A demonstration of one's own."""
    return create_app()


@pytest.fixture
async def visitor(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A browser's part: it keeps the cookies that it is given."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://demo.test") as client:
        yield client


async def session_of(visitor: httpx.AsyncClient) -> dict[str, Any]:
    """What a next request tells of the session."""
    found: dict[str, Any] = (await visitor.get("/session")).raise_for_status().json()
    return found


async def events_of(visitor: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The events so far, the newest first."""
    found: list[dict[str, Any]] = (await visitor.get("/server")).raise_for_status().json()["events"]
    return found


async def put(visitor: httpx.AsyncClient, name: str, value: str) -> httpx.Response:
    """Sets a field."""
    return (await visitor.post("/set", json={"name": name, "value": value})).raise_for_status()


async def grow(visitor: httpx.AsyncClient, times: int) -> None:
    """Makes the session so many kilobytes larger."""
    for _ in range(times):
        (await visitor.post("/grow")).raise_for_status()


async def test_page_runs_its_own_script_and_style_and_no_other(visitor: httpx.AsyncClient) -> None:
    """The policy names the hash of each inline block, and nothing is loaded from elsewhere."""
    page = await visitor.get("/")

    blocks = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page.text, re.DOTALL)
    policy = page.headers["content-security-policy"]
    assert len(blocks) == 2
    for block in blocks:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//|@import|url\(| on\w+=| style=""", page.text)


async def test_page_leaves_the_session_alone(visitor: httpx.AsyncClient) -> None:
    """It has no cookie to write, varies by none, and reports nothing."""
    page = await visitor.get("/")

    assert "set-cookie" not in page.headers
    assert "vary" not in page.headers
    assert await events_of(visitor) == []


async def test_page_knows_the_line_limit(visitor: httpx.AsyncClient) -> None:
    """Its gauges are full where the library's lines are."""
    page = await visitor.get("/")

    assert f"const LINE_LIMIT = {LINE_LIMIT};" in page.text


async def test_page_can_tell_of_every_event(visitor: httpx.AsyncClient) -> None:
    """No kind of event finds the page without words. It has no store and no key file."""
    page = await visitor.get("/")

    told = page.text.partition("const STORY = {")[2].partition("};")[0]
    assert set(re.findall(r"^  (\w+):", told, re.MULTILINE)) == {kind.__name__ for kind in get_args(SessionEvent)}


async def test_visitor_without_data_has_no_cookie(visitor: httpx.AsyncClient) -> None:
    """Looking at an empty session writes nothing."""
    session = await session_of(visitor)

    assert session["is_new"]
    assert session["fields"] == {}
    assert session["cookies"] == []
    assert session["key_id"] is None
    assert not visitor.cookies


async def test_field_is_added_changed_and_removed(visitor: httpx.AsyncClient) -> None:
    """Each change is there on the next request."""
    await put(visitor, "tea", "oolong")
    await put(visitor, "cup", "blue")
    added = (await session_of(visitor))["fields"]
    await put(visitor, "tea", "sencha")
    changed = (await session_of(visitor))["fields"]
    await visitor.post("/remove", json={"name": "tea"})
    removed = (await session_of(visitor))["fields"]

    assert added == {"tea": "oolong", "cup": "blue"}
    assert changed == {"tea": "sencha", "cup": "blue"}
    assert removed == {"cup": "blue"}


async def test_removing_what_is_not_there_changes_nothing(visitor: httpx.AsyncClient) -> None:
    """The answer is the same, and no cookie is written."""
    answer = await visitor.post("/remove", json={"name": "tea"})

    assert answer.status_code == HTTPStatus.NO_CONTENT
    assert "set-cookie" not in answer.headers


async def test_cookie_is_described_as_it_was_sent(visitor: httpx.AsyncClient) -> None:
    """The line's length is that of the real Set-Cookie line, and the key is the ring's primary."""
    answer = await put(visitor, "tea", "oolong")

    session = await session_of(visitor)
    server = (await visitor.get("/server")).json()
    assert session["cookies"] == [{"name": COOKIE, "line": len(answer.headers["set-cookie"])}]
    assert session["size"] == len(visitor.cookies[COOKIE])
    assert session["key_id"] == server["ring"][0]["id"]
    assert not session["is_new"]


async def test_session_grows_into_a_second_cookie_and_back(visitor: httpx.AsyncClient) -> None:
    """5 KB of data are 7 KB of cookie text, in two lines that each pass; shrinking deletes the second."""
    await grow(visitor, times=5)
    large = await session_of(visitor)
    for _ in range(4):
        (await visitor.post("/shrink")).raise_for_status()
    small = await session_of(visitor)

    assert [cookie["name"] for cookie in large["cookies"]] == [COOKIE, f"{COOKIE}.1"]
    assert large["size"] > 6900
    assert all(cookie["line"] <= LINE_LIMIT for cookie in large["cookies"])
    assert [cookie["name"] for cookie in small["cookies"]] == [COOKIE]
    assert set(visitor.cookies) == {COOKIE}


async def test_session_that_shrinks_to_nothing_has_no_cookie(visitor: httpx.AsyncClient) -> None:
    """The last kilobyte takes the cookie with it, and there is nothing less than nothing."""
    await grow(visitor, times=1)
    (await visitor.post("/shrink")).raise_for_status()
    cookies = set(visitor.cookies)
    again = await visitor.post("/shrink")

    assert cookies == set()
    assert again.status_code == HTTPStatus.NO_CONTENT


async def test_session_that_does_not_fit_is_refused_and_stays(visitor: httpx.AsyncClient) -> None:
    """The answer names size, limit and the largest entry; the browser keeps what it had."""
    await grow(visitor, times=5)
    before = dict(visitor.cookies)

    answer = await visitor.post("/grow")

    newest = (await events_of(visitor))[0]
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert re.match(r"the session takes \d+ bytes.* and \d+ fit; .*filler \(\d+ bytes\)", answer.text)
    assert newest["event"] == "TooLarge"
    assert newest["size"] > newest["limit"]
    assert dict(visitor.cookies) == before
    assert len((await session_of(visitor))["fields"]["filler"]) == 5 * 1024


async def test_session_may_end_with_the_browser(visitor: httpx.AsyncClient) -> None:
    """Without an age browsers drop a cookie when they close; toggling again brings the age back."""
    kept = await put(visitor, "tea", "oolong")
    dropped = await visitor.post("/persistent")
    session = await session_of(visitor)
    kept_again = await visitor.post("/persistent")

    assert "Max-Age=" in kept.headers["set-cookie"]
    assert "Max-Age=" not in dropped.headers["set-cookie"]
    assert not session["persistent"]
    assert session["cookies"] == [{"name": COOKIE, "line": len(dropped.headers["set-cookie"])}]
    assert "Max-Age=" in kept_again.headers["set-cookie"]


async def test_renewed_session_keeps_its_data(visitor: httpx.AsyncClient) -> None:
    """Nothing but the identity changes, and that is enough to write."""
    await put(visitor, "tea", "oolong")

    answer = await visitor.post("/renew")

    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=")
    assert (await session_of(visitor))["fields"] == {"tea": "oolong"}


async def test_cleared_session_leaves_no_cookie(visitor: httpx.AsyncClient) -> None:
    """Both chunks go."""
    await grow(visitor, times=4)

    answer = await visitor.post("/clear")

    assert len(answer.headers.get_list("set-cookie")) == 2
    assert not visitor.cookies
    assert (await session_of(visitor))["fields"] == {}
    assert "Cleared" in [event["event"] for event in await events_of(visitor)]


async def test_rotation_reseals_on_the_next_request(visitor: httpx.AsyncClient) -> None:
    """Rotating touches no session; the next request opens it under the old key and seals it under the new."""
    await put(visitor, "tea", "oolong")
    before = await session_of(visitor)

    rotated = await visitor.post("/rotate")
    first = await session_of(visitor)
    second = await session_of(visitor)

    ring = (await visitor.get("/server")).json()["ring"]
    [resealed] = [event for event in await events_of(visitor) if event["event"] == "Resealed"]
    assert "set-cookie" not in rotated.headers
    assert [key["id"] for key in ring][1:] == [before["key_id"]]
    assert (resealed["old_key_id"], resealed["key_id"]) == (before["key_id"], ring[0]["id"])
    assert (first["key_id"], second["key_id"]) == (before["key_id"], ring[0]["id"])
    assert second["fields"] == before["fields"]
    assert second["expires_at"] == before["expires_at"]


async def test_key_that_left_the_ring_opens_nothing(visitor: httpx.AsyncClient) -> None:
    """After four rotations an unused session is nobody's."""
    await put(visitor, "tea", "oolong")

    for _ in range(4):
        await visitor.post("/rotate")

    session = await session_of(visitor)
    reasons = [event["reason"] for event in await events_of(visitor) if event["event"] == "Rejected"]
    assert session["is_new"]
    assert reasons == ["unknown_key"]


async def test_changed_character_is_rejected(visitor: httpx.AsyncClient) -> None:
    """A cookie that does not authenticate gives a fresh session, and is deleted."""
    await put(visitor, "tea", "oolong")

    (await visitor.post("/tamper")).raise_for_status()

    sent = set(visitor.cookies)
    session = await session_of(visitor)
    reasons = [event["reason"] for event in await events_of(visitor) if event["event"] == "Rejected"]
    assert sent == {COOKIE}
    assert session["is_new"]
    assert session["fields"] == {}
    assert session["key_id"] is None
    assert reasons == ["forged"]
    assert not visitor.cookies


@pytest.mark.parametrize(("value", "changed"), [("AAA", "ABA"), ("BBB", "BAB")], ids=["A-to-B", "other-to-A"])
async def test_changed_character_is_always_another(visitor: httpx.AsyncClient, value: str, changed: str) -> None:
    """Whatever stands in the middle, something else stands there afterwards."""
    answer = await visitor.post("/tamper", headers={"cookie": f"{COOKIE}={value}"})

    assert answer.headers["set-cookie"].startswith(f"{COOKIE}={changed};")


@pytest.mark.parametrize("cookie", ["", "other=1", f"{COOKIE}=", f'{COOKIE}="a\\012b"', f'{COOKIE}="a\\073 b"'])
async def test_only_a_sealed_cookie_is_changed(visitor: httpx.AsyncClient, cookie: str) -> None:
    """Nothing else of a request finds its way into a Set-Cookie line."""
    answer = await visitor.post("/tamper", headers={"cookie": cookie})

    assert answer.status_code == HTTPStatus.CONFLICT
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b'"name"',
        b'["name", "value"]',
        b"{}",
        b'{"name": 1, "value": []}',
        b"[" * 60_000,
        b"1" * 60_000,
    ],
    ids=["empty", "cut", "no-text", "null", "string", "list", "no-names", "no-strings", "deep", "long-number"],
)
@pytest.mark.parametrize("path", ["/set", "/remove"])
async def test_body_that_is_not_asked_for_is_refused(visitor: httpx.AsyncClient, path: str, body: bytes) -> None:
    """Anything but the object is answered with what would be right."""
    answer = await visitor.post(path, content=body)

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.text.startswith("expected a JSON object with the strings: name")
    assert "set-cookie" not in answer.headers


async def test_endless_body_is_cut_off(visitor: httpx.AsyncClient) -> None:
    """No more is read than a session could ever hold."""
    answer = await visitor.post("/set", content=b" " * 70_000)

    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


async def test_text_that_cannot_be_encoded_is_refused(visitor: httpx.AsyncClient) -> None:
    """A lone surrogate is valid JSON and no text: the answer names the field, and the session stays."""
    await put(visitor, "tea", "oolong")

    answer = await visitor.post("/set", content=rb'{"name": "cup", "value": "\ud800"}')

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "session['cup'] cannot be encoded" in answer.text
    assert (await session_of(visitor))["fields"] == {"tea": "oolong"}


@pytest.mark.parametrize("action", ACTIONS)
async def test_action_is_no_link_to_follow(visitor: httpx.AsyncClient, action: str) -> None:
    """A GET, which SameSite=Lax lets another site make, does nothing."""
    answer = await visitor.get(f"/{action}")

    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("value", ["x", "\xff" * 5000, "2.AAAA", '"', "A" * 9000], ids=lambda value: value[:4])
async def test_hostile_cookie_harms_no_action(visitor: httpx.AsyncClient, action: str, value: str) -> None:
    """Whatever a client sends as a session, the answer is an ordinary one."""
    headers = [(b"cookie", f"{COOKIE}={value}".encode("latin-1"))]

    acted = await visitor.post(f"/{action}", headers=headers, json={"name": "tea", "value": "oolong"})
    seen = await visitor.get("/session", headers=headers)

    assert acted.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.CONFLICT}
    assert seen.json()["is_new"]


async def test_secrets_and_ids_are_never_shown(app: Starlette, visitor: httpx.AsyncClient) -> None:
    """Key ids are; the secrets, the token and the session's id are not."""
    await put(visitor, "tea", "oolong")
    await visitor.post("/rotate")
    await session_of(visitor)

    shown = "".join([(await visitor.get(path)).text for path in ("/", "/session", "/server")])

    ring = app.state.ring.current(0)
    assert len(ring.keys) == 2
    assert not any(key.export().rpartition(".")[2] in shown for key in ring.keys)
    assert visitor.cookies[COOKIE] not in shown
    assert not re.search(r"\b[0-9a-f]{32}\b", shown)


async def test_event_log_is_bounded(visitor: httpx.AsyncClient) -> None:
    """Old events make room for new ones."""
    await put(visitor, "tea", "oolong")
    for _ in range(80):
        await visitor.get("/session")

    events = await events_of(visitor)

    assert len(events) == 60
    assert [event["number"] for event in events] == list(range(81, 21, -1))


async def test_plain_http_gets_a_plain_cookie() -> None:
    """Without TLS the cookie has neither prefix nor Secure, which Safari would refuse."""
    transport = httpx.ASGITransport(create_app(secure=False))

    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as visitor:
        answer = await put(visitor, "tea", "oolong")
        session = await session_of(visitor)

    assert answer.headers["set-cookie"].startswith("demo_session=")
    assert "Secure" not in answer.headers["set-cookie"]
    assert session["fields"] == {"tea": "oolong"}


def test_rotating_ring_is_a_key_source() -> None:
    """What has `current()` is all that the middleware asks for."""
    assert isinstance(RotatingRing(), KeySource)
