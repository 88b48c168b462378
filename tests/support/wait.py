"""Waiting for something real to become true, with a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PAUSE = 0.01


async def until(
    condition: Callable[[], object | Awaitable[object]], what: str, *, seconds: float = 20.0
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
