"""Repeats calls until they are answered."""

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Final, TypeVar

import grpc

from accord.errors import ServiceError
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.replay.tally import Tally

T = TypeVar("T")

RETRIABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Codes that say nothing about the request itself."""


class RefusedError(CommandError):
    """A call was answered with an error that repeating it will not change."""

    def __init__(self, method: str, failure: ServiceError) -> None:
        super().__init__(
            f"{method}: {failure.code.name} ({failure.reason}): {failure.message}",
            ExitCode.REFUSED,
        )
        self.failure = failure


class Patience:
    """Rides out services that are down, slow or busy; whoever calls bounds the time.

    What it does comes on top of the retries that the contract allows: those end within the
    deadline of one call, this waits for processes to come back. Only calls that may be repeated
    may be made with it: reads, and writes with an idempotency key.

    Args:
        tally: gets to know of every repetition.
        first_pause: seconds before the first repetition, doubled for each one after it.
        longest_pause: seconds, bounds every pause.
    """

    def __init__(
        self, tally: Tally, *, first_pause: float = 0.1, longest_pause: float = 2.0
    ) -> None:
        self._tally = tally
        self._first_pause = first_pause
        self._longest_pause = longest_pause

    async def call(self, method: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call.

        Args:
            method: its name, for error messages.
            attempt: makes the call, the same one each time.

        Raises:
            RefusedError: it failed with a code that is not in `RETRIABLE`.
        """
        longest = self._first_pause
        while True:
            try:
                return await attempt()
            except grpc.RpcError as error:
                failure = ServiceError.from_rpc(error)
                if failure.code not in RETRIABLE:
                    raise RefusedError(method, failure) from None
            self._tally.retried(failure.code.name)
            # A circuit breaker may name half a minute. Asking it again costs no one anything, and
            # the service behind it may be back much sooner.
            least = min(failure.retry_after or 0.0, self._longest_pause)
            await asyncio.sleep(max(least, random.uniform(longest / 2, longest)))
            longest = min(2 * longest, self._longest_pause)

    async def all(self, method: str, attempt: Callable[[], AsyncIterable[T]]) -> list[T]:
        """Every message of a stream that ends by itself; one that breaks is read anew.

        Raises:
            RefusedError: see `call`.
        """

        async def collect() -> list[T]:
            return [message async for message in attempt()]

        return await self.call(method, collect)
