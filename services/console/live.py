"""What changes on a page that is looked at: looked up once for all who look at the same."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from services.console.html import Html

Load = Callable[[], Awaitable[tuple[dict[str, Html], float]]]
"""The live parts of a page by id, and the seconds until they are to be looked up again."""

PING: Final = 15.0
"""Seconds after which a stream says that it is still there."""

MAX_VIEWERS: Final = 200
"""Streams that may be open."""


class _Feed:
    def __init__(self) -> None:
        self.viewers = 0
        self.parts: dict[str, Html] = {}
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def run(self, load: Load) -> None:
        while True:
            parts, every = await load()
            if parts != self.parts:
                self.parts = parts
                self.changed.set()
                self.changed = asyncio.Event()
            await asyncio.sleep(every)


class Feeds:
    """One look-up for each page that is looked at, however many do. Belongs to one event loop."""

    def __init__(self) -> None:
        self._feeds: dict[str, _Feed] = {}
        self._ending = asyncio.Event()

    @property
    def viewers(self) -> int:
        """Streams that are open."""
        return sum(feed.viewers for feed in self._feeds.values())

    def close(self) -> None:
        """End all streams."""
        self._ending.set()
        for feed in self._feeds.values():
            feed.changed.set()

    async def follow(self, key: str, load: Load, alive: Callable[[], bool]) -> AsyncGenerator[str]:
        """Server-sent events with what has changed, for as long as `alive` says so.

        Each has the parts that differ from what the viewer has, by id.
        """
        feed = self._feeds.setdefault(key, _Feed())
        if feed.task is None:
            feed.task = asyncio.create_task(feed.run(load), name=f"feed {key}")
        feed.viewers += 1
        sent: dict[str, Html] = {}
        try:
            yield ": hello\n\n"
            while alive() and not self._ending.is_set() and not feed.task.done():
                changed = feed.changed
                fresh = {name: html for name, html in feed.parts.items() if sent.get(name) != html}
                if fresh:
                    sent |= fresh
                    yield f"data: {json.dumps(fresh)}\n\n"
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), PING)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            feed.viewers -= 1
            if not feed.viewers:
                feed.task.cancel()
                self._feeds.pop(key, None)
