"""Streams of updates: read from the record, woken by the notifier."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from accord.errors import NotFound, OutOfRange, ResourceExhausted, ServiceError
from accord_runtime.database import Database, Tx
from accord_runtime.events.notifier import Notifier, Watch
from accord_runtime.events.outbox import Event, event_time, of_key
from services.orders import domain, store
from shop.orders.v1 import orders_pb2 as pb

MAX_TRACKED: Final = 1000
"""Orders that one TrackOrders stream follows at a time."""


@dataclass(slots=True)
class Follower:
    """One order that is being followed: what has been delivered of it."""

    order_id: str
    sequence: int
    order: pb.Order = field(default_factory=pb.Order)

    @property
    def ended(self) -> bool:
        """Whether the order has ended, as far as it was delivered."""
        return self.order.status in domain.TERMINAL

    def read(self, tx: Tx) -> list[pb.StreamOrderUpdatesResponse]:
        """The updates that have not been delivered yet."""
        updates = []
        # All events are folded once, so that an update can say where the order stood.
        for event in of_key(tx, self.order_id, after=self.order.sequence):
            store.fold(self.order, event)
            if event.sequence > self.sequence:
                updates.append(_update(event, self.order))
                self.sequence = event.sequence
        return updates

    def begin(self, tx: Tx) -> list[pb.StreamOrderUpdatesResponse]:
        """Like `read`, for the first time.

        Raises:
            NotFound: there is no such order.
            OutOfRange: `sequence` lies in the future of the order (SEQUENCE_IN_FUTURE).
        """
        head = store.get_own(tx, self.order_id).sequence
        if self.sequence > head:
            raise OutOfRange(
                "SEQUENCE_IN_FUTURE",
                f"after_sequence is {self.sequence}, the order's last event is {head}",
            )
        return self.read(tx)


def _update(event: Event, order: pb.Order) -> pb.StreamOrderUpdatesResponse:
    return pb.StreamOrderUpdatesResponse(
        sequence=event.sequence,
        event_type=event.type,
        status=order.status,
        occurred_at=event_time(event.occurred_at),
        failure=order.failure if order.HasField("failure") else None,
    )


class Watching:
    """The streams of one process."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier

    async def updates(
        self, order_id: str, after: int
    ) -> AsyncGenerator[pb.StreamOrderUpdatesResponse, None]:
        """The updates of one order beyond a sequence, until it has ended."""
        follower = Follower(order_id, after)
        with self._notifier.watching(order_id) as watch:
            updates = await self._database.read(follower.begin)
            while True:
                for update in updates:
                    yield update
                if follower.ended:
                    return
                await watch.wait()
                updates = await self._database.look_up(follower.read)

    async def track(
        self, requests: AsyncIterator[pb.TrackOrdersRequest]
    ) -> AsyncGenerator[pb.TrackOrdersResponse, None]:
        """Follow the orders that the caller adds, until it is done and all have ended."""
        with self._notifier.watching() as watch:
            tracking = Tracking(self._database, self._notifier, watch)
            reader = asyncio.create_task(tracking.read_all(requests))
            try:
                while not (reader.done() and tracking.idle):
                    for response in await tracking.news(await watch.wait()):
                        yield response
                await reader
            finally:
                reader.cancel()


class Tracking:
    """The orders that one TrackOrders stream follows."""

    def __init__(self, database: Database, notifier: Notifier, watch: Watch) -> None:
        self._database = database
        self._notifier = notifier
        self._watch = watch
        self._followers: dict[str, Follower] = {}
        self._fresh: dict[str, Follower] = {}
        self._said: list[pb.TrackOrdersResponse] = []
        self._taken = asyncio.Event()
        self._refused: ServiceError | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is followed and nothing is left to say."""
        return not (self._followers or self._fresh or self._said)

    async def read_all(self, requests: AsyncIterator[pb.TrackOrdersRequest]) -> None:
        """Do what the caller asks until it is done asking."""
        try:
            async for request in requests:
                await self._room()
                if request.WhichOneof("change") == "add":
                    self._add(request.add)
                elif self._drop(request.remove):
                    self._say(request.remove, pb.Untracked.CAUSE_REMOVED)
                self._watch.wake()
        except ServiceError as error:
            self._refused = error
        finally:
            self._watch.wake()

    async def news(self, changed: set[str]) -> list[pb.TrackOrdersResponse]:
        """What there is to say, given the orders that have changed.

        Raises:
            ResourceExhausted: the caller follows too many orders.
        """
        if self._refused is not None:
            raise self._refused
        fresh, self._fresh = self._fresh, {}
        for follower in fresh.values():
            try:
                updates = await self._database.read(follower.begin)
            except OutOfRange:
                self._end(follower, pb.Untracked.CAUSE_OUT_OF_RANGE)
            except NotFound:
                self._end(follower, pb.Untracked.CAUSE_NOT_FOUND)
            else:
                self._deliver(follower, updates)
        for order_id in changed:
            # The caller goes on adding and removing all the while.
            known = self._followers.get(order_id)
            if known is not None and order_id not in self._fresh:
                self._deliver(known, await self._database.read(known.read))
        said, self._said = self._said, []
        self._taken.set()
        return said

    async def _room(self) -> None:
        """Wait while there is much to say: a caller that does not listen is not listened to."""
        while len(self._fresh) + len(self._said) >= MAX_TRACKED:
            self._taken.clear()
            await self._taken.wait()

    def _add(self, request: pb.StreamOrderUpdatesRequest) -> None:
        if request.order_id in self._followers:
            return
        if len(self._followers) >= MAX_TRACKED:
            raise ResourceExhausted(
                "TOO_MANY_ORDERS", None, f"a stream follows at most {MAX_TRACKED} orders at a time"
            )
        follower = Follower(request.order_id, request.after_sequence)
        self._followers[request.order_id] = follower
        self._fresh[request.order_id] = follower
        self._notifier.add(self._watch, request.order_id)

    def _drop(self, order_id: str) -> bool:
        self._notifier.remove(self._watch, order_id)
        self._fresh.pop(order_id, None)
        return self._followers.pop(order_id, None) is not None

    def _deliver(self, follower: Follower, updates: list[pb.StreamOrderUpdatesResponse]) -> None:
        if not self._follows(follower):
            return
        for update in updates:
            self._said.append(pb.TrackOrdersResponse(order_id=follower.order_id, update=update))
        if follower.ended:
            self._end(follower, pb.Untracked.CAUSE_ENDED)

    def _end(self, follower: Follower, cause: "pb.Untracked.Cause.ValueType") -> None:
        if self._follows(follower):
            self._drop(follower.order_id)
            self._say(follower.order_id, cause)

    def _follows(self, follower: Follower) -> bool:
        """Whether it was not removed while its events were read."""
        return self._followers.get(follower.order_id) is follower

    def _say(self, order_id: str, cause: "pb.Untracked.Cause.ValueType") -> None:
        self._said.append(
            pb.TrackOrdersResponse(order_id=order_id, untracked=pb.Untracked(cause=cause))
        )
