"""The picture of what a session costs, as an SVG that is readable on light and on dark pages."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from actions import READ, WRITE
from cases import FLOOR, Case
from matplotlib.figure import Figure
from measuring import kilobytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cases import Entry
    from matplotlib.axes import Axes
    from peers import Peer

PANELS: Final = {
    f"{action.name}, session of {kilobytes(size)}": Case(action, size)
    for size in (100, 1024)
    for action in (READ, WRITE)
}
PAPER, INK, FAINT = "#ffffff", "#1f2329", "#dfe3e8"
OURS, ENCRYPTED, SIGNED, PRIMITIVES = "#0f8a5f", "#7b89a0", "#c3cad6", "#c2410c"
# The same colours for dark pages.
DARK: Final = {
    PAPER: "#0f1318",
    INK: "#e4e8ee",
    FAINT: "#29303a",
    OURS: "#34c48c",
    ENCRYPTED: "#8492aa",
    SIGNED: "#465164",
    PRIMITIVES: "#fb923c",
}
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cookiesession",  # and the file the same where the figures are
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(path: Path, found: Mapping[Case, Sequence[Entry]], machine: str) -> None:
    """Writes the picture of `PANELS` to `path`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 8.2), facecolor=PAPER)
        for axes, (title, case) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            panel(axes, title, found[case])
        figure.suptitle(
            "What a session adds to a request, in µs of CPU time",
            x=0.012,
            y=0.985,
            ha="left",
            fontsize=14,
            weight="bold",
        )
        legend(figure)
        figure.text(0.012, 0.012, machine, fontsize=7.5)
        figure.tight_layout(rect=(0, 0.025, 1, 0.975), w_pad=2.5, h_pad=2)
        figure.savefig(path, metadata={"Date": None})
    path.write_text(with_dark(path.read_text()))


def panel(axes: Axes, title: str, entries: Sequence[Entry]) -> None:
    """The bars of one case, the shortest on top."""
    cost = {each.peer: statistics.median(each.contender.added()) for each in entries if each.contender is not None}
    peers = sorted(cost, key=lambda peer: cost[peer])
    longest = max(cost.values())
    for place, peer in enumerate(peers):
        axes.barh(place, cost[peer], height=0.72, color=colour(peer), zorder=2)
        figures = f"{cost[peer]:.1f}" if cost[peer] < 100 else f"{cost[peer]:.0f}"
        axes.text(cost[peer] + longest * 0.012, place, figures, va="center", fontsize=8.5, zorder=3)
    axes.set_yticks(range(len(peers)), [peer.title for peer in peers])
    axes.set_ylim(len(peers) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.1)
    axes.set_title(title, loc="left", fontsize=10.5, weight="bold")
    axes.set_facecolor(PAPER)
    axes.grid(axis="x", color=FAINT, linewidth=0.8, zorder=0)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def colour(peer: Peer) -> str:
    """The floor, ours, encrypted by another, or only signed."""
    if peer is FLOOR:
        return PRIMITIVES
    if peer.name.startswith("cookiesession"):
        return OURS
    return ENCRYPTED if "AES" in peer.protection or "Fernet" in peer.protection else SIGNED


def legend(figure: Figure) -> None:
    """What the colours mean."""
    x = 0.012
    for shade, words, width in (
        (PRIMITIVES, "the primitives, by hand", 0.18),
        (OURS, "cookiesession, encrypted", 0.19),
        (ENCRYPTED, "others, encrypted", 0.145),
        (SIGNED, "others, signed only", 0.15),
    ):
        figure.text(x, 0.937, "■", color=shade, fontsize=11, weight="bold")
        figure.text(x + 0.016, 0.938, words, fontsize=9)
        x += width


def with_dark(svg: str) -> str:
    """The picture with other colours where the page is dark. Paper and ink change together: neither is ever alone."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    head, defs, rest = svg.partition("<defs>")
    return f"{head}{style}\n {defs}{rest}"
