"""How the cost grows: with the session, with the keys, with the other cookies; and how long the cookie becomes."""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import frameworks  # noqa: F401 - puts the frameworks among the peers
from actions import READ, WRITE, Action
from browser import Jar
from cases import FLOOR, Case, contest, entries
from contest import BLOCK, Contender, cookie_lines, measure
from measuring import SMALL, Report, environment, json_size, middle, printer, session
from peers import OURS, PEERS, STARLETTE, UNSEEN, AnotherRing, Peer, bare, fill, ours

from cookiesession import SessionTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cases import Entry

SIZES: Final = (100, 256, 512, 1024, 2048, 4096, 7168)  # bytes of JSON
KEYS: Final = (1, 2, 5, 10, 20, 50, 100)
COOKIES: Final = (0, 1, 5, 10, 20, 50)
OTHERS: Final = 4  # cookies besides the session's

# A process that remembers a cookie looks for no key.
UNSEEN_FERNET: Final = Peer("cookiesession, unseen", "Fernet", ours("fernet", source=AnotherRing), bare, rotates=True)


def cost(found: Sequence[Entry], peer: Peer) -> str:
    """What a library added."""
    return next(middle(each.contender.added()) for each in found if each.peer is peer and each.contender is not None)


async def payload_report(rounds: int, requests: int) -> Report:
    """By the size of the session."""
    found = {
        (action.name, size): await entries(Case(action, size), [OURS, STARLETTE], OTHERS)
        for size in SIZES
        for action in (READ, WRITE)
    }
    await measure([contest(each) for each in found.values()], rounds, requests)
    who = (FLOOR, OURS, STARLETTE)
    rows = [
        (f"{size:,}", *(cost(found[action.name, size], peer) for action in (READ, WRITE) for peer in who))
        for size in SIZES
    ]
    columns = [f"{action.name}: {peer.name.partition(',')[0]}" for action in (READ, WRITE) for peer in who]
    return Report("Cost by bytes of JSON in the session", "", ("payload", *columns), rows)


async def keyed(peer: Peer, action: Action, *, sealed_by: int, keys: int) -> Contender:
    """A request whose cookie was sealed when there were `sealed_by` keys, with `keys` of them now."""
    jar = Jar()
    jar.take(await cookie_lines(peer.application(fill(SMALL), sealed_by), Jar().headers(0)))
    contender = Contender(peer.name, peer.application(action, keys), jar.headers(OTHERS))
    contender.bare = Contender("bare", peer.bare(), contender.headers)
    return contender


async def key_report(rounds: int, requests: int) -> Report:
    """By the number of keys in the ring."""
    found = {
        keys: [
            await keyed(peer, READ, sealed_by=sealed_by, keys=keys)
            for peer in (UNSEEN, UNSEEN_FERNET)
            for sealed_by in (keys, 1)
        ]
        for keys in KEYS
    }
    bare = next(iter(found.values()))[0].bare
    if bare is None:
        raise RuntimeError("nothing to compare with")
    for contenders in found.values():
        for contender in contenders:
            contender.bare = bare
    await measure([[bare, *(each for contenders in found.values() for each in contenders)]], rounds, requests)
    return Report(
        "Cost of a first read by the number of keys",
        "A session of 100 bytes that is new to the process: for one that it has opened it looks for no key.\n"
        "It is sealed under the first key, or under the last and so sealed anew.\n"
        "An envelope names its key; a Fernet token does not, and every Fernet key is tried, newest first.",
        ("keys", "XAES, first", "XAES, last", "Fernet, first", "Fernet, last"),
        [(str(keys), *(middle(each.added()) for each in contenders)) for keys, contenders in found.items()],
    )


async def cookie_report(rounds: int, requests: int) -> Report:
    """By the number of other cookies in the request."""
    actions: dict[str, Action | None] = {"untouched": None, "read": READ}
    found = {
        (name, count): await entries(Case(action, SIZES[0]), [OURS, STARLETTE], count)
        for count in COOKIES
        for name, action in actions.items()
    }
    await measure([contest(each) for each in found.values()], rounds, requests)
    who = (OURS, STARLETTE)
    return Report(
        "Cost by the number of other cookies",
        "A session of 100 bytes.",
        ("others", *(f"{name}: {peer.name}" for name in actions for peer in who)),
        [(str(count), *(cost(found[name, count], peer) for name in actions for peer in who)) for count in COOKIES],
    )


def one_text(size: int) -> dict[str, Any]:
    """A session of `size` bytes of JSON in which there is least to save: one long text."""
    return {"note": "." * (size - json_size({"note": ""}))}


async def length_report() -> Report:
    """How long the cookies become."""
    as_long = (
        *("cookiesession, AES-256-GCM", "cookiesession, unseen", "cookiesession, Struct", "cookiesession, pydantic"),
        "starsessions, signed",
    )
    peers = [peer for peer in PEERS if peer.title not in as_long and peer.name != "authx-extra"]
    rows = []
    for size in SIZES:
        for kind, data in (("fields", session(size)), ("one text", one_text(size))):
            rows.append((kind, f"{size:,}", *[await length(peer, data) for peer in peers]))
    return Report(
        "Bytes of cookie text, without names and attributes",
        "In how many cookies, if there are several. † No browser keeps a cookie of over 4,096 bytes.\n"
        "Flask compresses, and these texts are easy to compress; cookiesession does where it is asked to.",
        ("session", "payload", *(peer.title for peer in peers)),
        rows,
    )


async def length(peer: Peer, data: dict[str, Any]) -> str:
    """The length of the cookies that hold `data`."""
    jar = Jar()
    try:
        jar.take(await cookie_lines(peer.application(fill(data), 1), jar.headers(0)))
    except (ValueError, SessionTooLarge):  # of starsessions, and ours
        return "refused"
    several = f" in {len(jar.cookies)}" if len(jar.cookies) > 1 else ""
    return f"{jar.size():,}{several}{' †' if jar.refused else ''}"


async def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="How the cost of a session grows.")
    parser.add_argument("--rounds", type=int, help="how often each case runs (default: 60, or 5)")
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--block", type=int, default=BLOCK, help="requests that are timed together")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 60)
    logging.getLogger("cookiesession").setLevel(logging.ERROR)  # it warns of the second chunk
    console = printer()
    console.print(environment("cookiesession", "starlette", "cryptography", "msgspec"))
    console.print(f"µs of CPU time over a bare application, medians of {rounds} rounds of {options.block} requests.")
    for report in (payload_report, key_report, cookie_report):
        (await report(rounds, options.block)).show(console)
    (await length_report()).show(console)


if __name__ == "__main__":
    asyncio.run(main())
