"""What came of the calls: codes, and latencies in histograms of a fixed size.

Latency is measured from when a call was due, and not from when it was made: one that could not be
made in time has kept its caller waiting, too (no "coordinated omission"; Gil Tene, HdrHistogram).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

OK: Final = "OK"

QUANTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}

LATE: Final = 0.010
"""Seconds after which a call that is made counts as late: it missed the schedule."""

_LONGEST: Final = 3_600_000_000


def code_of(error: Any) -> str:
    """Why a call has failed: the code of gRPC or of the edge, or the name of the error."""
    code = getattr(error, "code", "")
    return str(code().name) if callable(code) else code or type(error).__name__


def _histogram() -> Any:
    return HdrHistogram(1, _LONGEST, 3)  # microseconds, to three digits


@dataclass(slots=True)
class Outcome:
    """Of one kind of call, or of several."""

    codes: Counter[str] = field(default_factory=Counter)
    """Code -> how many have ended with it."""
    latency: Any = field(default_factory=_histogram)

    def add(self, code: str, seconds: float) -> None:
        """Count an answer, or what there was in its place, so long after it was due."""
        self.codes[code] += 1
        self.latency.record_value(min(max(1, round(seconds * 1e6)), _LONGEST))

    def milliseconds(self) -> Mapping[str, float]:
        """Quantile, "max" included -> latency; 0 when there was no call."""
        found, longest = self.latency.get_value_at_percentile, self.latency.max_value
        named = {name: min(found(percent), longest) for name, percent in QUANTILES.items()}
        return {name: us / 1e3 for name, us in {**named, "max": longest}.items()}


@dataclass(slots=True)
class Result:
    """Of a run.

    Attributes:
        kinds: kind of call -> what came of these.
        sent: calls that were made.
        dropped: calls that were not, since too many were open.
        late: calls that were made more than `LATE` after they were due.
        worst: how much later the last of them was made, at most, in seconds.
        seconds: from the first call due to the last one made.
        interrupted: whether it was ended early.
    """

    kinds: dict[str, Outcome]
    sent: int = 0
    dropped: int = 0
    late: int = 0
    worst: float = 0.0
    seconds: float = 0.0
    interrupted: bool = False

    @classmethod
    def of(cls, kinds: Iterable[str]) -> "Result":
        """An empty one."""
        return cls({kind: Outcome() for kind in kinds})

    def made(self, lag: float) -> None:
        """A call was made, so many seconds after it was due."""
        self.sent += 1
        self.late += lag > LATE
        self.worst = max(self.worst, lag)

    def total(self) -> Outcome:
        """All kinds together."""
        found = Outcome()
        for outcome in self.kinds.values():
            found.codes.update(outcome.codes)
            found.latency.add(outcome.latency)
        return found
