"""Text in which names are marked, as `page.js` shows it: code, or a link to what it names.

The marks are characters for private use, which nothing that a contract says keeps.
"""

from typing import Final

from accord_checks import formatting

_LINK, _MIDDLE, _END = "\ue000", "\ue001", "\ue002"
_MARKS: Final = {ord(mark): None for mark in (_LINK, _MIDDLE, _END)}


def plain(text: str) -> str:
    """What a contract says, as text."""
    return text.translate(_MARKS)


def code(text: str) -> str:
    """A name."""
    return f"{_LINK}{_MIDDLE}{plain(text)}{_END}"


def link(name: str, text: str) -> str:
    """A name that leads to what has that full name: "/pkg.Service/Method" and "pkg.Service"."""
    return f"{_LINK}{plain(name.removeprefix('/'))}{_MIDDLE}{plain(text)}{_END}"


def counted(number: int, what: str) -> str:
    """How many of something: 1 probe, 2 probes."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def human(seconds: float) -> str:
    """A time as people write it: 250 ms, 5 s, 1 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return formatting.seconds(seconds)
