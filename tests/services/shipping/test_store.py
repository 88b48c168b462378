"""Every transition of a shipment, on both backends."""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Final

import pytest

from accord.errors import InvalidArgument
from accord_runtime.database import Database, Tx
from accord_runtime.database.migrations import migrate
from accord_runtime.events import outbox
from accord_runtime.grpc.types import timestamp
from services.shipping import store
from services.shipping.domain import Outcome, refusal
from shop.common.v1.fulfilment_pb2 import FULFILMENT_ORCHESTRATED
from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1.events_pb2 import ShipmentBooked, ShipmentCancelled, ShipmentRefused
from shop.shipping.v1.shipping_pb2 import Shipment
from tests.support.events import OUTBOX, events_of

ORDER: Final = "01a1fd97-2452-71fd-bada-e5c976259c7d"
ANOTHER: Final = "01a1fd9b-e08f-7281-b6f1-782782908671"
NOW: Final = 1.0
LATER: Final = 2.0

Step = Callable[[Tx], object]


@pytest.fixture
async def shipments(database: Database) -> Database:
    """An empty shipping database, on each backend in turn."""
    await migrate(database, "runtime", [*outbox.MIGRATIONS, *outbox.LATER_MIGRATIONS])
    await migrate(database, "shipping", store.MIGRATIONS)
    return database


def book(tx: Tx) -> Shipment:
    return store.open_booking(tx, ORDER, 3, "key", NOW)


def found(tx: Tx) -> Shipment:
    shipment = store.find(tx, ORDER)
    assert shipment is not None
    return shipment


def answered(outcome: Outcome) -> Step:
    def step(tx: Tx) -> Shipment:
        store.settle(tx, OUTBOX, found(tx), outcome, LATER)
        return found(tx)

    return step


def cancel(tx: Tx) -> tuple[Shipment, bool]:
    begun = store.begin_cancellation(tx, ORDER, LATER)
    return found(tx), begun


BOOKED = answered(Outcome(pb.SHIPMENT_STATE_BOOKED, tracking_number="T1"))
REFUSED = answered(Outcome(pb.SHIPMENT_STATE_REFUSED, refusal_reason="no"))
BLOCKED = answered(Outcome(pb.SHIPMENT_STATE_CANCELLED))
cancelled = partial(
    store.finish_cancellation, outbox=OUTBOX, order_id=ORDER, now=LATER, cancelled=True
)
handed_over = partial(
    store.finish_cancellation, outbox=OUTBOX, order_id=ORDER, now=LATER, cancelled=False
)

STEPS: Final[list[Step]] = [book, BOOKED, REFUSED, BLOCKED, cancel, cancelled, handed_over]

MOVES: Final[
    "list[tuple[list[Step], pb.ShipmentState.ValueType, dict[Step, pb.ShipmentState.ValueType]]]"
] = [
    (
        [book],
        pb.SHIPMENT_STATE_PENDING,
        {
            BOOKED: pb.SHIPMENT_STATE_BOOKED,
            REFUSED: pb.SHIPMENT_STATE_REFUSED,
            BLOCKED: pb.SHIPMENT_STATE_CANCELLED,
            cancel: pb.SHIPMENT_STATE_CANCELLING,
        },
    ),
    ([book, BOOKED], pb.SHIPMENT_STATE_BOOKED, {cancel: pb.SHIPMENT_STATE_CANCELLING}),
    ([book, REFUSED], pb.SHIPMENT_STATE_REFUSED, {}),
    (
        [book, cancel],
        pb.SHIPMENT_STATE_CANCELLING,
        {cancelled: pb.SHIPMENT_STATE_CANCELLED, handed_over: pb.SHIPMENT_STATE_PENDING},
    ),
    (
        [book, BOOKED, cancel],
        pb.SHIPMENT_STATE_CANCELLING,
        {cancelled: pb.SHIPMENT_STATE_CANCELLED, handed_over: pb.SHIPMENT_STATE_BOOKED},
    ),
    (
        [book, cancel, BOOKED],
        pb.SHIPMENT_STATE_CANCELLING,
        {cancelled: pb.SHIPMENT_STATE_CANCELLED, handed_over: pb.SHIPMENT_STATE_BOOKED},
    ),
    ([book, BLOCKED], pb.SHIPMENT_STATE_CANCELLED, {}),
    (
        [cancel],
        pb.SHIPMENT_STATE_CANCELLING,
        {cancelled: pb.SHIPMENT_STATE_CANCELLED, handed_over: pb.SHIPMENT_STATE_PENDING},
    ),
    ([cancel, cancelled], pb.SHIPMENT_STATE_CANCELLED, {}),
]
"""A way into a state, that state, and where its steps lead; the others lead nowhere."""


EVENTS: Final = {
    pb.SHIPMENT_STATE_BOOKED: ShipmentBooked,
    pb.SHIPMENT_STATE_REFUSED: ShipmentRefused,
    pb.SHIPMENT_STATE_CANCELLED: ShipmentCancelled,
}
"""What is published when a state is reached, and only then; a booking once."""


def forget(tx: Tx) -> None:
    """Put the database back to before the order."""
    tx.execute("DELETE FROM shipment")
    tx.execute("DELETE FROM events")


