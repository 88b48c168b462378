"""What the policies of a process have decided, by method: shown to its operator.

A count has a name such as "rate_limit.refused", or "rate_limit.dark" for what would have been
refused. Names come from the code; methods may come from callers, where a generic handler serves any
name, so their number is bounded here.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

MAX_METHODS: Final = 4096
"""Methods that a process tells apart; only a generic handler that serves any name has so many."""

OTHER: Final = "/other"
"""Stands for all others."""


class Counts:
    """Counters since the start of the process.

    Used inside one event loop, or under the lock of `mesh.sync`.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, method: str, name: str) -> None:
        """Count one decision; `method` as it travels, "/pkg.Service/Method"."""
        found = self._counts.get(method)
        if found is None:
            known = len(self._counts) < MAX_METHODS
            found = self._counts.setdefault(method if known else OTHER, Counter())
        found[name] += 1

    def of(self, method: str) -> Mapping[str, int]:
        """The counts of one method, as they are now."""
        return dict(self._counts.get(method, {}))

    def methods(self) -> set[str]:
        """Methods for which something was counted."""
        return set(self._counts)
