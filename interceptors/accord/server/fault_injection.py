"""Faults that an operator has injected into the methods of this process, each for a while.

They live in the process alone and end by themselves: nobody forgets one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from accord.policies.fault_injection import FaultPolicy, Faults


@dataclass(frozen=True, slots=True)
class Injected:
    """The fault of one method; `ends` is on the table's clock, `principal` has injected it."""

    policy: FaultPolicy
    ends: float
    faults: Faults
    principal: str
    reason: str


class FaultTable:
    """By method, as it travels."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self.injected: dict[str, Injected] = {}
        """Faults by method, also those that have just ended; empty: no call is harmed."""

    def inject(
        self,
        method: str,
        policy: FaultPolicy,
        lasting: float,
        principal: str = "",
        reason: str = "",
    ) -> None:
        """Harm a method for `lasting` seconds, instead of what it meets now."""
        ends, faults = self._clock() + lasting, Faults(policy, random=self._random)
        self.injected[method] = Injected(policy, ends, faults, principal, reason)

    def clear(self, method: str) -> None:
        """Leave a method alone; without a fault, nothing happens."""
        self.injected.pop(method, None)

    def of(self, method: str) -> Injected | None:
        """The fault of a method, unless it has ended."""
        found = self.injected.get(method)
        if found is not None and self._clock() >= found.ends:
            self.injected.pop(method, None)
            return None
        return found

    def ends_in(self, injected: Injected) -> float:
        """Seconds that a fault goes on."""
        return max(0.0, injected.ends - self._clock())
