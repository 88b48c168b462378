"""Identifiers that sort by the time they were made, and ids that follow from others."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from uuid import UUID


class Uuid7:
    """Makes UUIDs of version 7 (RFC 9562, section 5.7), each greater than the one before.

    The 12 bits after the millisecond are a counter (section 6.2, method 1), so ids made within one
    millisecond keep their order; 62 random bits follow. If the clock stands still or goes back, the
    last millisecond goes on. Safe to use from several threads.

    Args:
        clock: Unix time in seconds.
    """

    __slots__ = ("_clock", "_last", "_lock")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Milliseconds and counter as one number: a full counter carries into the next millisecond.
        self._last = -1

    def __call__(self) -> str:
        """The next id, as 36 lower-case characters."""
        noise = int.from_bytes(os.urandom(9), "big")
        # A random start in the lower quarter of the counter leaves 3072 ids to the millisecond.
        start = int(self._clock() * 1000) << 12 | noise >> 62 & 0x3FF
        with self._lock:
            self._last = max(start, self._last + 1)
            stamp = self._last
        value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
        return str(UUID(int=value | 0b10 << 62 | noise & (1 << 62) - 1))


uuid7 = Uuid7()
"""Makes a new id: unique, and greater than every id this process made before."""


def derived(cause: str, purpose: str) -> str:
    """The id of what follows from a cause, the same whoever derives it and whenever.

    For what is sent outside: whoever gets it a second time, from a handler that ran again or from
    a database that was restored, recognises it. The first 48 bits are the cause's - the time, if
    that is a UUID of version 7 - and the rest is SHA-256 of cause and purpose.

    Raises:
        ValueError: the cause is no UUID.
    """
    origin = UUID(cause)
    digest = hashlib.sha256(origin.bytes + purpose.encode()).digest()
    value = origin.int >> 80 << 80 | int.from_bytes(digest[:10], "big")
    value = value & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62
    return str(UUID(int=value))


def made_at(id: str) -> float:  # noqa: A002
    """When a UUID of version 7 was made: Unix seconds, in whole milliseconds."""
    return (UUID(id).int >> 80) / 1000
