"""The shipping service over gRPC, with a real sandbox behind it."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import grpc
import pytest
import pytest_asyncio

from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from shop.sandbox.v1 import sandbox_pb2 as outside
from shop.shipping.v1 import shipping_pb2 as pb
from tests.services.sandbox.world import (
    DEADLINE,
    UNAVAILABLE,
    World,
    eventually,
    failure,
    refused,
    running_world,
)
from tests.services.shipping.client import BOOKED, BOOKED_AND_CANCELLED, UNITS, Client, calling
from tests.support.shop import Shop, address

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARRIER = outside.PARTY_CARRIER


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Shop, World]]:
    """Shipping beside a sandbox, for all tests of this module, on each backend in turn."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    home = tmp_path_factory.mktemp("shipping")
    async with running_world(home, "shipping", database_url=url) as both:
        yield both


@pytest.fixture
def shop(started: tuple[Shop, World]) -> Shop:
    return started[0]


@pytest.fixture
def world(started: tuple[Shop, World]) -> World:
    return started[1]


@pytest_asyncio.fixture(loop_scope="module")
async def shipping(shop: Shop) -> AsyncIterator[Client]:
    async with calling(shop.offset) as client:
        yield client


@pytest.fixture
def order() -> str:
    return uuid7()


async def forget_answers(shop: Shop) -> None:
    """Remove the generic idempotency records, as seven days would."""
    database = shop.runtimes["shipping"].database
    await database.write(lambda tx: tx.execute("DELETE FROM idempotency"))


async def forget_shipments(shop: Shop) -> None:
    """Put the database back as it was before anything was asked for."""
    database = shop.runtimes["shipping"].database
    for table in ("shipment", "idempotency", "work"):
        await database.write(partial(Tx.execute, sql=f"DELETE FROM {table}"))


