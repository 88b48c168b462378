"""Resumable streams: continue a broken server stream from the last token delivered.

After a drop that is worth it, the stream is opened again behind the last token that the consumer
has got, after an exponential back-off with full jitter (AWS Architecture Blog, "Exponential Backoff
and Jitter"). No gap, because the request names the last token delivered; no duplicate, because what
lies behind that token is dropped. The waiting without progress is bounded. A server may ask for a
longer wait, or for none to come back (gRFC A6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from accord.policies.types import Code

OPEN_KEY: Final = "accord-stream"
"""Initial metadata by which a server says that it has accepted a resumable stream."""

SLOW_CONSUMER: Final = "SLOW_CONSUMER"
"""ErrorInfo reason: the server dropped a reader that did not keep up; it may come back."""

_RESUMABLE: Final = frozenset({Code.UNAVAILABLE, Code.CANCELLED})


@dataclass(frozen=True, slots=True)
class Drop:
    """Why an attempt ended.

    `reason` is that of the ErrorInfo, if any. `told`: seconds that the server asks to wait (from
    `told_to_wait`). `transport` says that the connection broke below the status (RST_STREAM).
    `lifetime` says that only this attempt's time was up, not the call's.
    CANCELLED always means that the server's side did it: the consumer's own cancel ends the call.
    """

    code: Code
    reason: str = ""
    told: float | None = None
    transport: bool = False
    lifetime: bool = False

    @property
    def resumable(self) -> bool:
        """Whether the stream may go on after this."""
        return (
            self.code in _RESUMABLE
            or (self.code is Code.ABORTED and self.reason == SLOW_CONSUMER)
            or self.transport
            or self.lifetime
        )


@dataclass(frozen=True, slots=True)
class ResumeLimits:
    """Bounds of resuming, in seconds."""

    first_backoff: float = 0.050
    max_backoff: float = 2.0
    patience: float = 60.0
    """How long to go on without progress before the error is given to the consumer."""
    settled: float = 5.0
    """An attempt that the server accepted and that lived this long counts as progress: quiet
    streams would otherwise use up their patience."""


class Resumption:
    """State of one resumable stream.

    `token` is the last token delivered; it starts with what the consumer's request asked for. The
    order of calls is: opened? delivered* dropped, and if that has returned a wait: again from the
    start.
    """

    def __init__(
        self,
        token: int,
        *,
        limits: ResumeLimits,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.token = token
        self.attempt = 1
        self._limits = limits
        self._clock = clock
        self._random = random
        self._boundary: int | None = None
        self._failures = 0
        self._opened_at: float | None = None
        self._outage_since: float | None = None

    def opened(self) -> None:
        """The server has accepted the attempt."""
        self._opened_at = self._clock()

    def delivered(self, token: int) -> bool:
        """A message with this token has arrived. False: a duplicate, do not deliver it.

        Only what an attempt repeats from before its own start is a duplicate; within an attempt the
        server decides. Token 0 stands for a message without one.
        """
        if token > 0:
            if self._boundary is not None and token <= self._boundary:
                return False
            self.token = max(self.token, token)
        self._failures = 0
        self._outage_since = None
        return True

    def dropped(self, drop: Drop) -> float | None:
        """The attempt has failed: seconds to wait before the next one, or None to give up."""
        now = self._clock()
        if not drop.resumable:
            return None
        if self._opened_at is not None and now - self._opened_at >= self._limits.settled:
            self._failures = 0
            self._outage_since = None
        self._opened_at = None
        if self._outage_since is None:
            self._outage_since = now
        left = self._limits.patience - (now - self._outage_since)
        told = drop.told or 0.0
        if left <= told:  # always, if it says never
            return None
        ceiling = min(
            self._limits.max_backoff, self._limits.first_backoff * 2.0 ** min(self._failures, 32)
        )
        self._failures += 1
        self.attempt += 1
        self._boundary = self.token
        return max(told, min(self._random() * ceiling, left))
