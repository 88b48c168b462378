"""Bounded concurrency."""

import asyncio

import pytest

from shopctl.errors import CommandError
from shopctl.replay.parallel import for_each


async def test_never_more_than_the_limit() -> None:
    """All items are worked on, begun in their order, and never more than the limit at a time."""
    running = most = 0
    begun: list[int] = []

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        begun.append(item)
        await asyncio.sleep(0)
        running -= 1

    await for_each(range(50), 7, work)
    assert begun == list(range(50))
    assert most == 7


async def test_the_first_error_ends_it() -> None:
    """An error cancels what runs and is raised as it is, not in a group."""
    cancelled = []

    async def work(item: int) -> None:
        if item == 3:
            raise CommandError("refused")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(CommandError, match="refused"):
        await for_each(range(10), 4, work)
    assert sorted(cancelled) == [0, 1, 2]
