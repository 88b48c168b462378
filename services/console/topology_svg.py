"""The mesh as a picture: who calls whom, and whose events go where."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.console.html import Child, Html, el

WIDTH: Final = 148
HEIGHT: Final = 52
COLUMN: Final = 316
ROW: Final = 104
MARGIN: Final = 24

_ORDER: Final = ("open", "bad", "good", "event", "idle")
"""Whose labels have the best places."""


@dataclass(frozen=True, slots=True)
class Node:
    """Somebody who calls or is called."""

    name: str
    line: str
    """How it is, in a few words."""
    kind: str
    """good, bad, warn or idle."""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """Calls or events on their way."""

    source: str
    target: str
    kind: str
    """idle, good, bad, open or event."""
    label: str = ""
    title: str = ""
    """All of it, in words."""


def draw(nodes: Sequence[Node], arrows: Sequence[Arrow], title: str) -> Html:
    """The picture; callers stand left of whom they call."""
    calls = [(each.source, each.target) for each in arrows if each.kind != "event"]
    events = [(each.source, each.target) for each in arrows if each.kind == "event"]
    places = _places([node.name for node in nodes], calls, events)
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN + 40
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN
    taken: list[tuple[float, ...]] = [
        (x + WIDTH / 2, y + HEIGHT / 2, WIDTH / 2, HEIGHT / 2) for x, y in places.values()
    ]
    drawn = [
        _arrow(each, places, taken)
        for each in sorted(arrows, key=lambda each: _ORDER.index(each.kind))
    ]
    # What is drawn last is on top.
    lines, labels = [line for line, _ in reversed(drawn)], [label for _, label in drawn]
    return el(
        "svg",
        el("title", title),
        el("defs", [_tip(kind) for kind in ("idle", "good", "bad", "open", "event")]),
        lines,
        [_node(node, *places[node.name]) for node in nodes],
        labels,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="group",
        aria_label=title,
    )


def layers(
    names: Sequence[str], calls: Collection[tuple[str, str]], events: Collection[tuple[str, str]]
) -> dict[str, int]:
    """Columns, from the left: one more than the last of one's callers, circles left out.

    Who takes events and is called by nobody stands right of their sources. A call to a source that
    takes none of the caller's own events is no reason to stand left of it: it catches up by that.
    """
    ways = {(a, b) for a, b in calls if a != b and not ((b, a) in events and (a, b) not in events)}
    called, takers = {b for _, b in ways}, {b for _, b in events}
    found: dict[str, int] = {}

    def visit(name: str, depth: int, above: frozenset[str]) -> None:
        if depth > found.get(name, -1):
            found[name] = depth
            for target in names:
                if (name, target) in ways and target not in above:
                    visit(target, depth + 1, above | {target})

    for name in sorted(names, key=lambda name: name in called):
        if name not in found and (name in called or name not in takers):
            visit(name, 0, frozenset({name}))
    for name in names:
        before = [found.get(source, 0) for source, taker in events if taker == name]
        found.setdefault(name, 1 + max(before, default=-1))
    return found


def _places(
    names: Sequence[str], calls: Collection[tuple[str, str]], events: Collection[tuple[str, str]]
) -> dict[str, tuple[int, int]]:
    columns: dict[int, list[str]] = {}
    for name, layer in layers(names, calls, events).items():
        columns.setdefault(layer, []).append(name)
    most = max(map(len, columns.values()))
    return {
        name: (
            MARGIN + layer * COLUMN,
            MARGIN + int((row + (most - len(column)) / 2) * ROW),
        )
        for layer, column in columns.items()
        for row, name in enumerate(sorted(column, key=names.index))
    }


def _node(node: Node, x: int, y: int) -> Html:
    shape = el(
        "g",
        el("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=8),
        el("text", node.name, x=x + 12, y=y + 22, class_="name"),
        " ",  # else the link's name would run both together
        el("text", node.line, x=x + 12, y=y + 40, class_="line"),
        class_=f"node {node.kind}",
    )
    return el("a", shape, href=node.href) if node.href else shape


def _arrow(
    arrow: Arrow, places: Mapping[str, tuple[int, int]], taken: list[tuple[float, ...]]
) -> tuple[Html, Child]:
    """The line, and its label, where nothing else is `taken`: middle and half a size."""
    (ax, ay), (bx, by) = places[arrow.source], places[arrow.target]
    shift = 12 if arrow.kind == "event" else -8
    y1, y2 = ay + HEIGHT / 2 + shift, by + HEIGHT / 2 + shift
    if bx > ax:
        x1, x2 = ax + WIDTH, bx - 4
        bend = (x2 - x1) * 0.5
        c1, c2 = x1 + bend, x2 - bend
    else:
        x1, x2 = (ax + WIDTH, bx + WIDTH + 4) if bx == ax else (ax, bx + WIDTH + 4)
        c1, c2 = (x1 + 56, x2 + 56) if bx == ax else (x1 - 60, x2 + 60)
    path = f"M{x1} {y1:.0f}C{c1:.0f} {y1:.0f} {c2:.0f} {y2:.0f} {x2} {y2:.0f}"
    line = el(
        "path",
        el("title", arrow.title or f"{arrow.source} to {arrow.target}"),
        d=path,
        class_=f"arrow {arrow.kind}",
        marker_end=f"url(#tip-{arrow.kind})",
    )
    if not arrow.label:
        return line, None
    # The middle of the cubic, or of the last gap that it crosses; labels stand above it.
    x, y = (x1 + 3 * c1 + 3 * c2 + x2) / 8, (y1 + y2) / 2
    if bx - ax > COLUMN:
        x, y = x2 - (COLUMN - WIDTH) / 2, y2 + (y1 - y2) * 0.1
    half = len(arrow.label) * 3.3
    while any(abs(x - u) < half + w and abs(y - 10 - v) < 8 + h for u, v, w, h in taken):
        y += 4
    taken.append((x, y - 10, half, 8))
    label = el("text", arrow.label, x=f"{x:.0f}", y=f"{y - 6:.0f}", class_=f"label {arrow.kind}")
    return line, label


def _tip(kind: str) -> Html:
    return el(
        "marker",
        el("path", d="M0 0L8 4L0 8z", class_=f"tip {kind}"),
        id=f"tip-{kind}",
        markerWidth=8,
        markerHeight=8,
        refX=7,
        refY=4,
        orient="auto",
        markerUnits="userSpaceOnUse",
    )
