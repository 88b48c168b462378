"""The layout of the call graph, for graphs of every shape."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from accord_checks.export.reference.graph_layout import Size, layered

NAMES = st.integers(0, 12).map(str)
GRAPHS = st.lists(st.tuples(NAMES, NAMES), max_size=30)


@given(GRAPHS)
def test_no_node_lies_on_another(links: list[tuple[str, str]]) -> None:
    """Whatever the graph, its nodes keep apart, inside the picture, and every link has a way."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(links)))
    nodes = {name: Size(40.0 + 10 * int(name), 30.0) for name in names}
    layout = layered(nodes, links)
    for one, other in itertools.combinations(names, 2):
        (x, y), (u, v) = layout.nodes[one], layout.nodes[other]
        beside = x + nodes[one].width <= u or u + nodes[other].width <= x
        above = y + 30 <= v or v + 30 <= y
        assert beside or above
    for name in names:
        x, y = layout.nodes[name]
        assert x >= 0
        assert y >= -1e-6
        assert x + nodes[name].width <= layout.size.width
        assert y + 30 <= layout.size.height + 1e-6
    assert set(layout.links) == {link for link in links if link[0] != link[1]}


@given(GRAPHS)
def test_links_touch_their_nodes(links: list[tuple[str, str]]) -> None:
    """A link begins at a side of its source and ends at a side of its target."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(links)))
    nodes = dict.fromkeys(names, Size(50.0, 30.0))
    layout = layered(nodes, links)
    for link, points in layout.links.items():
        for name, (x, y) in zip(link, (points[0], points[-1]), strict=True):
            left, top = layout.nodes[name]
            assert x in (left, left + 50)
            assert y == top + 15


def test_a_chain_runs_from_left_to_right() -> None:
    """Callers lie left of what they call, also where a link passes a layer or closes a cycle."""
    nodes = dict.fromkeys("abcd", Size(50.0, 30.0))
    layout = layered(nodes, [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("d", "b")])
    columns = [layout.nodes[name][0] for name in "abcd"]
    assert columns == sorted(set(columns))
    assert len(layout.links["a", "d"]) == 4
    assert layout.links["d", "b"][0][0] > layout.links["d", "b"][-1][0]


def test_groups_that_have_nothing_to_do_with_each_other_lie_close() -> None:
    """A large group does not push a small one away: they are put below each other."""
    nodes = dict.fromkeys(["x", "a", "b", "c", "d", "e", "y"], Size(50.0, 30.0))
    links = [("x", "y"), *((name, "e") for name in "abcd")]
    layout = layered(nodes, links)
    tops = {name: layout.nodes[name][1] for name in nodes}
    assert tops["x"] == tops["y"] == 0
    below = min(tops[name] for name in "abcde")
    assert 30 < below < 30 + 50
