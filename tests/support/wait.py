"""Waiting for something real to become true, with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

DEADLINE = 20.0
PAUSE = 0.01


async def until(
    condition: Callable[[], object | Awaitable[object]], what: str, *, seconds: float = DEADLINE
) -> None:
    """Ask again and again; fail the test when it did not come true in `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        assert loop.time() < deadline, f"timed out waiting for: {what}"
        await asyncio.sleep(PAUSE)


def until_sync(condition: Callable[[], object], what: str) -> None:
    """`until` for tests without an event loop."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(PAUSE)
