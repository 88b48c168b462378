"""What the tests of the policies share."""

from collections.abc import Callable
from itertools import chain, repeat


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def draws(*numbers: float, then: float = 0.5) -> Callable[[], float]:
    """A random source that returns these numbers, and from then on always the same."""
    return chain(numbers, repeat(then)).__next__


def always(number: float) -> Callable[[], float]:
    """A random source that returns one number."""
    return lambda: number
