"""Streams of updates and events."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any

import grpc
import pytest

from accord.errors import ServiceError
from accord_runtime.grpc.ids import uuid7
from services.orders import watching
from shop.orders.v1 import orders_pb2 as pb
from shop.sandbox.v1 import sandbox_pb2
from tests.runtime.events.support import watched
from tests.services.orders.books import behave, kinds, updates
from tests.services.orders.test_flow import GOOD, cancel, place
from tests.support.shop import Shop, order_request


async def placed(shop: Shop) -> pb.Order:
    """A good order that has ended."""
    await shop.product("tea")
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    await updates(shop, order.order_id)
    return order


async def after(shop: Shop, order_id: str, sequence: int) -> list[int]:
    """The sequences that a watcher gets who has seen `sequence` updates."""
    request = pb.StreamOrderUpdatesRequest(order_id=order_id, after_sequence=sequence)
    return [update.sequence async for update in shop.orders.StreamOrderUpdates(request)]


async def test_a_late_watcher_gets_what_it_has_not_seen(shop: Shop) -> None:
    """Every starting point gives exactly the rest; from the last event on it is empty and OK."""
    order = await placed(shop)
    for seen in range(7):
        assert await after(shop, order.order_id, seen) == list(range(seen + 1, 7))


async def test_a_watcher_from_the_future_is_told_so(shop: Shop) -> None:
    """A sequence that does not exist yet is OUT_OF_RANGE, not a stream that waits for ever."""
    order = await placed(shop)
    with pytest.raises(grpc.RpcError) as caught:
        await after(shop, order.order_id, 7)
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_IN_FUTURE")


async def test_many_watchers_see_the_same(shop: Shop) -> None:
    """A hundred watchers that come at any time all get the whole story."""
    await shop.product("tea")
    await behave(shop, sandbox_pb2.PARTY_CARRIER, sandbox_pb2.BEHAVIOR_FAIL, calls=1)
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    seen = await asyncio.gather(*(updates(shop, order.order_id) for _ in range(100)))
    assert all(kinds(each) == GOOD for each in seen)
    assert watched(shop.runtimes["orders"].notifier) == 0


async def record(shop: Shop, after_position: int = 0) -> list[pb.ReadEventsResponse]:
    """The record beyond a position, up to now."""
    request = pb.ReadEventsRequest(after_position=after_position)
    return [event async for event in shop.orders.ReadEvents(request)]


async def test_the_record_can_be_read_from_anywhere(shop: Shop) -> None:
    """Positions are 1, 2, 3 ..., the payload is the event, and any position can be resumed from."""
    order = await placed(shop)
    everything = await record(shop)
    assert [event.position for event in everything] == [1, 2, 3, 4, 5, 6]
    assert [event.event.sequence for event in everything] == [1, 2, 3, 4, 5, 6]
    assert {event.event.key for event in everything} == {order.order_id}
    assert len({event.event.traceparent.split("-")[1] for event in everything}) == 1
    assert await record(shop, 4) == everything[4:]
    with pytest.raises(grpc.RpcError) as caught:
        await record(shop, 7)
    assert ServiceError.from_rpc(caught.value).reason == "POSITION_IN_FUTURE"


async def test_some_types_of_the_record_can_be_read(shop: Shop) -> None:
    """Only events of the named types come, at their positions; a stream of none of them ends."""
    await placed(shop)
    everything = await record(shop)
    named = [everything[0].event.type, everything[4].event.type]
    for after, types, found in (
        (0, named, [everything[0], everything[4]]),
        (1, named, [everything[4]]),
        (5, named, []),
        (0, ["shop.orders.v1.OrderNoteAdded"], []),
    ):
        request = pb.ReadEventsRequest(after_position=after, types=types)
        assert [event async for event in shop.orders.ReadEvents(request)] == found


async def test_a_follower_of_some_types_gets_no_others(shop: Shop) -> None:
    """A stream that follows stays behind events that it does not deliver."""
    wanted = ["shop.orders.v1.OrderConfirmed"]
    stream = shop.orders.ReadEvents(pb.ReadEventsRequest(follow=True, types=wanted))
    received = asyncio.create_task(_take(stream, 2))
    for _ in range(2):
        await placed(shop)
    async with asyncio.timeout(10):
        events = await received
    assert [event.event.type for event in events] == wanted * 2
    stream.cancel()


async def test_the_card_is_told_to_payments_alone(shop: Shop) -> None:
    """No event has the token of the card; it is asked for, and the order was paid with it."""
    await shop.product("tea")
    order = await place(shop, order_request(await shop.customer(), {"tea": 1}, card="tok_mine"))
    assert kinds(await updates(shop, order.order_id))[-1] == "Confirmed"
    said = [event.SerializeToString() for event in await record(shop)]
    assert said
    assert not any(b"tok_mine" in event for event in said)
    asked = pb.GetPaymentInstructionRequest(order_id=order.order_id)
    assert (await shop.orders.GetPaymentInstruction(asked)).card_token == "tok_mine"


async def test_a_follower_gets_what_is_committed_later(shop: Shop) -> None:
    """A stream that follows delivers events of orders that did not exist when it began."""
    stream = shop.orders.ReadEvents(pb.ReadEventsRequest(follow=True))
    received = asyncio.create_task(_take(stream, 6))
    order = await placed(shop)
    async with asyncio.timeout(10):
        events = await received
    assert {event.event.key for event in events} == {order.order_id}
    stream.cancel()


async def _take(
    stream: AsyncIterable[pb.ReadEventsResponse], count: int
) -> list[pb.ReadEventsResponse]:
    taken: list[pb.ReadEventsResponse] = []
    async for event in stream:
        taken.append(event)
        if len(taken) == count:
            break
    return taken


async def test_track_orders_adds_removes_and_says_why(shop: Shop) -> None:
    """One stream follows orders that have ended, are unknown, were removed, and come back."""
    ended = await placed(shop)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_FAIL)
    held = await place(shop, order_request(await shop.customer(), {"tea": 1}))
    unknown = uuid7()
    call: Any = shop.orders.TrackOrders(None)

    async def add(order_id: str, sequence: int = 0) -> None:
        request = pb.StreamOrderUpdatesRequest(order_id=order_id, after_sequence=sequence)
        await call.write(pb.TrackOrdersRequest(add=request))

    said: dict[str, list[str | int]] = {}

    async def until(order_id: str, entry: str | int) -> None:
        async with asyncio.timeout(20):
            while entry not in said.get(order_id, []):
                response = await call.read()
                what = (
                    response.update.sequence
                    if response.WhichOneof("event") == "update"
                    else pb.Untracked.Cause.Name(response.untracked.cause)
                )
                said.setdefault(response.order_id, []).append(what)

    await add(ended.order_id, 4)
    await until(ended.order_id, "CAUSE_ENDED")
    assert said[ended.order_id] == [5, 6, "CAUSE_ENDED"]
    await add(unknown)
    await until(unknown, "CAUSE_NOT_FOUND")
    await add(ended.order_id, 99)
    await until(ended.order_id, "CAUSE_OUT_OF_RANGE")
    await add(held.order_id)
    await until(held.order_id, 2)
    await call.write(pb.TrackOrdersRequest(remove=held.order_id))
    await until(held.order_id, "CAUSE_REMOVED")
    await add(held.order_id, 2)
    await cancel(shop, held.order_id)
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_NORMAL)
    await until(held.order_id, "CAUSE_ENDED")
    assert said[held.order_id] == [1, 2, "CAUSE_REMOVED", 3, 4, "CAUSE_ENDED"]
    await call.done_writing()
    assert not await call.read()
    assert watched(shop.runtimes["orders"].notifier) == 0


async def test_track_orders_is_bounded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stream follows so many orders and no more."""
    monkeypatch.setattr(watching, "MAX_TRACKED", 3)
    await shop.product("tea")
    await behave(shop, sandbox_pb2.PARTY_CARD_PROCESSOR, sandbox_pb2.BEHAVIOR_FAIL)
    customer = await shop.customer()
    orders = [await place(shop, order_request(customer, {"tea": 1})) for _ in range(4)]
    call: Any = shop.orders.TrackOrders(None)
    for order in orders:
        request = pb.StreamOrderUpdatesRequest(order_id=order.order_id)
        await call.write(pb.TrackOrdersRequest(add=request))
    with pytest.raises(grpc.RpcError) as caught:
        async for _ in call:
            pass
    assert ServiceError.from_rpc(caught.value).reason == "TOO_MANY_ORDERS"