async def late_booking(world: World, shipment: pb.Shipment) -> tuple[grpc.StatusCode, str]:
    """What the carrier says to a booking that was under way for long."""
    late = outside.BookParcelRequest(
        key=shipment.shipment_id, reference=shipment.order_id, ship_to=address(), units=UNITS
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await world.carrier.BookParcel(late, timeout=DEADLINE)
    return failure(raised)


async def test_a_shipment_is_booked(shipping: Client, world: World, order: str) -> None:
    """The carrier has booked all units, under the shipment's id and for the order."""
    shipment = await shipping.create(order)
    (entry,) = await world.ledger(order)

    assert shipment.state == pb.SHIPMENT_STATE_BOOKED
    assert (shipment.order_id, shipment.units) == (order, UNITS)
    assert shipment.tracking_number
    assert (entry.key, entry.units) == (shipment.shipment_id, UNITS)
    assert await shipping.get(order) == shipment


async def test_many_at_once(shipping: Client) -> None:
    """A hundred orders are one call: their shipments come as asked for, the others are listed."""
    orders = [uuid7() for _ in range(100)]
    booked = [await shipping.create(orders[number]) for number in (70, 3)]

    found = await shipping.many(orders)

    assert [*found.shipments] == booked[::-1]
    assert [*found.missing_order_ids] == [*orders[:3], *orders[4:70], *orders[71:]]
    for wrong in ([], [*orders, uuid7()], orders[:1] * 2, ["1"]):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await shipping.many(wrong)
        assert failure(raised)[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_repeat_gets_the_first_answer(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """With the same key, with another one, and after the generic record is gone."""
    first = await shipping.create(order)
    same_key = await shipping.create(order)
    other_key = await shipping.create(order, key=uuid7())
    await forget_answers(shop)
    much_later = await shipping.create(order)

    assert first == same_key == other_key == much_later
    assert await world.kinds(order) == BOOKED


async def test_a_refused_parcel_stays_refused(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """The refusal is the answer to every repeat, also of the generic record's."""
    assert await shipping.refusal(order, country="AQ") == refused("NO_CARRIER")
    assert await shipping.refusal(order, country="AQ") == refused("NO_CARRIER")
    await forget_answers(shop)
    assert await shipping.refusal(order, country="AQ") == refused("NO_CARRIER")
    shipment = await shipping.get(order)
    assert shipment.state == pb.SHIPMENT_STATE_REFUSED
    assert shipment.refusal_reason
    assert await world.kinds(order) == []


async def test_a_key_is_for_one_order_for_ever(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """A key is known from the row itself when its generic record has gone."""
    await shipping.create(order)
    await forget_answers(shop)
    another = uuid7()

    assert await shipping.refusal(another, key=f"{order}/ship") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IDEMPOTENCY_KEY_REUSED",
    )
    assert await world.kinds(another) == []


async def test_a_lost_answer_is_found_again(shipping: Client, world: World, order: str) -> None:
    """The parcel was booked, nobody knew, and the repeat learns its tracking number."""
    await world.behave(CARRIER, outside.BEHAVIOR_LOSE_ANSWER)

    assert await shipping.refusal(order) == UNAVAILABLE
    assert await shipping.state(order) == pb.SHIPMENT_STATE_PENDING
    assert await world.kinds(order) == BOOKED
    assert (await shipping.create(order)).tracking_number
    assert await world.kinds(order) == BOOKED


async def test_a_hanging_carrier_does_not_hang_us(
    shipping: Client, world: World, order: str
) -> None:
    """The caller's deadline ends the call, and the outcome stays open."""
    await world.behave(CARRIER, outside.BEHAVIOR_HANG)

    code, _ = await shipping.refusal(order, timeout=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await shipping.state(order) == pb.SHIPMENT_STATE_PENDING
    assert (await shipping.create(order)).state == pb.SHIPMENT_STATE_BOOKED


async def test_a_carrier_that_is_away_leaves_the_booking_open(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """Nothing is decided while nobody answers; once somebody does, a repeat finishes it."""
    await shop.stop("sandbox")
    try:
        code, _ = await shipping.refusal(order)
    finally:
        await shop.start("sandbox")

    assert code is grpc.StatusCode.UNAVAILABLE
    assert await shipping.state(order) == pb.SHIPMENT_STATE_PENDING
    await eventually(partial(shipping.is_booked, order))
    assert await world.kinds(order) == BOOKED


async def test_a_shipment_is_cancelled(shipping: Client, world: World, order: str) -> None:
    """Once, however often it is asked for; and the order is never shipped again."""
    await shipping.create(order)
    first, again = await shipping.cancel(order), await shipping.cancel(order)

    assert first == again
    assert first.state == pb.SHIPMENT_STATE_CANCELLED
    assert await shipping.refusal(order, key=uuid7()) == refused("SHIPMENT_CANCELLED")
    assert await world.kinds(order) == BOOKED_AND_CANCELLED


async def test_a_cancellation_that_comes_first_wins(
    shipping: Client, world: World, order: str
) -> None:
    """It succeeds, and the booking that comes later is refused, here and by the carrier."""
    shipment = await shipping.cancel(order)

    assert (shipment.state, shipment.units) == (pb.SHIPMENT_STATE_CANCELLED, 0)
    assert await late_booking(world, shipment) == refused("KEY_CANCELLED")
    assert await shipping.refusal(order) == refused("SHIPMENT_CANCELLED")
    assert await world.kinds(order) == []


async def test_a_cancellation_of_a_booking_that_was_lost_cancels_the_parcel(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """The carrier knows of it, and is asked; once, however often the cancellation is."""
    await shipping.create(order)
    await forget_shipments(shop)

    assert (await shipping.cancel(order)).state == pb.SHIPMENT_STATE_CANCELLED
    assert (await shipping.cancel(order)).state == pb.SHIPMENT_STATE_CANCELLED
    assert await world.kinds(order) == BOOKED_AND_CANCELLED


async def test_a_cancellation_that_was_lost_stays_one(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """An order that was cancelled is not shipped when nobody here knows of it any more."""
    await shipping.cancel(order)
    await forget_shipments(shop)

    assert await shipping.refusal(order) == refused("SHIPMENT_CANCELLED")
    assert await world.kinds(order) == []


async def test_a_lost_parcel_on_its_way_cannot_be_cancelled_and_is_found_again(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """The refusal is a business answer, and the repeat of the booking learns of the parcel."""
    booked = await shipping.create(order)
    await forget_shipments(shop)
    await world.behave(CARRIER, outside.BEHAVIOR_DECLINE)

    assert await shipping.cancel_refusal(order) == refused("PARCEL_HANDED_OVER")
    again = await shipping.create(order)
    assert (again.shipment_id, again.tracking_number, again.units) == (
        booked.shipment_id,
        booked.tracking_number,
        UNITS,
    )
    assert await world.kinds(order) == BOOKED


async def test_what_is_known_to_be_over_is_not_asked_for(
    shipping: Client, world: World, order: str
) -> None:
    """A cancellation of what was refused or cancelled succeeds while the carrier is away."""
    other = uuid7()
    await shipping.refusal(other, country="AQ")
    await shipping.cancel(order)
    await world.behave(CARRIER, outside.BEHAVIOR_FAIL, calls=0)
    try:
        assert (await shipping.cancel(other)).state == pb.SHIPMENT_STATE_REFUSED
        assert (await shipping.cancel(order)).state == pb.SHIPMENT_STATE_CANCELLED
    finally:
        await world.behave(CARRIER, outside.BEHAVIOR_NORMAL)


async def test_an_unknown_outcome_is_undone(shipping: Client, world: World, order: str) -> None:
    """A cancellation of a booking whose answer was lost cancels what was booked."""
    await world.behave(CARRIER, outside.BEHAVIOR_LOSE_ANSWER)
    await shipping.refusal(order)

    assert (await shipping.cancel(order)).state == pb.SHIPMENT_STATE_CANCELLED
    assert await world.kinds(order) == BOOKED_AND_CANCELLED


async def test_a_booking_that_never_arrived_cannot_arrive_later(
    shipping: Client, world: World, order: str
) -> None:
    """A cancellation of an open booking blocks its key at the carrier."""
    await world.behave(CARRIER, outside.BEHAVIOR_FAIL)
    await shipping.refusal(order)
    shipment = await shipping.cancel(order)

    assert await late_booking(world, shipment) == refused("KEY_CANCELLED")
    assert await world.kinds(order) == []


async def test_nothing_is_undone_for_a_refused_parcel(
    shipping: Client, world: World, order: str
) -> None:
    """A cancellation of a refused booking succeeds and changes nothing."""
    await shipping.refusal(order, country="AQ")

    assert (await shipping.cancel(order)).state == pb.SHIPMENT_STATE_REFUSED
    assert await world.kinds(order) == []


async def test_a_key_cancelled_by_somebody_else_is_a_cancellation(
    shipping: Client, world: World, order: str
) -> None:
    """When the carrier says that the key was cancelled, the books follow it."""
    await world.behave(CARRIER, outside.BEHAVIOR_FAIL)
    await shipping.refusal(order)
    key = (await shipping.get(order)).shipment_id
    request = outside.CancelParcelRequest(key=key, reference=order)
    await world.carrier.CancelParcel(request, timeout=DEADLINE)

    assert await shipping.refusal(order) == refused("SHIPMENT_CANCELLED")
    assert await shipping.is_cancelled(order)


async def test_a_parcel_on_its_way_cannot_be_cancelled(
    shipping: Client, world: World, order: str
) -> None:
    """The refusal is a business answer, and the shipment is booked as before."""
    booked = await shipping.create(order)
    await world.behave(CARRIER, outside.BEHAVIOR_DECLINE)

    assert await shipping.cancel_refusal(order) == refused("PARCEL_HANDED_OVER")
    assert await shipping.cancel_refusal(order) == refused("PARCEL_HANDED_OVER")
    shipment = await shipping.get(order)
    assert shipment.state == pb.SHIPMENT_STATE_BOOKED
    assert shipment.tracking_number == booked.tracking_number
    assert await shipping.create(order, key=uuid7()) == shipment


async def test_a_parcel_on_its_way_is_found_again(
    shipping: Client, world: World, order: str
) -> None:
    """Nobody knew of the booking, its cancellation is refused, and a repeat learns of it."""
    await world.behave(CARRIER, outside.BEHAVIOR_LOSE_ANSWER)
    await shipping.refusal(order)
    await world.behave(CARRIER, outside.BEHAVIOR_DECLINE)

    assert await shipping.cancel_refusal(order) == refused("PARCEL_HANDED_OVER")
    assert await shipping.state(order) == pb.SHIPMENT_STATE_PENDING
    assert (await shipping.create(order)).tracking_number


async def test_a_cancellation_finishes_by_itself(
    shipping: Client, world: World, order: str
) -> None:
    """A failed cancellation stays decided and is finished without anybody asking.

    Until then a booking is told to ask again: the carrier may yet refuse to cancel.
    """
    await shipping.create(order)
    await world.behave(CARRIER, outside.BEHAVIOR_FAIL, calls=2)

    assert await shipping.cancel_refusal(order) == UNAVAILABLE
    assert await shipping.refusal(order, key=uuid7()) == (grpc.StatusCode.ABORTED, "ABORTED")
    await eventually(partial(shipping.is_cancelled, order))
    assert await world.kinds(order) == BOOKED_AND_CANCELLED


async def test_a_repeated_cancellation_clears_parked_work(
    shipping: Client, world: World, shop: Shop, order: str
) -> None:
    """What the operator's list holds is gone once a repeat has finished the cancellation."""
    await shipping.create(order)
    await world.behave(CARRIER, outside.BEHAVIOR_FAIL, calls=0)
    assert await shipping.cancel_refusal(order) == UNAVAILABLE
    database = shop.runtimes["shipping"].database
    await database.write(
        lambda tx: tx.execute("UPDATE work SET state = 'parked' WHERE key = :k", {"k": order})
    )
    await world.behave(CARRIER, outside.BEHAVIOR_NORMAL)

    assert (await shipping.cancel(order)).state == pb.SHIPMENT_STATE_CANCELLED
    await eventually(partial(_nothing_left, shop))
    assert await world.kinds(order) == BOOKED_AND_CANCELLED


async def _nothing_left(shop: Shop) -> bool:
    database = shop.runtimes["shipping"].database
    return not await database.read(lambda tx: tx.all("SELECT id FROM work"))


async def test_bookings_and_cancellations_at_the_same_moment(
    shipping: Client, world: World
) -> None:
    """Whatever wins, no order is shipped twice and the books say what the ledger says."""
    orders = [uuid7() for _ in range(9)]
    await asyncio.gather(
        *(
            call
            for number, order in enumerate(orders)
            for call in (
                *(shipping.create(order, key=uuid7()) for _ in range(4)),
                *(shipping.cancel(order) for _ in range(2 * (number % 3))),
            )
        ),
        return_exceptions=True,
    )
    for order in orders:
        kinds, state = await world.kinds(order), await shipping.state(order)
        if state == pb.SHIPMENT_STATE_BOOKED:
            assert kinds == BOOKED
        else:
            assert state == pb.SHIPMENT_STATE_CANCELLED
            assert not kinds or kinds == BOOKED_AND_CANCELLED


async def test_an_unknown_shipment_is_not_found(shipping: Client, order: str) -> None:
    """There is no shipment before the first booking or cancellation."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await shipping.get(order)

    assert failure(raised) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