async def test_every_move_from_every_state(shipments: Database) -> None:
    """Each step does in each state what the table says, and leaves the others as they are."""
    for (way, start, ends), step in product(MOVES, STEPS):
        end = ends.get(step, start)
        await shipments.write(forget)
        for each in way:
            await shipments.write(each)
        before = await shipments.read(lambda tx: store.find(tx, ORDER))
        said = await events_of(shipments, ORDER)
        await shipments.write(step)
        after = await shipments.read(lambda tx: store.find(tx, ORDER))

        assert before is not None
        assert after is not None
        assert (before.state, after.state) == (start, end)
        news = (await events_of(shipments, ORDER))[len(said) :]
        known = any(isinstance(event, ShipmentBooked) for event in said)
        kept = start == end or end not in EVENTS or (known and end == pb.SHIPMENT_STATE_BOOKED)
        assert [type(event) for event in news] == ([] if kept else [EVENTS[end]])
        if start != end:
            assert after.updated_at == timestamp(LATER)


async def test_a_tracking_number_is_kept_while_cancelling(shipments: Database) -> None:
    """A booking whose answer comes late is known, should the carrier refuse to cancel."""
    for step in (book, cancel, BOOKED, handed_over):
        await shipments.write(step)
    shipment = await shipments.read(lambda tx: store.find(tx, ORDER))

    assert shipment is not None
    assert (shipment.state, shipment.tracking_number) == (pb.SHIPMENT_STATE_BOOKED, "T1")
    said = ShipmentBooked(
        order_id=ORDER,
        shipment_id=shipment.shipment_id,
        tracking_number=shipment.tracking_number,
        fulfilment=FULFILMENT_ORCHESTRATED,
    )
    assert await events_of(shipments, ORDER) == [said]


async def test_a_shipment_keeps_what_was_asked_for(shipments: Database) -> None:
    """The first booking of an order decides its id and units; the last answer its reason."""
    first = await shipments.write(book)
    again = await shipments.write(lambda tx: store.open_booking(tx, ORDER, 9, "other", LATER))
    refused = await shipments.write(REFUSED)

    assert first == again
    assert (first.units, first.updated_at) == (3, timestamp(NOW))
    assert isinstance(refused, Shipment)
    assert (refused.shipment_id, refused.refusal_reason) == (first.shipment_id, "no")


async def test_a_restored_database_asks_under_the_same_id(shipments: Database) -> None:
    """A booking whose row was lost is made again under the id that the carrier knows."""
    first = await shipments.write(book)
    await shipments.write(lambda tx: tx.execute("DELETE FROM shipment"))
    again = await shipments.write(book)

    assert again.shipment_id == first.shipment_id


async def test_a_cancellation_of_what_is_not_known_here_is_begun(shipments: Database) -> None:
    """It asks under the id of the booking that was lost, if there was one, and has no units."""
    booked = await shipments.write(book)
    await shipments.write(lambda tx: tx.execute("DELETE FROM shipment"))
    shipment, begun = await shipments.write(cancel)

    assert (shipment.shipment_id, shipment.state, shipment.units, begun) == (
        booked.shipment_id,
        pb.SHIPMENT_STATE_CANCELLING,
        0,
        True,
    )


async def test_a_lost_parcel_that_had_left_is_booked_as_it_was(shipments: Database) -> None:
    """The first booking after its cancellation was refused says what is in it, and no later one."""
    for step in (cancel, handed_over):
        await shipments.write(step)
    first = await shipments.write(book)
    again = await shipments.write(lambda tx: store.open_booking(tx, ORDER, 9, "other", LATER))

    assert (first.state, first.units) == (pb.SHIPMENT_STATE_PENDING, 3)
    assert again == first


async def test_a_booking_leaves_a_cancelled_shipment_as_it_is(shipments: Database) -> None:
    """What nothing was asked for stays without units."""
    for step in (cancel, book):
        await shipments.write(step)
    cancelling = await shipments.read(lambda tx: store.find(tx, ORDER))
    await shipments.write(cancelled)
    shipment = await shipments.write(book)

    assert cancelling is not None
    assert (cancelling.units, shipment.units) == (0, 0)


async def test_only_one_cancellation_begins(shipments: Database) -> None:
    """Of cancellations at the same moment one is told to do the work."""
    await shipments.write(book)
    began = await asyncio.gather(*(shipments.write(cancel) for _ in range(10)))

    assert sorted(begun for _, begun in began) == [False] * 9 + [True]


async def test_a_key_belongs_to_one_order(shipments: Database) -> None:
    """A key that another order's shipment holds opens no shipment."""
    await shipments.write(book)

    with pytest.raises(InvalidArgument) as refused:
        await shipments.write(lambda tx: store.open_booking(tx, ANOTHER, 3, "key", NOW))

    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await shipments.read(lambda tx: store.find(tx, ANOTHER)) is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (pb.SHIPMENT_STATE_PENDING, None),
        (pb.SHIPMENT_STATE_BOOKED, None),
        (pb.SHIPMENT_STATE_REFUSED, "NO_CARRIER"),
        (pb.SHIPMENT_STATE_CANCELLING, None),
        (pb.SHIPMENT_STATE_CANCELLED, "SHIPMENT_CANCELLED"),
    ],
)
def test_what_a_booking_is_told(state: "pb.ShipmentState.ValueType", expected: str | None) -> None:
    """Only final states refuse: one that is being cancelled may yet be a booking."""
    refused = refusal(Shipment(order_id=ORDER, units=3, state=state))
    assert (refused and refused.reason) == expected
