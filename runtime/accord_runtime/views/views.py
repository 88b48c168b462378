"""The views of a service that are kept by the events of one source, and their rebuilding."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from accord import failure_of
from accord.errors import NotFound, Resource
from accord_runtime.database import DatabaseUnavailable, Lock, Tx
from accord_runtime.events.audit import Record, Recorded
from accord_runtime.events.broker import persistently
from accord_runtime.events.inbox import Received
from accord_runtime.events.notifier import wait
from accord_runtime.events.versions import AS_WRITTEN, Upcasters
from accord_runtime.grpc import consistency
from accord_runtime.service import Runtime
from accord_runtime.views import store
from accord_runtime.views.store import Change, State, View
from accord_runtime.work.failures import in_words
from accord_runtime.work.table import Effect

log = logging.getLogger(__name__)

BATCH: Final = 200
"""Events that a rebuild applies in one transaction; what comes meanwhile waits for that long."""

RETRY: Final = 5.0
"""Seconds after which a record that could not be read is tried again."""

POLL: Final = 60.0
"""Seconds between two looks for a rebuild of which nobody told: another process may have died."""

PAUSE: Final = 0.1
"""Seconds at least between two looks at a view by one who watches it."""

MOST_WAITING: Final = 10_000
"""Waiting events that are counted."""

CHANGED: Final = "views"
BEGUN: Final = "rebuilds"
"""What the database's processes are told when a view has changed, or is to be rebuilt."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """What a view has of its source."""

    position: int
    """Every event up to here in the source's record has been received; 0 until it is built."""
    waiting: int
    """Events that were received and are not in the view yet; up to `MOST_WAITING`."""
    waiting_since: float
    """When the oldest of them came, Unix seconds; 0 if there is none."""
    target: int
    """Where the record ended when it was last looked at; 0 if it was not."""


