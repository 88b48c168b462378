"""Waiting: what the drivers are told to wait, which is nothing in a test that says so.

The engine asks here before it tells a driver to wait, so one switch serves the aio and the sync
drivers. Only `accord.testing.no_waiting` turns it. It imports nothing, so that every
run of pytest can load it.
"""

from collections.abc import Callable

skip: Callable[[float], None] | None = None
"""Set in testing mode: told of the seconds that a back-off would have taken."""


def backoff(seconds: float) -> float:
    """Seconds to really wait before the next attempt; in testing mode 0, and time is moved."""
    if skip is None:
        return seconds
    skip(seconds)
    return 0.0


def delay(seconds: float) -> float:
    """Seconds to really wait for something else to happen first; in testing mode 0."""
    return seconds if skip is None else 0.0
