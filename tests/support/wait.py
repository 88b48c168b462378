"""Waiting for something real to become true, with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

DEADLINE = 60.0
PAUSE = 0.01
SHARE = 0.05
"""What is waited for long is asked for less often: a pause is this much of the time so far."""


async def until(
    condition: Callable[[], object | Awaitable[object]], what: str, *, seconds: float = DEADLINE
) -> None:
    """Ask again and again; fail the test when it did not come true in `seconds`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        waited = loop.time() - began
        assert waited < seconds, f"timed out waiting for: {what}"
        await asyncio.sleep(max(PAUSE, waited * SHARE))


def until_sync(condition: Callable[[], object], what: str) -> None:
    """`until` for tests without an event loop."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(PAUSE)
