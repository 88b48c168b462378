"""Pieces of HTML. What comes out of a contract passes through `escaped` or `attribute`."""

import html
import re
from collections.abc import Iterable

from accord_checks import formatting

_CODE = re.compile(r"`([^`\n]+)`")


def escaped(text: str) -> str:
    """Text between tags."""
    return html.escape(text, quote=False)


def attribute(text: str) -> str:
    """Text between double quotes."""
    return html.escape(text)


def anchor(name: str) -> str:
    """The id of what has that full name: "/pkg.Service/Method" and "pkg.Service" alike."""
    return attribute(name.removeprefix("/"))


def prose(comment: str) -> str:
    """A comment: a blank line begins a paragraph, backquotes mark code."""
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    marked = (_CODE.sub(r"<code>\1</code>", escaped(text)) for text in paragraphs if text)
    return "".join(f"<p>{text}</p>" for text in marked)


def code(text: str) -> str:
    """A name."""
    return f"<code>{escaped(text)}</code>"


def link(name: str, text: str) -> str:
    """A name that leads to where it is explained."""
    return f'<a href="#{anchor(name)}"><code>{escaped(text)}</code></a>'


def table(columns: Iterable[str], rows: str) -> str:
    """A table that scrolls when it is too wide; `rows` are HTML."""
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def counted(number: int, what: str) -> str:
    """How many of something: 1 probe, 2 probes."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def human(seconds: float) -> str:
    """A time as people write it: 250 ms, 5 s, 1 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return formatting.seconds(seconds)
