"""What pages are made of: nothing that somebody names becomes markup."""

import pytest

from services.console.html import Html, el, join, table, text, url
from services.console.topology_svg import Arrow, Node, draw, layers

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</text></svg><script>",
    "]]>&lt;",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_encoded_everywhere(name: str) -> None:
    """In elements, in attributes, in tables and in the picture of the mesh."""
    nodes = [Node(name, name, "good", name), Node("b", "", "idle")]
    found = join(
        el("p", name, title=name),
        table(name, [name], [[name]], name),
        table(name, [], [], name),
        draw(nodes, [Arrow(name, "b", "good", name, name)], name),
    )
    assert name not in found
    for part in ("<script", "<img", "onerror=alert(1)>", "' onload"):
        assert part not in found


def test_what_turns_text_around_is_not_shown() -> None:
    """Controls, directions of text and halves of characters are replaced."""
    assert text("a\u202eb\x00c\x1b[31m\ud800") == "a\ufffdb\ufffdc\ufffd[31m\ufffd"


def test_attributes() -> None:
    """True has no value, False and None leave out, a name's underscores are dashes."""
    found = el("input", aria_label="a", class_="b", required=True, checked=False, id=None)
    assert found == '<input aria-label="a" class="b" required>'
    assert el("b", 1, None, ["<", Html("<br>")]) == "<b>1&lt;<br></b>"


def test_urls() -> None:
    """Segments are encoded; what is empty in a query is left out."""
    assert url("work", "a/../b", q="a&b", of="") == "/console/work/a%2F..%2Fb?q=a%26b"


def test_callers_stand_left_of_whom_they_call() -> None:
    """Circles end; who takes events stands right of their source, and may catch up by calls."""
    calls = {
        ("edge", "orders"),
        ("orders", "payments"),
        ("payments", "orders"),
        ("books", "orders"),
    }
    events = {("orders", "payments"), ("payments", "orders"), ("orders", "books")}
    found = layers(["books", "payments", "orders", "edge", "alone"], calls, events)
    assert found == {"edge": 0, "alone": 0, "orders": 1, "payments": 2, "books": 2}
