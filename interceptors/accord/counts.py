"""What the policies of a process have decided, by method: shown to its operator.

A count has a name such as "rate_limit.refused", or "rate_limit.dark" for what would have been
refused. Names and methods come from the code and from contracts, never from a caller, so their
number is bounded.
"""

from collections import Counter
from collections.abc import Mapping


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
            found = self._counts[method] = Counter()
        found[name] += 1

    def of(self, method: str) -> Mapping[str, int]:
        """The counts of one method."""
        return self._counts.get(method, {})

    def methods(self) -> set[str]:
        """Methods for which something was counted."""
        return set(self._counts)
