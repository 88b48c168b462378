"""One change of a service's defaults is one line, not one for each of its RPCs."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from accord_checks.breaking_rules.change import Change

_NAMED = 3
"""So many RPCs are named, the others counted."""
_RPC = "\0"


def grouped(changes: Iterable[Change]) -> Iterator[Change]:
    """Changes that differ in the RPC only and were made at the same place, as one."""
    groups: dict[object, list[Change]] = {}
    for change in changes:
        template = _named(change.what, _short(change), _RPC)
        what = (change.rule, change.shared, change.risk, change.accepted, template)
        groups.setdefault(what if change.shared is not None else object(), []).append(change)
    for found in groups.values():
        yield found[0] if len(found) == 1 else _one(found)


def _short(change: Change) -> str:
    return change.element.rpartition("/")[2]


def _named(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{re.escape(old)}\b", lambda _: new, text)


def _one(changes: list[Change]) -> Change:
    first, names = changes[0], [_short(change) for change in changes]
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return replace(
        first,
        element=first.element.rpartition("/")[0],
        place=first.shared,
        what=_named(first.what, names[0], listed),
        instead=_named(first.instead, names[0], "each"),
    )
