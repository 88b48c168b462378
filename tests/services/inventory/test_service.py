"""The inventory service, called over a port."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import grpc
import pytest

import accord
from accord.errors import Precondition
from accord_runtime.grpc.ids import uuid7
from services.inventory import servicer
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from tests.services.inventory.support import forget
from tests.support.shop import running_shop

PRICE = Money(minor_units=1999, currency_code="EUR")


@pytest.fixture
async def stub(tmp_path: Path, database_url: str) -> AsyncIterator[InventoryServiceStub]:
    await forget(database_url, "inventory")
    async with running_shop(tmp_path, "inventory", database_url=database_url) as shop:
        yield InventoryServiceStub(shop.channel("inventory"))


async def upsert(stub: InventoryServiceStub, sku: str, on_hand: int) -> pb.Product:
    request = pb.UpsertProductRequest(sku=sku, name=f"A {sku}", price=PRICE, on_hand=on_hand)
    return (await stub.UpsertProduct(request)).product


def lines(price: Money = PRICE, **wanted: int) -> list[pb.ReserveLine]:
    return [
        pb.ReserveLine(sku=sku, quantity=quantity, unit_price=price)
        for sku, quantity in wanted.items()
    ]


async def reserve(
    stub: InventoryServiceStub, order_id: str, lines: Sequence[pb.ReserveLine]
) -> pb.Reservation:
    request = pb.ReserveStockRequest(order_id=order_id, lines=lines)
    metadata = accord.idempotency_key(f"{order_id}:reserve:do")
    return (await stub.ReserveStock(request, metadata=metadata)).reservation


async def release(stub: InventoryServiceStub, order_id: str) -> pb.Reservation:
    return (await stub.ReleaseStock(pb.ReleaseStockRequest(order_id=order_id))).reservation


async def commit(stub: InventoryServiceStub, order_id: str) -> pb.Reservation:
    return (await stub.CommitStock(pb.CommitStockRequest(order_id=order_id))).reservation


async def get(stub: InventoryServiceStub, sku: str) -> pb.Product:
    return (await stub.GetStock(pb.GetStockRequest(sku=sku))).product


async def refused(call: Awaitable[object]) -> accord.ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = accord.failure_of(caught.value)
    assert error is not None
    return error


async def test_way_of_an_order(stub: InventoryServiceStub) -> None:
    """Stock is counted in, held for an order, and leaves with it."""
    order_id = uuid7()
    assert (await upsert(stub, "a", 10)).available == 10

    reserved = await reserve(stub, order_id, lines(a=3))
    assert reserved == pb.Reservation(order_id=order_id, state=pb.RESERVATION_STATE_RESERVED)
    assert await get(stub, "a") == pb.Product(
        sku="a", name="A a", price=PRICE, on_hand=10, reserved=3, available=7
    )
    assert (await commit(stub, order_id)).state == pb.RESERVATION_STATE_COMMITTED
    assert (await get(stub, "a")).on_hand == 7


async def test_refusal_names_every_line(stub: InventoryServiceStub) -> None:
    """Who is refused learns from the details which lines, and why."""
    await upsert(stub, "a", 1)

    error = await refused(reserve(stub, uuid7(), lines(a=2, b=1)))

    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_PRODUCT")
    assert error.domain == "inventory"
    assert error.preconditions == (
        Precondition("UNKNOWN_PRODUCT", "b", "is not sold here"),
        Precondition("OUT_OF_STOCK", "a", "has 1 left, 2 are wanted"),
    )


async def test_refusal_of_many_lines_fits(stub: InventoryServiceStub) -> None:
    """A refusal with the longest names and prices there can be still names its worst lines."""
    dear = Money(minor_units=100_000_000_000, currency_code="EUR")
    wanted = []
    for number in range(100):
        sku = f"{'x' * 60}{number:04}"
        await stub.UpsertProduct(
            pb.UpsertProductRequest(sku=sku, name="A", price=dear, on_hand=1_000_000_000)
        )
        shown = Money(minor_units=dear.minor_units - 1, currency_code="EUR")
        wanted.append(pb.ReserveLine(sku=sku, quantity=10_000, unit_price=shown))

    error = await refused(reserve(stub, uuid7(), wanted))

    assert error.reason == "PRICE_CHANGED"
    assert [item.subject for item in error.preconditions] == [line.sku for line in wanted[:18]]
    assert error.message.endswith("and 97 more")


async def test_refusal_is_the_answer_to_repeats(stub: InventoryServiceStub) -> None:
    """A refused request stays refused under its key, even when there is stock by now."""
    order_id = uuid7()
    await upsert(stub, "a", 1)
    assert (await refused(reserve(stub, order_id, lines(a=2)))).reason == "OUT_OF_STOCK"
    await upsert(stub, "a", 10)

    assert (await refused(reserve(stub, order_id, lines(a=2)))).reason == "OUT_OF_STOCK"


async def test_price_changed(stub: InventoryServiceStub) -> None:
    """A customer never pays a price that was not shown."""
    await upsert(stub, "a", 1)
    shown = Money(minor_units=1, currency_code="EUR")

    assert (await refused(reserve(stub, uuid7(), lines(shown, a=1)))).reason == "PRICE_CHANGED"


async def test_undo(stub: InventoryServiceStub) -> None:
    """Release gives back, twice is once, and it works before the reservation as well as after."""
    await upsert(stub, "a", 10)
    before, after = uuid7(), uuid7()

    await reserve(stub, after, lines(a=4))
    for order_id in (before, after, before, after):
        assert (await release(stub, order_id)).state == pb.RESERVATION_STATE_RELEASED
    assert (await refused(reserve(stub, before, lines(a=1)))).reason == "RESERVATION_CLOSED"
    assert (await refused(commit(stub, after))).reason == "NOT_RESERVED"
    assert (await get(stub, "a")).available == 10


async def test_wrong_requests(stub: InventoryServiceStub) -> None:
    """The contract's rules hold: a key, one line per SKU, a price that can be."""
    line = pb.ReserveLine(sku="a", quantity=1, unit_price=PRICE)
    twice = pb.ReserveStockRequest(order_id=uuid7(), lines=[line, line])
    once = pb.ReserveStockRequest(order_id=uuid7(), lines=[line])
    free = pb.UpsertProductRequest(sku="a", name="A", price=Money(currency_code="EUR"))

    for call in (
        stub.ReserveStock(twice, metadata=accord.idempotency_key("k")),
        stub.ReserveStock(once),
        stub.UpsertProduct(free),
    ):
        assert (await refused(call)).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_unknown_product(stub: InventoryServiceStub) -> None:
    """A product that is not there is NOT_FOUND."""
    assert (await refused(get(stub, "none"))).code is grpc.StatusCode.NOT_FOUND


