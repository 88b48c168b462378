"""Repeated calls: the stored answer instead of a second effect.

Only the first call under a scope reaches the handler. Others wait for it, in this process for the
call itself and across processes for its record, to their own deadline. A transient failure leaves
no record: then the next one in line is the first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from accord.context import Idempotency
from accord.errors import IdempotencyConflict
from accord.interfaces import IdempotencyStore, StoredAnswer, SyncIdempotencyStore
from accord.policies.idempotency import POLL_INTERVAL, Scope
from accord.server.idempotency import check_same, replay, settled, still_running, wait_until


class InThreads:
    """A store whose `lookup` blocks, asked in the threads of a pool."""

    def __init__(self, store: SyncIdempotencyStore, pool: Executor) -> None:
        self._store = store
        self._pool = pool

    async def lookup(self, scope: Scope) -> StoredAnswer | None:
        """As the store's own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._store.lookup, scope)


class KeyedCalls:
    """The calls with a key that this process is working on, over a store of answers."""

    def __init__(self, store: IdempotencyStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._running: dict[Scope, tuple[bytes, asyncio.Event]] = {}
        """Of the first call under a scope: its fingerprint, and when it is done."""

    async def answer(
        self, call: Idempotency, deadline: float | None, handle: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """The answer to a call: stored, or from `handle`, which runs once at a time per scope.

        Raises `Answered` for a stored refusal, InvalidArgument for a key that was used for another
        request, Aborted when the first call did not finish before this one's deadline.
        """
        until = wait_until(self._clock(), deadline)
        while (first := self._running.get(call.scope)) is not None:
            fingerprint, done = first
            check_same(fingerprint, call)
            try:
                async with asyncio.timeout(until - self._clock()):
                    await done.wait()
            except TimeoutError:
                raise still_running() from None
        mine = asyncio.Event()
        self._running[call.scope] = (call.fingerprint, mine)
        try:
            stored = await self._stored(call, until)
            if stored is None:
                try:
                    return await handle()
                except IdempotencyConflict:
                    # Another process has won; what it has done is the answer.
                    stored = await self._stored(call, until)
            return replay(stored)
        finally:
            del self._running[call.scope]
            mine.set()

    async def _stored(self, call: Idempotency, until: float) -> StoredAnswer | None:
        while True:
            stored = await self._store.lookup(call.scope)
            if stored is None or settled(stored, call, until - self._clock()):
                return stored
            await asyncio.sleep(POLL_INTERVAL)
