"""Shares of a server's places for streams, which are held for long: nobody can take them all.

A holder (a connection, or a caller with an identity) gets another place while it has fewer than
`FACTOR` times those that are free: alone about two thirds of all. The last places, `RESERVE` of
all, are for holders that have none. What is less important gets none of them, see `UPPER`.
Source: dynamic thresholds (Choudhury and Hahne 1998), as in the shared memory of switches.
"""

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Final

from accord.policies.types import Priority, Refused

FACTOR: Final = 3

RESERVE: Final = 0.1

RETRY_AFTER: Final = 1.0
"""Seconds after which a refused stream is welcome again, up to twice."""

UPPER: Final = {Priority.CRITICAL: 1.0, Priority.DEFAULT: 0.9, Priority.SHEDDABLE: 0.5}
"""The part of all places that streams of a priority, and those before them, may take."""


class StreamShares:
    """Who holds how many of `places`. Safe under threads."""

    def __init__(self, places: int, *, random: Callable[[], float]) -> None:
        """`random` is uniform over [0, 1)."""
        self._places = places
        self._random = random
        self._lock = Lock()
        self._held: Counter[str] = Counter()
        self.taken = 0
        """Places that are taken."""

    def take(self, holders: tuple[str, ...], priority: Priority) -> Refused | None:
        """Take a place for all of `holders` together, if each may; given back with `give_back`."""
        with self._lock:
            free = self._places - self.taken - int(RESERVE * self._places)
            if self.taken >= UPPER[priority] * self._places or any(
                self._held[holder] and self._held[holder] >= FACTOR * free for holder in holders
            ):
                return Refused(RETRY_AFTER * (1 + self._random()))
            self._held.update(holders)
            self.taken += 1
            return None

    def give_back(self, holders: tuple[str, ...]) -> None:
        """The stream of these holders has ended."""
        with self._lock:
            self.taken -= 1
            for holder in holders:
                self._held[holder] -= 1
                if not self._held[holder]:
                    del self._held[holder]
