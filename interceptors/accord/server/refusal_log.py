"""The log of who was refused: its volume is bounded, whoever calls how often.

A caller that is refused for a reason at a method has one line a minute, which says how often that
was since the last one. Calls that are allowed are logged at debug alone.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from accord._log import debugging, log
from accord.telemetry.propagation import trace_id

MINUTE: Final = 60.0
"""Seconds between two lines of the same caller, method and reason."""

MAX_LINES: Final = 256
"""Lines a minute of one process; what is beyond them goes into one line of its reason."""

OTHERS: Final = "others"
"""Stands for callers and methods beyond `MAX_LINES`."""


@dataclass(slots=True)
class _Line:
    at: float
    times: int = 0


class RefusalLog:
    """One per process. Safe under threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._lines: dict[tuple[str, str, str], _Line] = {}

    def note(self, caller: str, method: str, reason: str, *, dark: bool = False) -> None:
        """A call was refused; `dark`: it would have been."""
        key, now = (caller, method, reason), self._clock()
        with self._lock:
            due = self._due(now) if key not in self._lines and self._full() else []
            if key not in self._lines and self._full():
                key = (OTHERS, OTHERS, reason)
            line = self._lines.setdefault(key, _Line(now - MINUTE))
            line.times += 1
            if now - line.at >= MINUTE:
                due.append((key, line.times))
                line.at, line.times = now, 0
        for (who, what, why), times in due:
            log(
                logging.WARNING,
                "a call would be refused" if dark else "a call was refused",
                caller=who,
                method=what,
                reason=why,
                times=times,
                trace_id=trace_id(),
            )

    def _full(self) -> bool:
        return len(self._lines) >= MAX_LINES

    def _due(self, now: float) -> "list[tuple[tuple[str, str, str], int]]":
        """Forget those whose minute is over; what they have left to say."""
        over = [key for key, line in self._lines.items() if now - line.at >= MINUTE]
        found = [(key, self._lines.pop(key).times) for key in over]
        return [(key, times) for key, times in found if times]


def allowed(caller: str, method: str) -> None:
    """A call was allowed."""
    if debugging():
        log(logging.DEBUG, "a call was allowed", caller=caller, method=method)
