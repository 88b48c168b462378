"""What the engine tells a driver to do with a call, and what it is told of it."""

from dataclasses import dataclass
from typing import Final, Protocol

from accord.policies.types import Code


@dataclass(frozen=True, slots=True)
class Refuse:
    """Make no attempt: the call ends with this status.

    `retry_after` is set by an open breaker: seconds until it admits a probe.
    """

    code: Code
    message: str
    reason: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Wait `delay` seconds, then ask `admit` for another attempt, which may resume a stream."""

    delay: float
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Raise:
    """Give the failure of the attempt to the caller.

    `exhausted`: it has been tried as often as it may be, here or below; the tiers above must not.
    `why` says what has stopped the retries.
    """

    exhausted: bool = False
    why: str = ""


RAISE: Final = Raise()
EXHAUSTED: Final = Raise(exhausted=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed.

    `reason` is that of its ErrorInfo; `pushback` (from `parse_pushback`) and `retry_info` are the
    seconds that it asks to wait; `transport` says that the connection broke below the status,
    `started` that the caller has seen a message of the stream.
    """

    code: Code
    reason: str = ""
    pushback: float | None = None
    retry_info: float | None = None
    transport: bool = False
    started: bool = False


class Sent(Protocol):
    """An attempt, as far as an observer needs to know it."""

    started: float
    """On the engine's clock."""


class Observer(Protocol):
    """Told of the attempts of one call, to record them. Decides nothing and raises nothing."""

    def sent(self, attempt: Sent, *, hedge: bool = False) -> None:
        """It is made; `hedge`: beside another one."""

    def succeeded(self, attempt: Sent) -> None:
        """It was answered in full. Not told of streams: they end with their call."""

    def failed(self, attempt: Sent, failure: Failure, step: Again | Raise | None) -> None:
        """It has failed; `step` follows from that, if anything was to be decided."""

    def released(self, attempt: Sent, *, lost: bool) -> None:
        """It was cancelled; `lost`: because the other one of a hedge has won."""

    def refused(self, refusal: Refuse) -> None:
        """No attempt is made."""

    def kept(self) -> None:
        """The call is answered from the cache."""
