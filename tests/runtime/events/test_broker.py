"""Cancelling what talks to the broker."""

import asyncio

import pytest

from accord_runtime.events.broker import abortable


async def test_a_cancellation_that_is_swallowed_is_repeated() -> None:
    """Work that loses two cancellations, as `asyncio.wait_for` can, still ends with the third."""
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1
                if heard == 3:
                    raise

    task = asyncio.create_task(abortable(deaf()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert heard == 3


async def test_an_error_reaches_the_caller() -> None:
    """What the work raises is raised."""

    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await abortable(fails())
