"""Retry: whether and when a failed call is sent again.

Exponential back-off x2 with full jitter: the wait before retry n = 0, 1, ... is uniform over
[0, min(max_backoff, initial_backoff * 2^n)]. A server's pushback replaces it and starts the
exponent afresh. The deadline spans all attempts: a wait that would outlast it is not begun.
Sources: gRFC A6; "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

Only the tier nearest to a fault retries. Upwards, a tier that has given up *marks* its answer with
pushback -1 (see `Stop.marks`). Downwards, `accord-attempt: n` with n >= 1 tells all tiers below
that somebody above is at it already: they make one attempt only.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from accord.policies.budget import Budget
from accord.policies.types import Code, small_number

ATTEMPT_KEY: Final = "accord-attempt"
"""Metadata: how many attempts were made before this one, by this tier or one above it."""

_MAX_EXPONENT: Final = 32
_MAX_ATTEMPT: Final = 99


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter; times in seconds."""

    max_attempts: int
    initial_backoff: float = 0.1
    max_backoff: float = 10.0
    codes: frozenset[Code] = frozenset({Code.UNAVAILABLE})


class Stop(Enum):
    """Why a failed call is not sent again."""

    STARTED = "started"
    """The caller has seen a message: only a resumable stream can go on."""
    CODE = "code"
    """The contract does not list the code."""
    UNSAFE = "unsafe"
    """A repeat could act twice: neither an idempotent method nor a key."""
    TOLD = "told"
    """The server said never, or a tier below has given up."""
    SINGLE = "single"
    """Only one attempt was allowed, because a tier above retries or the caller said so."""
    ATTEMPTS = "attempts"
    """All attempts are used up."""
    DEADLINE = "deadline"
    """The wait would outlast the call."""
    BUDGET = "budget"
    """The target's budget is used up."""

    @property
    def marks(self) -> bool:
        """Whether the error, if it escapes the handler, must tell the tiers above to stop."""
        return self in _MARKING


_MARKING: Final = frozenset({Stop.ATTEMPTS, Stop.BUDGET, Stop.TOLD})


def max_backoff(policy: RetryPolicy, retry: int) -> float:
    """Upper bound of the wait before a retry, counted from 0, in seconds."""
    return min(policy.max_backoff, policy.initial_backoff * 2.0 ** min(retry, _MAX_EXPONENT))


def read_attempt(value: str | bytes) -> int | None:
    """The number under `accord-attempt`; None for anything that is not a small number."""
    attempt = small_number(value)
    return None if attempt is None else min(attempt, _MAX_ATTEMPT)


class Retry:
    """The attempts of one call. Belongs to that call: not shared, not locked."""

    __slots__ = ("_budget", "_inherited", "_limit", "_policy", "_random", "_repeatable", "_since",
                 "previous")  # fmt: skip

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        repeatable: bool,
        budget: Budget | None,
        random: Callable[[], float],
        inherited: int = 0,
        max_attempts: int | None = None,
    ) -> None:
        """The first attempt is about to be made.

        Args:
            policy: the contract's.
            repeatable: whether sending the request twice is safe (idempotent method or a key).
            budget: the target's; None: without limit.
            random: uniform over [0, 1).
            inherited: `accord-attempt` of the call being handled.
            max_attempts: the caller's own limit; it can only lower the contract's.
        """
        limit = policy.max_attempts if max_attempts is None else max(1, max_attempts)
        self.previous = 0
        """Attempts that have failed so far."""
        self._policy = policy
        self._limit = 1 if inherited > 0 else min(limit, policy.max_attempts)
        self._repeatable = repeatable
        self._budget = budget
        self._random = random
        self._inherited = inherited
        self._since = 0  # retries since the server's last pushback

    @property
    def attempt(self) -> int:
        """What travels under `accord-attempt`; it need not be sent when it is 0."""
        return max(self.previous, self._inherited)

    def failed(
        self,
        code: Code,
        *,
        remaining: float | None,
        pushback: float | None = None,
        retry_info: float | None = None,
        started: bool = False,
    ) -> float | Stop:
        """Seconds to wait before the next attempt, or why there is none.

        Args:
            code: how the attempt ended.
            remaining: seconds left of the call; None: no bound.
            pushback: what the trailer asks for, from `parse_pushback`.
            retry_info: seconds that the error's RetryInfo asks for.
            started: whether the caller has seen a message of the stream.
        """
        told = told_to_wait(pushback, retry_info)
        stop = self._stop(code, told, started=started)
        if stop is not None:
            return stop
        delay = self._random() * max_backoff(self._policy, self._since) if told is None else told
        if remaining is not None and delay >= remaining:
            return Stop.DEADLINE
        # Last, so that nothing is paid for that is not sent.
        if self._budget is not None and not self._budget.withdraw():
            return Stop.BUDGET
        self.previous += 1
        self._since = self._since + 1 if told is None else 0
        return delay

    def _stop(self, code: Code, told: float | None, *, started: bool) -> Stop | None:
        if started:
            return Stop.STARTED
        # Before the code: a mark is passed on whatever the status says.
        if told == NEVER:
            return Stop.TOLD
        if code not in self._policy.codes:
            return Stop.CODE
        if not self._repeatable:
            return Stop.UNSAFE
        if self.previous + 1 >= self._limit:
            return Stop.SINGLE if self._limit == 1 else Stop.ATTEMPTS
        return None


PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailer of gRFC A6; native gRPC clients obey it too."""

NEVER: Final = math.inf
"""Seconds to wait that mean: do not try again. A status that carries it is called *marked*."""

MARK: Final = "-1"
"""Value of the trailer that means NEVER."""

_LARGEST: Final = 2**31 - 1
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")


def parse_pushback(*values: str | bytes) -> float | None:
    """Seconds that all values of the trailer ask for: None without one, NEVER if they forbid it."""
    if not values:
        return None
    value = values[0]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if len(values) > 1 or not _NUMBER.fullmatch(value) or int(value) > _LARGEST:
        return NEVER
    return int(value) / 1000


def format_pushback(seconds: float) -> str:
    """The trailer's value for a wait of so many seconds, rounded up to a millisecond, or NEVER."""
    if not seconds < NEVER or seconds < 0:
        return MARK
    # What is a whole millisecond stays one, in spite of binary fractions.
    return str(min(math.ceil(round(seconds * 1000, 6)), _LARGEST))


def told_to_wait(pushback: float | None, retry_info: float | None) -> float | None:
    """Seconds that a server asks for in either way; None: it does not say. Never negative.

    `retry_info` is the delay of a RetryInfo, in seconds; negative or not a number means NEVER.
    """
    if retry_info is not None and not retry_info >= 0:
        retry_info = NEVER
    if pushback is None or retry_info is None:
        return retry_info if pushback is None else pushback
    return max(pushback, retry_info)
