"""Repeated calls: the stored answer instead of a second effect.

The twin of `accord.aio.server_idempotency`.
"""

import time
from collections.abc import Callable
from threading import Event, Lock

from accord.context import Idempotency
from accord.errors import IdempotencyConflict
from accord.interfaces import StoredAnswer, SyncIdempotencyStore
from accord.policies.idempotency import POLL_INTERVAL, Scope
from accord.server.idempotency import check_same, replay, settled, still_running, wait_until


class KeyedCalls:
    """The calls with a key that this process is working on, over a store of answers."""

    def __init__(self, store: SyncIdempotencyStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._running: dict[Scope, tuple[bytes, Event]] = {}

    def answer(
        self, call: Idempotency, deadline: float | None, handle: Callable[[], bytes]
    ) -> bytes:
        """The answer to a call: stored, or from `handle`, which runs once at a time per scope."""
        until = wait_until(self._clock(), deadline)
        mine = self._first(call, until)
        try:
            stored = self._stored(call, until)
            if stored is None:
                try:
                    return handle()
                except IdempotencyConflict:
                    # Another process has won; what it has done is the answer.
                    stored = self._stored(call, until)
            return replay(stored)
        finally:
            with self._lock:
                del self._running[call.scope]
            mine.set()

    def _first(self, call: Idempotency, until: float) -> Event:
        """Wait until this is the only call under its scope; returns what ends the others' wait."""
        mine = Event()
        while True:
            with self._lock:
                fingerprint, done = self._running.setdefault(call.scope, (call.fingerprint, mine))
            if done is mine:
                return mine
            check_same(fingerprint, call)
            if not done.wait(max(0.0, until - self._clock())):
                raise still_running()

    def _stored(self, call: Idempotency, until: float) -> StoredAnswer | None:
        while True:
            stored = self._store.lookup(call.scope)
            if stored is None or settled(stored, call, until - self._clock()):
                return stored
            time.sleep(POLL_INTERVAL)
