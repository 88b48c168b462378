"""Bounded concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from shopctl.errors import CommandError

T = TypeVar("T")


async def for_each(items: Iterable[T], limit: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Does `work` on every item, at most `limit` at a time, begun in their order.

    Raises:
        CommandError: the first one that `work` raised; the rest is cancelled.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except* CommandError as errors:
        raise first(errors) from None


def first(errors: ExceptionGroup[CommandError]) -> CommandError:
    """The first of a group of errors, however deep it is nested."""
    error = errors.exceptions[0]
    return first(error) if isinstance(error, ExceptionGroup) else error
