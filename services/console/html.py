"""HTML and SVG, made of elements: whatever is not an element itself is encoded."""

import html
import re
from collections.abc import Iterable
from functools import cache
from typing import Final
from urllib.parse import quote, urlencode

_VOID: Final = frozenset({"input", "meta", "link", "br"})
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
    "|[\ud800-\udfff]"
)
"""What controls a terminal, turns the direction of text around, or is no character."""

_PLAIN: Final = re.compile(r"[\w ./:,%#()-]*", re.ASCII)
"""What most texts are, and needs no encoding."""


class Html(str):
    """Text that is markup."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
"""What is in an element: `Html` as it is, all else encoded, None nothing."""

Attribute = str | int | float | bool | None


def text(value: object) -> Html:
    """Any text, encoded for the inside of an element and for an attribute alike."""
    found = str(value)
    if _PLAIN.fullmatch(found):
        return Html(found)
    return Html(html.escape(_UNSEEN.sub("\ufffd", found)))


@cache
def _named(attribute: str) -> str:
    return attribute.rstrip("_").replace("_", "-")


def join(*children: Child) -> Html:
    """Several, one after the other."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(text(child))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


def el(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """An element. `class_` is the attribute class, `aria_label` is aria-label.

    An attribute that is None or False is left out, one that is True has no value.
    """
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        parts.append(f" {_named(name)}")
        if value is not True:
            parts.append(f'="{text(value)}"')
    parts.append(">")
    if tag not in _VOID:
        parts += (join(*children), f"</{tag}>")
    return Html("".join(parts))


def url(*path: str, **query: object) -> str:
    """A path below /console/, its segments encoded; what is empty in the query is left out."""
    asked = {name: str(value) for name, value in query.items() if value not in (None, "", 0)}
    found = "/console/" + "/".join(quote(part, safe="") for part in path)
    return f"{found}?{urlencode(asked)}" if asked else found


def table(
    caption: str, heads: Iterable[Child], rows: Iterable[Iterable[Child]], empty: str
) -> Html:
    """A table whose first column names its rows; `empty` is said instead of one without rows."""
    body = [
        el(
            "tr",
            (
                el("td" if n else "th", cell, scope=None if n else "row")
                for n, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    if not body:
        return el("p", empty, class_="empty")
    shown = el(
        "table",
        el("caption", caption),
        el("thead", el("tr", (el("th", head, scope="col") for head in heads))),
        el("tbody", body),
    )
    return el("div", shown, class_="scroll", tabindex=0, role="region", aria_label=caption)


def facts(**pairs: Child) -> Html:
    """A list of names and values; what is empty is left out."""
    found = [
        (name.replace("_", " "), value) for name, value in pairs.items() if value not in (None, "")
    ]
    return el("dl", ([el("dt", name), el("dd", value)] for name, value in found))
