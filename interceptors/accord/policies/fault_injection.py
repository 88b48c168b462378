"""Fault injection: delays and errors on purpose, to see what callers make of them.

First a delay, then an abort, each with a random draw of its own, so that a call may meet both (gRFC
A33). By policy: for every call of a method. Guarded: only for calls that ask for it in the metadata
`accord-fault`, where the policy is what they may ask for at most - a header can only lower:

    accord-fault: delay-ms=200, delay-percent=50, abort-percent=0

What the header leaves out stays as in the policy; one that cannot be read is as good as none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from accord.policies.types import Code, small_number

FAULT_KEY: Final = "accord-fault"
INJECTED: Final = "FAULT_INJECTED"
"""ErrorInfo reason of an injected error."""

_FIELDS: Final = frozenset({"delay-ms", "delay-percent", "abort-percent"})


@dataclass(frozen=True, slots=True)
class FaultPolicy:
    """What is injected, or may be asked for."""

    delay: float = 0.0
    """Seconds."""
    delay_percent: float = 0.0
    abort: Code = Code.UNAVAILABLE
    abort_percent: float = 0.0
    guarded: bool = False
    """Only for calls that ask for it."""
    max_active: int = 1000
    """Delayed calls at once; beyond it calls pass unharmed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call. One with a `delay` is handed to `Faults.done` after the wait."""

    delay: float = 0.0
    abort: Code | None = None


NO_FAULT: Final = Fault()


def lowered(policy: FaultPolicy, header: str | bytes | None) -> FaultPolicy | None:
    """What a call with this header meets; None: nothing."""
    asked = _read(header)
    if asked is None:
        return None if policy.guarded else policy
    return replace(
        policy,
        delay=min(policy.delay, asked.get("delay-ms", policy.delay * 1000) / 1000),
        delay_percent=min(policy.delay_percent, asked.get("delay-percent", policy.delay_percent)),
        abort_percent=min(policy.abort_percent, asked.get("abort-percent", policy.abort_percent)),
    )


def readable(header: str | bytes) -> bool:
    """Whether a call with this header has asked for something."""
    return _read(header) is not None


def _read(header: str | bytes | None) -> dict[str, float] | None:
    if not isinstance(header, str):
        return None
    asked: dict[str, float] = {}
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        number = small_number(value)
        if name not in _FIELDS or number is None:
            return None
        asked[name] = float(number)
    return asked


class Faults:
    """Fault injection of one method. Safe under threads."""

    def __init__(self, policy: FaultPolicy, *, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._lock = Lock()
        self.active = 0
        """Calls that are held up now."""

    def draw(self, header: str | bytes | None = None) -> Fault:
        """What happens to a call that carries this header."""
        policy = lowered(self._policy, header)
        if policy is None:
            return NO_FAULT
        # Both draws are always made, so that one does not shift the other's sequence.
        delayed = self._random() * 100 < policy.delay_percent and policy.delay > 0
        aborted = self._random() * 100 < policy.abort_percent
        with self._lock:
            if delayed and self.active >= policy.max_active:
                delayed = False
            self.active += delayed
        return Fault(policy.delay if delayed else 0.0, policy.abort if aborted else None)

    def done(self, fault: Fault) -> None:
        """The wait of this fault is over, however it ended."""
        if fault.delay > 0:
            with self._lock:
                self.active -= 1
