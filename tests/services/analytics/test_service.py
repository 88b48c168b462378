"""Analytics over a port, by events that come through a real broker."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

import accord
from accord.errors import ServiceError
from accord.ops.v1.operation_pb2 import WatchOperationRequest
from accord.ops.v1.operation_pb2_grpc import OperationServiceStub
from accord.policies.consistency import CONSISTENCY_KEY
from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime
from services.analytics.domain import COLUMNS
from shop.analytics.v1 import analytics_pb2 as pb
from shop.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from tests.services.analytics.histories import by_status, history, mixed, placed, some
from tests.services.sandbox.world import running_process
from tests.support.shop import Shop
from tests.support.wait import until

NOBODY = "00000000-0000-7000-8000-000000000000"


@asynccontextmanager
async def analytics(shop: Shop) -> AsyncIterator[asyncio.subprocess.Process]:
    """The service in a process of its own, to which the test is connected."""
    async with running_process("analytics", shop.home, shop.offset) as process:
        await shop.channel("analytics").channel_ready()
        yield process


async def publish(orders: Runtime, messages: Sequence[tuple[Message, int]]) -> None:
    """Write events into the record of the orders: a message and its number."""
    for start in range(0, len(messages), 500):
        batch = messages[start : start + 500]
        await orders.database.write(
            lambda tx: [
                orders.outbox.append(tx, message, sequence=number)
                for message, number in batch  # noqa: B023
            ]
        )


async def place(orders: Runtime, way: str, **items: int) -> str:
    """An order goes its way."""
    order_id = uuid7()
    messages = history(way, order_id, placed(order_id, 499, "EUR", **items))
    await publish(orders, [(each, number) for number, each in enumerate(messages, start=1)])
    return order_id


async def metrics(
    stub: AnalyticsServiceStub, dimension: "pb.Dimension.ValueType" = pb.DIMENSION_STATUS
) -> list[pb.Metric]:
    """All metrics of a dimension, page by page."""
    found: list[pb.Metric] = []
    request = pb.QueryMetricsRequest(dimension=dimension, page_size=2)
    while True:
        page = await stub.QueryMetrics(request)
        found += page.metrics
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def counted(stub: AnalyticsServiceStub) -> Counter[tuple[str, str]]:
    """(Status, currency) -> orders."""
    found = await metrics(stub)
    return Counter({(each.value, each.currency_code): each.orders.placed for each in found})


async def view(stub: AnalyticsServiceStub) -> pb.View:
    """The view as it is."""
    return (await stub.GetView(pb.GetViewRequest(name="sales"))).view


async def built(stub: AnalyticsServiceStub, generation: int) -> bool:
    """Whether a generation answers."""
    return (await view(stub)).generation == generation


async def rebuild(stub: AnalyticsServiceStub) -> pb.View:
    """Begin to rebuild the view."""
    key = accord.idempotency_key(uuid7())
    return (await stub.RebuildView(pb.RebuildViewRequest(name="sales"), metadata=key)).view


async def test_built_kept_and_queried(
    shop: Shop, orders: Runtime, stub: AnalyticsServiceStub
) -> None:
    """What was before the service came is built from the record; what follows comes by itself."""
    await place(orders, "CONFIRMED", tea=2, pot=1)
    async with analytics(shop):
        await until(partial(built, stub, 1), "the view to be built")
        assert await counted(stub) == {("CONFIRMED", "EUR"): 1}
        await place(orders, "FAILED", tea=1)

        async def arrived() -> bool:
            return (await counted(stub))["FAILED", "EUR"] == 1

        await until(arrived, "the second order")
        products = {each.value: each for each in await metrics(stub, pb.DIMENSION_PRODUCT)}
        assert products["tea"].orders.placed == 2
        assert (products["tea"].units, products["tea"].revenue) == (3, 998)
        assert (products["pot"].ordered, products["pot"].revenue) == (499, 499)
        (country,) = await metrics(stub, pb.DIMENSION_COUNTRY)
        assert country.value == "DE"
        assert country.orders == pb.Funnel(
            placed=2, created=2, paid=2, shipped=1, confirmed=1, failed=1
        )
        (day,) = await metrics(stub, pb.DIMENSION_DAY)
        hours = await metrics(stub, pb.DIMENSION_HOUR)
        assert day.ordered == sum(hour.ordered for hour in hours) == 4 * 499
        assert all(hour.value.startswith(day.value) for hour in hours)
        before = Timestamp(seconds=1_000_000_000)
        request = pb.QueryMetricsRequest(dimension=pb.DIMENSION_DAY, end_time=before)
        assert not (await stub.QueryMetrics(request)).metrics


async def test_what_a_caller_has_seen_is_counted(
    shop: Shop, orders: Runtime, stub: AnalyticsServiceStub
) -> None:
    """A query with the token of a write is answered when the view has it, however late it comes."""
    await place(orders, "PAID", tea=1)
    last = len(history("CONFIRMED", NOBODY, placed(NOBODY, 499, "EUR", tea=1)))
    async with analytics(shop):
        await until(partial(built, stub, 1), "the view to be built")
        for number in range(1, 6):
            thing = f"orders/{await place(orders, 'CONFIRMED', tea=1)}"
            request = pb.QueryMetricsRequest(dimension=pb.DIMENSION_STATUS)
            token = ((CONSISTENCY_KEY, f"{thing}={last}"),)
            answer = await stub.QueryMetrics(request, metadata=token)
            counts = {each.value: each.orders.placed for each in answer.metrics}
            assert counts == {"PAID": 1, "CONFIRMED": number}
        later = ((CONSISTENCY_KEY, f"{thing}={last + 1}"),)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.QueryMetrics(request, metadata=later, timeout=0.5)
        assert accord.ServiceError.from_rpc(caught.value).reason == "NOT_CAUGHT_UP"


async def test_killed_while_it_rebuilds(
    shop: Shop, orders: Runtime, stub: AnalyticsServiceStub
) -> None:
    """Killed again and again it goes on where it was, and ends up complete, to the last event.

    Meanwhile the generation before answers, and new events come.
    """
    random = Random(1)
    histories = some(random, 500)
    await publish(orders, [(each.payload, each.sequence) for each in mixed(random, *histories)])
    expected = by_status(histories)
    async with analytics(shop):
        await until(partial(built, stub, 1), "the view to be built", seconds=60)
        assert await counted(stub) == expected
    reached = [0]
    for attempt in range(3):
        async with analytics(shop) as process:
            if not attempt:
                assert (await rebuild(stub)).rebuild.generation == 2

            async def further() -> bool:
                now = await view(stub)
                assert now.HasField("rebuild") == (now.state == pb.VIEW_STATE_REBUILDING)
                if now.state == pb.VIEW_STATE_REBUILDING and now.rebuild.position:
                    reached.append(now.rebuild.position)
                return now.generation == 2 or reached[-1] > reached[-2]

            reached.append(reached[-1])
            await until(further, "the rebuild to go on")
            assert (await counted(stub)).total() >= 500
            await place(orders, "REJECTED", tea=1)
            process.kill()
            await process.wait()
    assert reached == sorted(reached)
    assert reached[-1] > 0, "it was never killed while it rebuilt"
    expected["REJECTED", "EUR"] += 3
    async with analytics(shop):
        await until(partial(built, stub, 2), "the view to be rebuilt", seconds=60)

        async def complete() -> bool:
            return await counted(stub) == expected

        await until(complete, "all orders")
        await rebuild(stub)
        await until(partial(built, stub, 3), "the view to be rebuilt", seconds=60)
        assert await counted(stub) == expected
        head = await orders.database.read(lambda tx: tx.value("SELECT MAX(position) FROM events"))
        assert (await view(stub)).completeness.position == head
        assert not (await view(stub)).HasField("rebuild")


async def test_watched(shop: Shop, orders: Runtime, stub: AnalyticsServiceStub) -> None:
    """First all, then what changes; across a restart of the service; all again after a rebuild."""
    await place(orders, "PAID", tea=1)
    request = pb.WatchMetricsRequest(dimension=pb.DIMENSION_STATUS)
    async with analytics(shop):
        await until(partial(built, stub, 1), "the view to be built")
        watching = aiter(stub.WatchMetrics(request))
        first = await anext(watching)
        assert first.reset
        assert [each.value for each in first.metrics] == ["PAID"]
        await place(orders, "REJECTED", tea=1)
        seen: dict[str, int] = {}
        while seen.get("REJECTED") != 1:
            news = await anext(watching)
            assert not news.reset
            seen |= {each.value: each.orders.placed for each in news.metrics}
        assert "PAID" not in seen
    async with analytics(shop):
        await place(orders, "PAID", tea=1)
        seen = {}
        while seen.get("PAID") != 2:
            news = await anext(watching)
            assert not news.reset
            seen |= {each.value: each.orders.placed for each in news.metrics}
        await rebuild(stub)
        while not (news := await anext(watching)).reset:
            pass
        assert {each.value: each.orders.placed for each in news.metrics} == {
            "PAID": 2,
            "REJECTED": 1,
        }
    future = pb.WatchMetricsRequest(dimension=pb.DIMENSION_STATUS, after_revision=10**9)
    async with analytics(shop):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.WatchMetrics(future)))
    assert ServiceError.from_rpc(caught.value).reason == "REVISION_IN_FUTURE"


async def test_an_event_that_always_fails(
    shop: Shop, orders: Runtime, stub: AnalyticsServiceStub
) -> None:
    """It is parked with the rest of its order, others go on; a rebuild that meets it gives up."""
    async with analytics(shop):
        await until(partial(built, stub, 1), "the view to be built")
        poison = uuid7()
        # No price of the shop comes near it: the sum does not fit.
        messages = history("CONFIRMED", poison, placed(poison, 10**15, tea=10**4))
        await publish(orders, [(each, number) for number, each in enumerate(messages, start=1)])
        for _ in range(5):
            await place(orders, "CONFIRMED", tea=1)

        async def others() -> bool:
            return (await counted(stub))["CONFIRMED", "EUR"] == 5

        await until(others, "the other orders")
        await rebuild(stub)

        async def given_up() -> bool:
            return (await view(stub)).problem != ""

        await until(given_up, "the rebuild to fail")
        now = await view(stub)
        assert (now.state, now.generation) == (pb.VIEW_STATE_READY, 1)
        assert (await counted(stub))["CONFIRMED", "EUR"] == 5
        assert (await stub.ListViews(pb.ListViewsRequest())).views[0].problem == now.problem


def test_every_number_is_on_record() -> None:
    """What a metric of the contract has is what the view adds up."""
    fields = {*pb.Funnel.DESCRIPTOR.fields_by_name, *pb.Metric.DESCRIPTOR.fields_by_name}
    assert {*COLUMNS} == fields - {"value", "currency_code", "orders"}


async def reported(shop: Shop, operation_id: str) -> pb.MonthlyReport:
    """The result of a job."""
    request = WatchOperationRequest(operation_id=operation_id)
    operations = OperationServiceStub(shop.channel("analytics"))
    (*_, last) = [each async for each in operations.WatchOperation(request)]
    report = pb.MonthlyReport()
    assert last.operation.response.Unpack(report), last
    return report


async def test_report(shop: Shop, orders: Runtime, stub: AnalyticsServiceStub) -> None:
    """A report has the orders of its month and currency, by day, product, country and status.

    It is asked for before the view was ever built, the process is killed, and it ends all the same;
    asked for again under its key it is the same job.
    """
    month = datetime.now(UTC).strftime("%Y-%m")
    request = pb.GenerateReportRequest(month=month, currency_code="EUR")
    key = accord.idempotency_key(uuid7())
    await place(orders, "CONFIRMED", tea=2, pot=1)
    await place(orders, "FAILED", tea=1)
    dollars = placed(uuid7(), 100, "USD", tea=7)
    await publish(orders, [(dollars, 1)])
    async with analytics(shop) as process:
        started = (await stub.GenerateReport(request, metadata=key)).operation
        process.kill()
        await process.wait()
    async with analytics(shop):
        again = (await stub.GenerateReport(request, metadata=key)).operation
        assert again.operation_id == started.operation_id
        report = await reported(shop, started.operation_id)
        assert (report.month, report.currency_code) == (month, "EUR")
        assert [each.value for each in report.products] == ["tea", "pot"]
        assert [each.revenue for each in report.products] == [998, 499]
        assert {each.value: each.orders.placed for each in report.statuses} == {
            "CONFIRMED": 1,
            "FAILED": 1,
        }
        assert sum(each.orders.placed for each in report.days) == 2
        assert [each.value for each in report.countries] == ["DE"]
        assert report.completeness.position > 0

        other = pb.GenerateReportRequest(month="2020-01", currency_code="EUR")
        key = accord.idempotency_key(uuid7())
        empty = (await stub.GenerateReport(other, metadata=key)).operation
        assert not (await reported(shop, empty.operation_id)).days
