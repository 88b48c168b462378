"""Wakes the streams of one process when what they watch has changed.

A wake says "look", never what there is to see: a watcher reads the database at
its own pace, so a slow one costs no memory. Commits of this process wake at
once; those of other replicas when they have got their positions, of which the
database tells.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from accord_runtime.database import Database, DatabaseError
from accord_runtime.events.outbox import head, keys_after
from accord_runtime.ticks import until_next

log = logging.getLogger(__name__)

POSITIONS: Final = "positions"
"""What the database's processes are told when events have got their positions."""

POLL: Final = 10.0
"""Seconds between two looks at the record when nothing was told: a word may be lost."""


RECORD: Final = ""
"""Watched in place of a key: the whole record, which grows when positions are given."""


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Watch:
    """What one stream watches: some keys, or the whole record."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._changed: set[str] = set()
        self._event = asyncio.Event()

    def wake(self, key: str = RECORD) -> None:
        """Note that a key has changed."""
        self._changed.add(key)  # At most one entry per watched key.
        self._event.set()

    async def wait(self) -> set[str]:
        """The keys that changed since the last call; at least one."""
        await self._event.wait()
        self._event.clear()
        changed, self._changed = self._changed, set()
        return changed


class Notifier:
    """All watches of a process."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    async def serve(self, database: Database) -> None:
        """Look for what other processes have written until cancelled."""
        told = asyncio.Event()
        database.listen(POSITIONS, told.set)
        seen = await database.read(head)
        while True:
            await wait(told, until_next(POLL))
            told.clear()
            try:
                position, keys = await database.read(partial(keys_after, position=seen))
            except DatabaseError as error:
                log.debug("the record could not be looked at: %s", error)
                continue
            for key in [*keys, RECORD] if keys else ():
                self.changed(key)
            seen = position

    @contextmanager
    def watching(self, *keys: str) -> Iterator[Watch]:
        """A watch of some keys or of the `RECORD`; `add` and `remove` change what it watches."""
        watch = Watch()
        for key in keys:
            self.add(watch, key)
        try:
            yield watch
        finally:
            for key in list(watch.keys):
                self.remove(watch, key)

    def add(self, watch: Watch, key: str) -> None:
        """Let a watch be woken for a key, too."""
        watch.keys.add(key)
        self._watches.setdefault(key, set()).add(watch)

    def remove(self, watch: Watch, key: str) -> None:
        """Undo `add`."""
        watch.keys.discard(key)
        watches = self._watches.get(key, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(key, None)

    def changed(self, key: str) -> None:
        """An event of this key was committed; the `RECORD`: positions were given."""
        for watch in self._watches.get(key, ()):
            watch.wake(key)
