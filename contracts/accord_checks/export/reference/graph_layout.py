"""Where the nodes of a directed graph are drawn: in layers, from left to right.

The four steps of Sugiyama's method ("Methods for Visual Understanding of Hierarchical System
Structures", 1981), each in its simplest form: edges that close a cycle are turned round, layers are
the longest paths, the order within a layer follows the mean of the neighbours' (barycentre), and
long edges run through an invisible node in each layer that they pass. Groups of nodes that have
nothing to do with each other are laid out one by one and put below each other.
"""

import graphlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Node: TypeAlias = str
Link: TypeAlias = tuple[Node, Node]
Point: TypeAlias = tuple[float, float]

_SWEEPS: Final = 12
_LAYER_GAP: Final = 56.0
_NODE_GAP: Final = 18.0
_GROUP_GAP: Final = 2 * _NODE_GAP


@dataclass(frozen=True, slots=True)
class Size:
    """Of a node, in pixels."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies, in pixels from the upper left."""

    nodes: Mapping[Node, Point]
    """Upper left corners."""
    links: Mapping[Link, tuple[Point, ...]]
    """Points that a link runs through, from its source to its target."""
    size: Size


def layered(nodes: Mapping[Node, Size], links: Sequence[Link]) -> Layout:
    """Lay out a graph. A link from a node to itself has no points.

    The same input gives the same layout.
    """
    corners: dict[Node, Point] = {}
    ways: dict[Link, tuple[Point, ...]] = {}
    width = height = 0.0
    for group in _groups(nodes, links):
        top = height + _GROUP_GAP if corners else 0.0
        found = _connected(
            {node: nodes[node] for node in group}, [link for link in links if link[0] in group]
        )
        corners |= {node: (x, y + top) for node, (x, y) in found.nodes.items()}
        ways |= {
            link: tuple((x, y + top) for x, y in points) for link, points in found.links.items()
        }
        width, height = max(width, found.size.width), top + found.size.height
    return Layout(corners, ways, Size(width, height))


def _groups(nodes: Mapping[Node, Size], links: Iterable[Link]) -> Iterator[list[Node]]:
    """The nodes that links join, directly or not, in the order in which they are given."""
    joined: dict[Node, list[Node]] = defaultdict(list)
    for source, target in links:
        joined[source].append(target)
        joined[target].append(source)
    grouped: set[Node] = set()
    for start in nodes:
        group, waiting = set[Node](), [start]
        while waiting:
            node = waiting.pop()
            if node not in grouped:
                grouped.add(node)
                group.add(node)
                waiting += joined[node]
        if group:
            yield [node for node in nodes if node in group]


def _connected(nodes: Mapping[Node, Size], links: Sequence[Link]) -> Layout:
    """Lay out one group."""
    turned = _acyclic(nodes, [link for link in dict.fromkeys(links) if link[0] != link[1]])
    oriented = {link: link[::-1] if back else link for link, back in turned.items()}
    layer = _layers(nodes, oriented.values())
    sizes = dict(nodes)
    chains = {
        link: _chain(number, oriented[link], layer, sizes) for number, link in enumerate(oriented)
    }
    rows = _ordered(layer, chains.values())
    corners = _placed(rows, chains.values(), sizes)
    return Layout(
        {node: corners[node] for node in nodes},
        {
            link: tuple(_points(chain, corners, sizes)[:: -1 if turned[link] else 1])
            for link, chain in chains.items()
        },
        Size(
            max((corners[node][0] + size.width for node, size in sizes.items()), default=0.0),
            max((corners[node][1] + size.height for node, size in sizes.items()), default=0.0),
        ),
    )


def _acyclic(nodes: Iterable[Node], links: Sequence[Link]) -> dict[Link, bool]:
    """Each link, and whether it must be turned round so that there is no cycle.

    Few are: sources go to the left and sinks to the right, else to the left whoever has the most
    links that leave against those that arrive (Eades, Lin and Smyth, "A fast and effective
    heuristic for the feedback arc set problem", 1993).
    """
    rest, open_links = list(nodes), list(links)
    left: list[Node] = []
    right: list[Node] = []
    while rest:
        leaving = Counter(source for source, _ in open_links)
        arriving = Counter(target for _, target in open_links)
        sinks = [node for node in rest if not leaving[node]]
        taken = sinks or [max(rest, key=lambda it: (not arriving[it], leaving[it] - arriving[it]))]
        (right if sinks else left).extend(taken)
        rest = [node for node in rest if node not in taken]
        open_links = [link for link in open_links if not set(link) & set(taken)]
    place = {node: at for at, node in enumerate([*left, *reversed(right)])}
    return {link: place[link[0]] > place[link[1]] for link in links}


