"""The payments service over gRPC, with a real sandbox behind it."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import grpc
import pytest
import pytest_asyncio

from accord.errors import ServiceError
from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb
from shop.sandbox.v1 import sandbox_pb2 as outside
from tests.services.payments.client import PRICE, TAKEN, TAKEN_AND_BACK, Client, calling
from tests.services.sandbox.world import (
    DEADLINE,
    UNAVAILABLE,
    World,
    eventually,
    failure,
    refused,
    running_world,
)
from tests.support.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARDS = outside.PARTY_CARD_PROCESSOR


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Shop, World]]:
    """Payments beside a sandbox, for all tests of this module, on each backend in turn."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    home = tmp_path_factory.mktemp("payments")
    async with running_world(home, "payments", database_url=url) as both:
        yield both


@pytest.fixture
def shop(started: tuple[Shop, World]) -> Shop:
    return started[0]


@pytest.fixture
def world(started: tuple[Shop, World]) -> World:
    return started[1]


@pytest_asyncio.fixture(loop_scope="module")
async def payments(shop: Shop) -> AsyncIterator[Client]:
    """A caller without interceptors, so that no attempt is hidden."""
    async with calling(shop.offset) as client:
        yield client


@pytest.fixture
def order() -> str:
    return uuid7()


async def forget_answers(shop: Shop) -> None:
    """Remove the generic idempotency records, as seven days would."""
    database = shop.runtimes["payments"].database
    await database.write(lambda tx: tx.execute("DELETE FROM idempotency"))


async def forget_payments(shop: Shop) -> None:
    """Put the database back as it was before anything was asked for."""
    database = shop.runtimes["payments"].database
    for table in ("payment", "idempotency", "work"):
        await database.write(partial(Tx.execute, sql=f"DELETE FROM {table}"))


async def work_left(shop: Shop) -> int:
    database = shop.runtimes["payments"].database
    row = await database.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM work"))
    assert row is not None
    return int(row["n"])


