"""Who calls whom: every edge between an RPC or a caller's identity and an RPC."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from accord_checks.declarations import Rpc
from accord_checks.export.resolved_contracts import ResolvedContracts

EVERYONE: Final = "*"


class Kind(Enum):
    """Why there is an edge; the value is how it is said."""

    CALL = "calls"
    """Synchronously, while it is being handled."""
    SAGA = "then runs"
    """Later, as a step of its saga."""
    UNDO = "is undone by"
    """Later, when a saga is taken back."""
    ALLOW = "may call"
    """An identity is on the list of callers."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One line of who calls whom."""

    source: str
    """An RPC, "/pkg.Service/Method", or an identity."""
    target: str
    """An RPC."""
    kind: Kind
    timeout: float | None = None
    """Seconds that the caller allows."""


class Calls:
    """All edges of the contracts."""

    def __init__(self, contracts: ResolvedContracts) -> None:
        """Collect them in the order of the contracts."""
        self.edges = tuple(edge for rpc in contracts.rpcs() for edge in _edges(rpc))
        """In the order of the contracts."""
        self._ends: dict[tuple[str, Kind], list[tuple[str, float | None]]] = defaultdict(list)
        for edge in self.edges:
            self._ends[edge.target, edge.kind].append((edge.source, edge.timeout))
        self.known = frozenset(rpc.policy.method for rpc in contracts.rpcs())
        """The RPCs that the contracts have; others may be called, too."""

    def made_to(self, name: str, kind: Kind) -> list[tuple[str, float | None]]:
        """Who calls an RPC in that way, and the seconds that each allows."""
        return self._ends.get((name, kind), [])


def _edges(rpc: Rpc) -> Iterator[Edge]:
    policy = rpc.policy
    for callee, timeout in policy.calls.items():
        yield Edge(policy.method, callee, Kind.CALL, timeout)
    if policy.saga is not None:
        for step in policy.saga.steps:
            yield Edge(policy.method, step, Kind.SAGA)
    if policy.compensation is not None:
        yield Edge(policy.method, policy.compensation.method, Kind.UNDO)
    for identity in sorted(policy.allow - {EVERYONE}):
        yield Edge(identity, policy.method, Kind.ALLOW)
