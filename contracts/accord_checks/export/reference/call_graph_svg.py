"""The picture of who calls whom, as inline SVG."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from accord_checks.export.reference.call_edges import Edge, Kind, service_of
from accord_checks.export.reference.graph_layout import Layout, Link, Point, Size, layered
from accord_checks.export.reference.html_parts import anchor, escaped, human
from accord_checks.export.resolved_contracts import ResolvedContracts

_HEIGHT: Final = 44.0
_MARGIN: Final = 24.0
_LETTER: Final = 7.8
"""Mean width of a letter in pixels, on the generous side: fonts differ."""
_SMALLEST: Final = 0.8
"""The picture shrinks with the window to this part of its size; then it is scrolled."""
_DRAWN: Final = (Kind.CALL, Kind.SAGA, Kind.ALLOW)
"""Compensations follow the steps that they undo; drawn too, they would hide the rest."""


def picture(contracts: ResolvedContracts, edges: Iterable[Edge]) -> str:
    """One node a service or identity, one line for all calls from one to another.

    A service without calls is left out. Empty if there are none at all.
    """
    lines: dict[tuple[Link, Kind], list[Edge]] = defaultdict(list)
    for edge in edges:
        if edge.kind in _DRAWN:
            lines[(service_of(edge.source), service_of(edge.target)), edge.kind].append(edge)
    links = [link for link, _ in lines]
    known = {service.name for service in contracts.services}
    names = list(dict.fromkeys(itertools.chain.from_iterable(links)))
    layout = layered({name: _size(name) for name in names}, links)
    if not names:
        return ""
    drawn = [
        *(_line(link, kind, merged, layout) for (link, kind), merged in lines.items()),
        *(_node(name, layout, linked=name in known) for name in names),
    ]
    width, height = layout.size.width + 2 * _MARGIN, layout.size.height + 2 * _MARGIN
    kinds = [kind for kind in _DRAWN if any(kind is used for _, used in lines)]
    return (
        f'<div class="picture" tabindex="0" role="region" aria-label="Call graph, scrollable">'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f}'
        f' {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        f' style="min-width:{width * _SMALLEST:.0f}px" role="group"'
        f' aria-label="Who calls whom; the table below says the same in words">'
        f"<defs>{''.join(_arrow(kind) for kind in kinds)}</defs>{''.join(drawn)}</svg></div>"
        f"<ul class='legend'>{''.join(_legend(kind) for kind in kinds)}</ul>"
    )


def _class(kind: Kind) -> str:
    return f"edge-{kind.name.lower()}"


def _arrow(kind: Kind) -> str:
    return (
        f'<marker id="arrow-{kind.name.lower()}" class="{_class(kind)}" viewBox="0 0 8 8"'
        ' refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker>'
    )


def _legend(kind: Kind) -> str:
    return (
        f'<li><svg width="44" height="12" aria-hidden="true"><path class="{_class(kind)}"'
        f' d="M2 6H40" marker-end="url(#arrow-{kind.name.lower()})"/></svg> {kind.value}</li>'
    )


def _labels(name: str) -> tuple[str, str]:
    """What a node says in large and in small: a service and its package, or an identity."""
    scheme, found, path = name.partition("://")
    if found:
        trust, _, last = path.partition("/")
        return last or trust, f"{scheme}://{trust}" if last else scheme
    package, _, last = name.rpartition(".")
    return last, package


def _size(name: str) -> Size:
    large, small = _labels(name)
    return Size(max(len(large) * _LETTER, len(small) * _LETTER * 0.8, 60.0) + 24.0, _HEIGHT)


def _node(name: str, layout: Layout, *, linked: bool) -> str:
    (x, y), size = layout.nodes[name], _size(name)
    large, small = _labels(name)
    kind = "service" if linked else "identity"
    middle = x + size.width / 2
    box = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{size.width:.1f}" height="{size.height:.0f}"'
        f' rx="{8 if linked else 22}"/>'
        f'<text x="{middle:.1f}" y="{y + (19 if small else 26):.1f}">{escaped(large)}</text>'
        f'<text class="small" x="{middle:.1f}" y="{y + 34:.1f}">{escaped(small)}</text>'
    )
    if linked:
        box = f'<a href="#{anchor(name)}">{box}</a>'
    return f'<g class="node {kind}"><title>{escaped(name)}</title>{box}</g>'


def _line(link: Link, kind: Kind, edges: Sequence[Edge], layout: Layout) -> str:
    if link in layout.links:
        way = _curve(layout.links[link])
    else:
        (x, y), size = layout.nodes[link[0]], _size(link[0])
        right = x + size.width - 12
        way = f"M{right - 24:.1f} {y:.1f}c0 -26 24 -26 24 -2"
    said = "\n".join(_said(edge) for edge in edges)
    return (
        f'<path class="{_class(kind)}" d="{way}" marker-end="url(#arrow-{kind.name.lower()})">'
        f"<title>{escaped(said)}</title></path>"
    )


def _said(edge: Edge) -> str:
    allowed = f" ({human(edge.timeout)})" if edge.timeout is not None else ""
    return f"{edge.source.removeprefix('/')} {edge.kind.value} {edge.target[1:]}{allowed}"


def _curve(points: Sequence[Point]) -> str:
    way = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        bend = (to_x - x) / 2
        way.append(f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
    return "".join(way)