async def test_many_at_once(stub: InventoryServiceStub) -> None:
    """A hundred SKUs are one call: what is there comes as asked for, the others are listed."""
    tea, pot = [await upsert(stub, sku, 10) for sku in ("tea", "pot")]
    none = [f"none-{number}" for number in range(98)]

    asked = pb.BatchGetStockRequest(skus=[tea.sku, *none, pot.sku])
    found = await stub.BatchGetStock(asked)

    assert [*found.products] == [tea, pot]
    assert [*found.missing_skus] == none
    for wrong in ([], [*asked.skus, "more"], ["tea", "tea"], ["-tea"]):
        error = await refused(stub.BatchGetStock(pb.BatchGetStockRequest(skus=wrong)))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_list_in_pages(stub: InventoryServiceStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products come once, by SKU, and a list can begin after any of them."""
    monkeypatch.setattr(servicer, "PAGE", 3)
    skus = [f"sku-{number}" for number in range(8)]
    for sku in reversed(skus):
        await upsert(stub, sku, 1)

    for start in range(len(skus) + 1):
        after = skus[start - 1] if start else ""
        listed = stub.ListStock(pb.ListStockRequest(after_sku=after))
        assert [item.product.sku async for item in listed] == skus[start:]


async def test_no_overselling(stub: InventoryServiceStub) -> None:
    """Of 200 orders that arrive at once for 100 units, exactly 100 are served.

    They are more than the service takes on at once: who is told to come back later does.
    """
    await upsert(stub, "a", 100)

    async def outcome(order_id: str) -> str:
        while True:
            try:
                await reserve(stub, order_id, lines(a=1))
            except grpc.RpcError as error:
                failure = accord.ServiceError.from_rpc(error)
                if failure.reason != "OVERLOADED":
                    return failure.reason
                assert failure.retry_after is not None
                await asyncio.sleep(failure.retry_after)
            else:
                return "RESERVED"

    outcomes = await asyncio.gather(*(outcome(uuid7()) for _ in range(200)))

    assert Counter(outcomes) == {"RESERVED": 100, "OUT_OF_STOCK": 100}
    assert (await get(stub, "a")).reserved == 100