def _layers(nodes: Iterable[Node], links: Iterable[Link]) -> dict[Node, int]:
    """The longest way to each node, in links."""
    before: dict[Node, list[Node]] = {node: [] for node in nodes}
    for source, target in links:
        before[target].append(source)
    layer: dict[Node, int] = {}
    for node in graphlib.TopologicalSorter(before).static_order():
        layer[node] = 1 + max((layer[source] for source in before[node]), default=-1)
    return layer


def _chain(
    number: int, link: Link, layer: dict[Node, int], sizes: dict[Node, Size]
) -> tuple[Node, ...]:
    """The nodes that a link runs through; invisible ones are added where it passes a layer."""
    source, target = link
    passed = range(layer[source] + 1, layer[target])
    points = {f"\0{number}:{at}": at for at in passed}
    layer.update(points)
    sizes.update(dict.fromkeys(points, Size(0.0, 0.0)))
    return (source, *points, target)


def _neighbours(chains: Iterable[tuple[Node, ...]]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = defaultdict(list)
    for chain in chains:
        for left, right in itertools.pairwise(chain):
            found[left].append(right)
            found[right].append(left)
    return found


def _ordered(layer: dict[Node, int], chains: Iterable[tuple[Node, ...]]) -> list[list[Node]]:
    """The nodes of each layer from top to bottom, with few crossings."""
    rows: list[list[Node]] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for node, at in layer.items():
        rows[at].append(node)
    near = _neighbours(chains)
    for sweep in range(_SWEEPS):
        inwards = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for at in inwards:
            beside = rows[at - 1] if sweep % 2 == 0 else rows[at + 1]
            rank = {node: (index + 0.5) / len(beside) for index, node in enumerate(beside)}
            own = {node: (index + 0.5) / len(rows[at]) for index, node in enumerate(rows[at])}
            rows[at].sort(
                key=lambda node: _mean([rank[it] for it in near[node] if it in rank], own[node])
            )
    return rows


def _placed(
    rows: list[list[Node]], chains: Iterable[tuple[Node, ...]], sizes: Mapping[Node, Size]
) -> dict[Node, Point]:
    """Upper left corners: each node as near to the mean of its neighbours as its layer allows."""
    near = _neighbours(chains)
    middle: dict[Node, float] = {}
    for row in rows:
        _spread(row, dict.fromkeys(row, 0.0), sizes, middle)
    for _ in range(_SWEEPS):
        for row in rows:
            wish = {node: _mean([middle[it] for it in near[node]], middle[node]) for node in row}
            _spread(row, wish, sizes, middle)
    top = min((middle[node] - sizes[node].height / 2 for node in middle), default=0.0)
    corners: dict[Node, Point] = {}
    x = 0.0
    for row in rows:
        width = max(sizes[node].width for node in row)
        for node in row:
            left = x + (width - sizes[node].width) / 2
            corners[node] = left, middle[node] - sizes[node].height / 2 - top
        x += width + _LAYER_GAP
    return corners


def _spread(
    row: list[Node],
    wish: Mapping[Node, float],
    sizes: Mapping[Node, Size],
    middle: dict[Node, float],
) -> None:
    """Put the nodes of a layer where they wish to be, in their order and without overlap."""
    lowest = -math.inf
    for node in row:
        half = sizes[node].height / 2
        middle[node] = max(wish[node], lowest + half)
        lowest = middle[node] + half + _NODE_GAP
    # They were only pushed down: move all back by what that was on average.
    push = _mean([middle[node] - wish[node] for node in row], 0.0)
    for node in row:
        middle[node] -= push


def _points(
    chain: tuple[Node, ...], corners: Mapping[Node, Point], sizes: Mapping[Node, Size]
) -> list[Point]:
    """From the right side of the first node to the left side of the last."""
    points = [(corners[node][0], corners[node][1] + sizes[node].height / 2) for node in chain]
    x, y = points[0]
    return [(x + sizes[chain[0]].width, y), *points[1:]]


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default