class Views:
    """Keeps views by the events of one source, named as in `Runtime.subscribe`."""

    def __init__(
        self,
        runtime: Runtime,
        stream: str,
        record: Record,
        *views: View,
        upcasters: Upcasters = AS_WRITTEN,
    ) -> None:
        self._database = runtime.database
        self._notifier = runtime.notifier
        self._source = stream.lower()
        self._record = record
        self._upcasters = upcasters
        self._views = {view.name: view for view in views}
        self._begun = asyncio.Event()
        types = {message for view in views for message in view.apply}
        handlers = dict.fromkeys(types, self._handle)
        runtime.subscribe(stream, handlers, record, upcasters, at_once=True)
        runtime.background.append((f"views of {stream}", self.serve))

    async def _handle(self, event: Received[Any]) -> Effect:
        def effect(tx: Tx) -> None:
            for view in self._views.values():
                if type(event.payload) in view.apply:
                    store.take(tx, view, event)
                    self._tell(tx, view.name)

        return effect

    def state(self, tx: Tx, name: str) -> State:
        """How a view is.

        Raises:
            NotFound: there is no such view.
        """
        if name not in self._views:
            raise NotFound(resource=Resource("view", name))
        return store.read(tx, name)

    def completeness(self, tx: Tx, state: State) -> Completeness:
        """What a view has of its source."""
        source, queue = {"source": self._source}, f"inbox:{self._source}"
        known = tx.value("SELECT position FROM consumed WHERE source = :source", source) or 0
        row = tx.one(
            "SELECT COUNT(*) AS waiting, MIN(created_at) AS since FROM"
            " (SELECT created_at FROM work WHERE queue = :queue LIMIT :most) AS waiting",
            {"queue": queue, "most": MOST_WAITING},
        )
        assert row is not None
        target = max(known, state.position, state.reached)
        position = max(known, state.position) if state.generation else 0
        return Completeness(position, row["waiting"], row["since"] or 0.0, target)

    def rebuild(self, tx: Tx, name: str) -> State:
        """Begin to rebuild a view after the commit, unless that is under way.

        Raises:
            NotFound: there is no such view.
        """
        state = self.state(tx, name)
        if not state.building:
            state = store.begin(tx, name, time.time())
            tx.after_commit(self._wake)
        return state

    async def changes(self, name: str) -> AsyncGenerator[None, None]:
        """At once, and when a view has changed since; at most once in `PAUSE` seconds."""
        with self._notifier.watching(_topic(name)) as watch:
            while True:
                yield
                await asyncio.sleep(PAUSE)
                await watch.wait()

    async def caught_up(self, name: str, things: str) -> None:
        """Return once a view has of a key what the caller of this call has seen of it.

        `things`: what the source calls its keys in consistency tokens, as "orders/". Events that no
        view has in its `apply` are never caught up with.

        Raises:
            Unavailable: as `grpc.consistency.caught_up`.
        """

        def position(tx: Tx) -> int:
            return store.last(tx, name, store.read(tx, name).generation, key)

        if key := consistency.seen(things):
            topic = _topic(name)
            await consistency.caught_up(
                self._database, self._notifier, things + key, topic, position
            )

    async def serve(self) -> None:
        """Rebuild what is to be rebuilt, until cancelled."""
        self._database.listen(CHANGED, self._changed)
        self._database.listen(BEGUN, self._begun.set)
        await persistently("views", self._serve)

    async def _serve(self) -> None:
        await self._database.write(self._define)
        while True:
            self._begun.clear()
            for name, view in self._views.items():
                state = await self._database.read(partial(store.read, name=name))
                if state.building or state.swept < state.generation:
                    async with self._database.exclusive(f"view:{name}") as lock:
                        await self._build(lock, view)
            await wait(self._begun, POLL)

    def _define(self, tx: Tx) -> None:
        for name, view in self._views.items():
            if store.read(tx, name).version < view.version:
                self.rebuild(tx, name)

    async def _build(self, lock: Lock, view: View) -> None:
        """Build the generation that is to be built, from where that was left off."""
        write = self._database.write
        while (state := await self._database.read(partial(store.read, name=view.name))).building:
            try:
                if await self._read_record(lock, view, state):
                    while not await write(lock.guard(partial(self._swap, view=view))):
                        pass
            except DatabaseUnavailable:
                raise
            except Exception as error:
                log.exception("view %s cannot be rebuilt", view.name)
                text = in_words(error)
                await write(lock.guard(lambda tx: self._give_up(tx, view, text)))  # noqa: B023
        while await write(lock.guard(partial(store.sweep, view=view))):
            pass

    async def _read_record(self, lock: Lock, view: View, state: State) -> bool:
        """Apply what the record has beyond what was reached; False if it must be tried again."""
        batches = self._batches(state.reached, [each.DESCRIPTOR.full_name for each in view.apply])
        while True:
            try:
                batch = await anext(batches, None)
            except Exception as error:
                failure = failure_of(error)
                if failure is not None and failure.reason == "POSITION_IN_FUTURE":
                    await self._database.write(
                        lock.guard(lambda tx: store.begin(tx, view.name, time.time()))
                    )
                else:
                    text = f"the record of {self._source} cannot be read: {in_words(error)}"
                    await self._database.write(lock.guard(partial(_note, view=view, problem=text)))
                    await asyncio.sleep(RETRY)
                return False
            if batch is None:
                return True
            await self._database.write(lock.guard(partial(self._apply, view=view, batch=batch)))

    async def _batches(self, after: int, types: list[str]) -> AsyncIterator[list[Recorded]]:
        batch = list[Recorded]()
        async for each in self._record(after, types):
            batch.append(each)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _apply(self, tx: Tx, view: View, batch: list[Recorded]) -> None:
        reached = batch[-1].position
        state = store.change(tx, view.name, "reached = :reached, problem = ''", reached=reached)
        for each in batch:
            if message := view.type_of(each.event.type):
                event = Received(
                    each.event.event_id,
                    each.event.key,
                    each.event.sequence,
                    self._upcasters.read(message, each.event.version, each.event.payload.value),
                    each.event.occurred_at.ToMicroseconds() / 1e6,
                )
                store.apply(tx, view, Change(state.building, state.revision, event))
        self._tell(tx, view.name)

    def _swap(self, tx: Tx, view: View) -> bool:
        swapped = store.swap(tx, view, time.time())
        if swapped:
            self._tell(tx, view.name)
        return swapped

    def _give_up(self, tx: Tx, view: View, problem: str) -> None:
        store.give_up(tx, view.name, problem)
        self._tell(tx, view.name)

    def _tell(self, tx: Tx, name: str) -> None:
        tx.after_commit(partial(self._notifier.changed, _topic(name)))
        tx.after_commit(partial(self._database.notify, CHANGED))

    def _changed(self) -> None:
        for name in self._views:
            self._notifier.changed(_topic(name))

    def _wake(self) -> None:
        self._begun.set()
        self._database.notify(BEGUN)


def _topic(name: str) -> str:
    """The key by which the notifier tells that a view has changed."""
    return f"view:{name}"


def _note(tx: Tx, view: View, problem: str) -> None:
    store.change(tx, view.name, "problem = :problem", problem=problem)