async def test_a_card_that_is_not_known_yet(payments: Client, order: str) -> None:
    """While orders cannot be asked for the card a charge may be repeated; nothing is on record."""
    for call, code in (
        (payments.charge(order, ""), grpc.StatusCode.UNAVAILABLE),
        (payments.get(order), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert failure(raised)[0] == code
    assert (await payments.charge(order)).state == pb.PAYMENT_STATE_CAPTURED


async def test_a_charge_takes_the_money(payments: Client, world: World, order: str) -> None:
    """The processor has captured what was asked, under the payment's id and for the order."""
    payment = await payments.charge(order)
    (entry,) = await world.ledger(order)

    assert payment.state == pb.PAYMENT_STATE_CAPTURED
    assert (payment.order_id, payment.amount) == (order, PRICE)
    assert (entry.key, entry.amount) == (payment.payment_id, PRICE)
    assert await payments.get(order) == payment


async def test_a_repeat_gets_the_first_answer(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """With the same key, with another one, and after the generic record is gone."""
    first = await payments.charge(order)
    same_key = await payments.charge(order)
    other_key = await payments.charge(order, key=uuid7())
    await forget_answers(shop)
    much_later = await payments.charge(order)

    assert first == same_key == other_key == much_later
    assert await world.kinds(order) == TAKEN


@pytest.mark.parametrize("card", ["tok_declined", "tok_no_funds"])
async def test_a_declined_card_stays_declined(
    payments: Client, world: World, shop: Shop, order: str, card: str
) -> None:
    """The refusal is the answer to every repeat, also of the generic record's."""
    declined = refused("CARD_DECLINED")

    assert await payments.refusal(order, card=card) == declined
    assert await payments.refusal(order, card=card) == declined
    await forget_answers(shop)
    assert await payments.refusal(order, card=card) == declined
    payment = await payments.get(order)
    assert payment.state == pb.PAYMENT_STATE_DECLINED
    assert payment.decline_reason
    assert await world.kinds(order) == []


async def test_the_reason_of_a_decline_reaches_the_caller(payments: Client, order: str) -> None:
    """The refusal says why, in the words of the processor."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await payments.charge(order, "tok_no_funds")

    assert "insufficient funds" in ServiceError.from_rpc(raised.value).message
    assert (await payments.get(order)).decline_reason == "insufficient funds"


async def test_an_order_has_one_amount(payments: Client, world: World, order: str) -> None:
    """Another amount is refused while the first is open, and after it was captured."""
    other = Money(minor_units=1, currency_code="EUR")
    currency = Money(minor_units=1999, currency_code="USD")
    await world.behave(CARDS, outside.BEHAVIOR_FAIL)

    assert await payments.refusal(order) == UNAVAILABLE
    assert await payments.refusal(order, key=uuid7(), amount=other) == refused("AMOUNT_CHANGED")
    await payments.charge(order)
    assert await payments.refusal(order, key=uuid7(), amount=other) == refused("AMOUNT_CHANGED")
    assert await payments.refusal(order, key=uuid7(), amount=currency) == refused("AMOUNT_CHANGED")
    assert await world.kinds(order) == TAKEN


async def test_a_key_is_for_one_order_for_ever(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """A key is known from the row itself when its generic record has gone."""
    await payments.charge(order)
    await forget_answers(shop)
    another = uuid7()

    assert await payments.refusal(another, key=f"{order}/charge") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IDEMPOTENCY_KEY_REUSED",
    )
    assert await world.kinds(another) == []


async def test_a_lost_answer_is_found_again(payments: Client, world: World, order: str) -> None:
    """The money was taken, nobody knew, and the repeat learns it without taking more."""
    assert await payments.refusal(order, card="tok_lost") == UNAVAILABLE
    assert await payments.state(order) == pb.PAYMENT_STATE_PENDING
    assert await world.kinds(order) == TAKEN

    payment = await payments.charge(order, "tok_lost")
    assert payment.state == pb.PAYMENT_STATE_CAPTURED
    assert await world.kinds(order) == TAKEN


async def test_a_transient_error_is_never_an_answer(
    payments: Client, world: World, order: str
) -> None:
    """The same key is asked again until there is an answer."""
    for _ in range(2):
        assert await payments.refusal(order, card="tok_flaky") == UNAVAILABLE
        assert await payments.state(order) == pb.PAYMENT_STATE_PENDING

    assert (await payments.charge(order, "tok_flaky")).state == pb.PAYMENT_STATE_CAPTURED


async def test_a_hanging_processor_does_not_hang_us(
    payments: Client, world: World, order: str
) -> None:
    """The caller's deadline ends the call, and the outcome stays open."""
    await world.behave(CARDS, outside.BEHAVIOR_HANG)

    code, _ = await payments.refusal(order, timeout=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await payments.state(order) == pb.PAYMENT_STATE_PENDING
    assert (await payments.charge(order)).state == pb.PAYMENT_STATE_CAPTURED


async def test_a_processor_that_is_away_leaves_the_charge_open(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """Nothing is decided while nobody answers; once somebody does, a repeat finishes it."""
    await shop.stop("sandbox")
    try:
        code, _ = await payments.refusal(order)
    finally:
        await shop.start("sandbox")

    assert code is grpc.StatusCode.UNAVAILABLE
    assert await payments.state(order) == pb.PAYMENT_STATE_PENDING
    await eventually(partial(payments.is_charged, order))
    assert await world.kinds(order) == TAKEN


async def test_a_refund_gives_the_money_back(payments: Client, world: World, order: str) -> None:
    """All of it, once, however often it is asked for; and the order is never charged again."""
    await payments.charge(order)
    first, again = await payments.refund(order), await payments.refund(order)

    assert first == again
    assert (first.state, first.amount) == (pb.PAYMENT_STATE_REFUNDED, PRICE)
    assert await payments.refusal(order, key=uuid7()) == refused("PAYMENT_REFUNDED")
    assert await world.kinds(order) == TAKEN_AND_BACK


async def test_a_refund_that_comes_first_wins(payments: Client, world: World, order: str) -> None:
    """It succeeds, and the charge that comes later is refused, here and by the processor."""
    payment = await payments.refund(order)
    late = outside.CaptureRequest(
        key=payment.payment_id, reference=order, amount=PRICE, card_token="tok_good"
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await world.cards.Capture(late, timeout=DEADLINE)

    assert failure(raised) == refused("KEY_REVERSED")
    assert payment.state == pb.PAYMENT_STATE_REFUNDED
    assert not payment.HasField("amount")
    assert await payments.refusal(order) == refused("PAYMENT_REFUNDED")
    assert await world.kinds(order) == []


async def test_a_refund_of_a_charge_that_was_lost_gives_the_money_back(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """The processor knows of it, and is asked; once, however often the refund is."""
    await payments.charge(order)
    await forget_payments(shop)

    assert (await payments.refund(order)).state == pb.PAYMENT_STATE_REFUNDED
    assert (await payments.refund(order)).state == pb.PAYMENT_STATE_REFUNDED
    assert await world.kinds(order) == TAKEN_AND_BACK


async def test_a_refund_that_was_lost_stays_one(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """An order that was refunded is not charged when nobody here knows of the refund any more."""
    await payments.refund(order)
    await forget_payments(shop)

    assert await payments.refusal(order) == refused("PAYMENT_REFUNDED")
    assert await world.kinds(order) == []


async def test_a_refund_waits_for_the_processor_even_if_nothing_is_known(
    payments: Client, world: World, order: str
) -> None:
    """Without its answer nobody can say that nothing was taken; it is asked until it answers."""
    await world.behave(CARDS, outside.BEHAVIOR_FAIL, calls=2)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await payments.refund(order)

    assert failure(raised) == UNAVAILABLE
    assert await payments.refusal(order) == refused("PAYMENT_REFUNDED")
    await eventually(partial(payments.is_refunded, order))


async def test_what_is_known_to_be_over_is_not_asked_for(
    payments: Client, world: World, order: str
) -> None:
    """A refund of what was declined or refunded succeeds while the processor is out of order."""
    declined = uuid7()
    await payments.refusal(declined, card="tok_declined")
    await payments.refund(order)
    await world.behave(CARDS, outside.BEHAVIOR_FAIL, calls=0)
    try:
        assert (await payments.refund(declined)).state == pb.PAYMENT_STATE_DECLINED
        assert (await payments.refund(order)).state == pb.PAYMENT_STATE_REFUNDED
    finally:
        await world.behave(CARDS, outside.BEHAVIOR_NORMAL)


async def test_an_unknown_outcome_is_undone(payments: Client, world: World, order: str) -> None:
    """A refund of a charge whose answer was lost gives back what was taken."""
    await payments.refusal(order, card="tok_lost")

    assert (await payments.refund(order)).state == pb.PAYMENT_STATE_REFUNDED
    assert await payments.refusal(order, card="tok_lost") == refused("PAYMENT_REFUNDED")
    assert await world.kinds(order) == TAKEN_AND_BACK


async def test_a_charge_that_never_arrived_cannot_arrive_later(
    payments: Client, world: World, order: str
) -> None:
    """A refund of an open charge blocks its key at the processor."""
    await world.behave(CARDS, outside.BEHAVIOR_FAIL)
    await payments.refusal(order)
    payment = await payments.refund(order)
    late = outside.CaptureRequest(
        key=payment.payment_id, reference=order, amount=PRICE, card_token="tok_good"
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await world.cards.Capture(late, timeout=DEADLINE)

    assert failure(raised) == refused("KEY_REVERSED")
    assert await world.kinds(order) == []


async def test_nothing_is_undone_for_a_declined_card(
    payments: Client, world: World, order: str
) -> None:
    """A refund of a declined charge succeeds and changes nothing."""
    await payments.refusal(order, card="tok_declined")

    assert (await payments.refund(order)).state == pb.PAYMENT_STATE_DECLINED
    assert await world.kinds(order) == []


async def test_a_key_reversed_by_somebody_else_is_a_refund(
    payments: Client, world: World, order: str
) -> None:
    """When the processor says that the key was reversed, the books follow it."""
    await world.behave(CARDS, outside.BEHAVIOR_FAIL)
    await payments.refusal(order)
    key = (await payments.get(order)).payment_id
    await world.cards.Reverse(outside.ReverseRequest(key=key, reference=order), timeout=DEADLINE)

    assert await payments.refusal(order) == refused("PAYMENT_REFUNDED")
    assert await payments.is_refunded(order)


async def test_a_refund_finishes_by_itself(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """A failed refund stays decided, refuses charges, and is finished without anybody asking."""
    await payments.charge(order)
    await world.behave(CARDS, outside.BEHAVIOR_FAIL, calls=2)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await payments.refund(order)

    assert failure(raised) == UNAVAILABLE
    assert await payments.refusal(order, key=uuid7()) == refused("PAYMENT_REFUNDED")
    await eventually(partial(payments.is_refunded, order))
    assert await world.kinds(order) == TAKEN_AND_BACK


async def test_a_repeated_refund_clears_parked_work(
    payments: Client, world: World, shop: Shop, order: str
) -> None:
    """What the operator's list holds is gone once a repeat has finished the refund."""
    await payments.charge(order)
    await world.behave(CARDS, outside.BEHAVIOR_FAIL, calls=0)
    with pytest.raises(grpc.aio.AioRpcError):
        await payments.refund(order)
    database = shop.runtimes["payments"].database
    await database.write(
        lambda tx: tx.execute("UPDATE work SET state = 'parked' WHERE key = :k", {"k": order})
    )
    await world.behave(CARDS, outside.BEHAVIOR_NORMAL)

    assert (await payments.refund(order)).state == pb.PAYMENT_STATE_REFUNDED
    await eventually(partial(_nothing_left, shop))
    assert await world.kinds(order) == TAKEN_AND_BACK


async def _nothing_left(shop: Shop) -> bool:
    return await work_left(shop) == 0


async def test_charges_and_refunds_at_the_same_moment(
    payments: Client, world: World, shop: Shop
) -> None:
    """Whatever wins, no order is charged twice and the books say what the ledger says."""
    orders = [uuid7() for _ in range(10)]
    cards = ("tok_good", "tok_lost", "tok_flaky", "tok_declined")
    await asyncio.gather(
        *(
            call
            for number, order in enumerate(orders)
            for call in (
                *(payments.charge(order, cards[number % 4], key=uuid7()) for _ in range(4)),
                *(payments.refund(order) for _ in range(2 * (number % 3))),
            )
        ),
        return_exceptions=True,
    )
    for number, order in enumerate(orders):
        kinds, state = await world.kinds(order), await payments.state(order)
        expected: dict[pb.PaymentState.ValueType, list[list[outside.EntryKind.ValueType]]] = {
            pb.PAYMENT_STATE_CAPTURED: [TAKEN],
            pb.PAYMENT_STATE_DECLINED: [[]],
            pb.PAYMENT_STATE_REFUNDED: [[], TAKEN_AND_BACK],
            pb.PAYMENT_STATE_PENDING: [[], TAKEN],
        }
        assert kinds in expected[state], cards[number % 4]


async def test_an_unknown_payment_is_not_found(payments: Client, order: str) -> None:
    """There is no payment before the first charge or refund."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await payments.get(order)

    assert failure(raised) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
