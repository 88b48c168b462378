"""What end users get at: their own, and not even the existence of what is another's."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

import accord
from accord.identity import Identity
from accord.identity.users import USER_KEY, issue
from accord.ops.v1 import mesh_pb2
from accord.ops.v1.audit_pb2 import ListAuditRequest
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord_runtime.database import Tx
from accord_runtime.events.outbox import Event, of_key
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import running
from accord_runtime.service import Runtime
from services.customers.servicer import SERVICE as CUSTOMERS
from services.notifications.servicer import SERVICE as NOTIFICATIONS
from services.orders import domain, store
from services.orders.servicer import SERVICE as ORDERS
from services.payments.servicer import SERVICE as PAYMENTS
from services.shipping import store as shipments
from services.shipping.servicer import SERVICE as SHIPPING
from shop.customers.v1 import customers_pb2 as customers
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.notifications.v1 import notifications_pb2 as notifications
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2 import GetPaymentRequest
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1.shipping_pb2 import BatchGetShipmentsRequest, GetShipmentRequest
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from shopctl.certs.authority import Authority
from tests.support.mesh import settings_of
from tests.support.shop import order_request

ALICE: Final = uuid7()
BOB: Final = uuid7()
STAFF: Final = "jo"
Metadata = tuple[tuple[str, str], ...]


@dataclass
class World:
    """A service, called by the edge for whomever it says."""

    runtime: Runtime
    channel: grpc.aio.Channel
    edge: Identity

    def user(self, name: str, role: str = "customer") -> Metadata:
        """Metadata of a call that is made for a user, and has a key of its own."""
        token = issue(self.edge.bundle, name, [role])
        return ((USER_KEY, token), ("idempotency-key", uuid7()))

    async def order(self, customer_id: str) -> str:
        """The id of an order of a customer."""
        placed = domain.placed(uuid7(), order_request(customer_id, {"tea": 1}))
        await self.runtime.database.write(
            lambda tx: store.place(tx, self.runtime.outbox, placed, "card")
        )
        return placed.order_id


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    found = Authority(tmp_path / "certs")
    services = ("orders", "customers", "payments", "shipping", "notifications")
    found.prepare([*services, "edge", "console", "operator"])
    return found


@asynccontextmanager
async def serving(service: Any, authority: Authority, caller: str = "edge") -> AsyncIterator[World]:
    """A service with its certificate, and the edge that calls it."""
    folder, home = authority.folder, authority.folder.parent
    settings = replace(settings_of(service.name, home), identity=folder / service.name)
    edge = Identity.from_folder(folder / caller)
    shown = edge.bundle
    credentials = grpc.ssl_channel_credentials(shown.roots, shown.key, shown.certificate)
    async with AsyncExitStack() as stack:
        stack.callback(edge.close)
        runtime = await stack.enter_async_context(running(service, settings))
        channel = await stack.enter_async_context(
            grpc.aio.secure_channel(settings.address, credentials)
        )
        yield World(runtime, channel, edge)


async def said(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    found = accord.failure_of(caught.value)
    assert found is not None
    return found.code, found.reason, found.message


async def test_orders_are_their_customers_own(authority: Authority) -> None:
    """Another customer's order answers as one that there is none; staff and services see all."""
    async with serving(ORDERS, authority) as world:
        stub = OrderServiceStub(world.channel)
        mine, missing = await world.order(ALICE), uuid7()

        def get(order_id: str, **at: Any) -> Callable[[Metadata], Awaitable[Any]]:
            request = pb.GetOrderRequest(order_id=order_id, **at)
            return lambda metadata: stub.GetOrder(request, metadata=metadata, timeout=5)

        def cancel(order_id: str) -> Callable[[Metadata], Awaitable[Any]]:
            request = pb.CancelOrderRequest(order_id=order_id, reason="mind changed")
            return lambda metadata: stub.CancelOrder(request, metadata=metadata, timeout=5)

        def watch(order_id: str) -> Callable[[Metadata], Awaitable[Any]]:
            request = pb.StreamOrderUpdatesRequest(order_id=order_id, after_sequence=0)
            return lambda metadata: stub.StreamOrderUpdates(
                request, metadata=metadata, timeout=5
            ).read()

        later = pb.GetOrderRequest().at_time
        later.GetCurrentTime()
        for make in (
            get,
            lambda order_id: get(order_id, at_sequence=1),
            lambda order_id: get(order_id, at_sequence=99),
            lambda order_id: get(order_id, at_time=later),
            watch,
            cancel,
        ):
            other = await said(make(mine)(world.user(BOB)))
            none = await said(make(missing)(world.user(BOB)))
            assert other[:2] == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
            assert (*other[:2], other[2].replace(mine, missing)) == none
        for metadata in (world.user(ALICE), world.user(STAFF, "operator"), ()):
            assert (await get(mine)(metadata)).order.customer_id == ALICE
            assert (await watch(mine)(metadata)).sequence == 1
        assert (await cancel(mine)(world.user(ALICE))).order.order_id == mine


async def test_lists_and_tracking_show_what_is_ones_own(authority: Authority) -> None:
    """A list has one's own orders, whatever was asked for, and so has what is tracked."""
    async with serving(ORDERS, authority) as world:
        stub = OrderServiceStub(world.channel)
        mine, others = await world.order(ALICE), await world.order(BOB)

        async def listed(metadata: Metadata, customer_id: str = "") -> set[str]:
            request = pb.ListOrdersRequest(customer_id=customer_id, page_size=10)
            page = await stub.ListOrders(request, metadata=metadata, timeout=5)
            return {order.order_id for order in page.orders}

        assert await listed(world.user(ALICE)) == {mine}
        assert await listed(world.user(ALICE), ALICE) == {mine}
        assert await listed(world.user(ALICE), BOB) == set()
        assert await listed(()) == await listed(world.user(STAFF, "operator")) == {mine, others}

        added = [pb.StreamOrderUpdatesRequest(order_id=each) for each in (mine, others)]
        tracked = stub.TrackOrders(
            iter([pb.TrackOrdersRequest(add=each) for each in added]),
            metadata=world.user(ALICE),
            timeout=10,
        )
        seen: dict[str, str | None] = {}
        while len(seen) < 2:
            response: Any = await tracked.read()
            seen[response.order_id] = response.WhichOneof("event")
        assert seen == {mine: "update", others: "untracked"}


@pytest.mark.parametrize("rpc", ["CreateOrder", "SubmitOrder"])
async def test_nobody_orders_on_anothers_account(authority: Authority, rpc: str) -> None:
    """An order for another customer is one for an unknown customer, whether there is one or not."""
    async with serving(ORDERS, authority) as world:
        stub = OrderServiceStub(world.channel)
        order = order_request(BOB, {"tea": 1})
        request = order if rpc == "CreateOrder" else pb.SubmitOrderRequest(order=order)
        call = getattr(stub, rpc)(request, metadata=world.user(ALICE), timeout=5)
        assert (await said(call))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_CUSTOMER")


async def test_keys_are_the_users_own(authority: Authority) -> None:
    """A key that another user has used at the same edge is no repeat of theirs."""
    async with serving(ORDERS, authority) as world:
        stub = OrderServiceStub(world.channel)
        key = ("idempotency-key", uuid7())
        request = pb.CancelOrderRequest(order_id=await world.order(ALICE), reason="mind changed")
        first = await stub.CancelOrder(request, metadata=(world.user(ALICE)[0], key), timeout=5)
        again = await stub.CancelOrder(request, metadata=(world.user(ALICE)[0], key), timeout=5)
        assert again == first
        other = stub.CancelOrder(request, metadata=(world.user(BOB)[0], key), timeout=5)
        assert (await said(other))[0] is grpc.StatusCode.NOT_FOUND


async def test_who_had_an_event_happen_is_recorded(authority: Authority) -> None:
    """An event has the caller and the user; what a saga does by itself has neither."""
    async with serving(ORDERS, authority) as world:
        order_id = await world.order(ALICE)
        request = pb.CancelOrderRequest(order_id=order_id, reason="mind changed")
        stub = OrderServiceStub(world.channel)
        await stub.CancelOrder(request, metadata=world.user(ALICE), timeout=5)

        def events(tx: Tx) -> list[Event]:
            return of_key(tx, order_id)

        first, second = (await world.runtime.database.read(events))[:2]
    assert first.actor == ""
    assert second.actor == f"spiffe://shop.internal/edge for {ALICE}"


async def test_who_has_used_the_console_is_recorded(authority: Authority) -> None:
    """An audit record names the console, and the operator for whom it acts."""
    method = "shop.orders.v1.OrderService/GetOrder"
    async with serving(ORDERS, authority, "console") as world:
        operator = MeshServiceStub(world.channel)
        fault = mesh_pb2.Fault(delay=Duration(seconds=1), delay_percent=1)
        inject = mesh_pb2.InjectFaultRequest(
            method=method, fault=fault, lasting=Duration(seconds=60), reason="game day"
        )
        who = issue(world.edge.bundle, "ada", ["operator"])
        answer = await operator.InjectFault(inject, metadata=((USER_KEY, who),), timeout=5)
        assert answer.method.fault_principal == "spiffe://shop.internal/console for ada"
        listed = await AuditServiceStub(world.channel).ListAudit(ListAuditRequest(), timeout=5)
    [record] = listed.records
    assert (record.principal, record.target) == ("spiffe://shop.internal/console for ada", method)


async def test_customers_see_themselves(authority: Authority) -> None:
    """A customer's own data answers, and another's as that of nobody."""
    async with serving(CUSTOMERS, authority) as world:
        stub = CustomerServiceStub(world.channel)
        ids = []
        for name in ("ada", "bob"):
            create = customers.CreateCustomerRequest(name=name, email=f"{name}@example.com")
            key = (("idempotency-key", uuid7()),)
            made = await stub.CreateCustomer(create, metadata=key, timeout=5)
            ids.append(made.customer.customer_id)
        ada, bob = ids
        request = customers.GetCustomerRequest(customer_id=ada)
        assert (await stub.GetCustomer(request, metadata=world.user(ada))).customer.name == "ada"
        other = await said(stub.GetCustomer(request, metadata=world.user(bob)))
        missing = customers.GetCustomerRequest(customer_id=uuid7())
        none = await said(stub.GetCustomer(missing, metadata=world.user(bob)))
        assert (*other[:2], other[2].replace(ada, missing.customer_id)) == none
        both = customers.BatchGetCustomersRequest(customer_ids=[bob, ada])
        for metadata, seen in ((world.user(ada), ["ada"]), (world.user(STAFF, "operator"), None)):
            found = await stub.BatchGetCustomers(both, metadata=metadata)
            assert [each.name for each in found.customers] == (seen or ["bob", "ada"])
            assert [*found.missing_customer_ids] == ([bob] if seen else [])
    async with serving(CUSTOMERS, authority, "operator") as world:
        stub = CustomerServiceStub(world.channel)
        listing = stub.ListCustomers(customers.ListCustomersRequest(), metadata=world.user(ada))
        assert [each.customer.customer_id async for each in listing] == [ada]


async def test_whose_it_is_only_orders_know(authority: Authority) -> None:
    """Payments, parcels, mails and records of events are not for customers to ask for."""
    order_id = uuid7()
    async with serving(PAYMENTS, authority) as world:
        call = PaymentServiceStub(world.channel).GetPayment(
            GetPaymentRequest(order_id=order_id), metadata=world.user(ALICE)
        )
        assert (await said(call))[0] is grpc.StatusCode.NOT_FOUND
    async with serving(SHIPPING, authority) as world:
        asked = ShippingServiceStub(world.channel).GetShipment(
            GetShipmentRequest(order_id=order_id), metadata=world.user(ALICE)
        )
        assert (await said(asked))[0] is grpc.StatusCode.NOT_FOUND
        key, now = None, time.time()
        await world.runtime.database.write(
            lambda tx: shipments.open_booking(tx, order_id, 1, key, now)
        )
        for metadata, count in (
            (world.user(ALICE), 0),
            (world.user(STAFF, "operator"), 1),
            ((), 1),
        ):
            several = await ShippingServiceStub(world.channel).BatchGetShipments(
                BatchGetShipmentsRequest(order_ids=[order_id]), metadata=metadata
            )
            assert (len(several.shipments), len(several.missing_order_ids)) == (count, 1 - count)
    async with serving(NOTIFICATIONS, authority) as world:
        page = await NotificationServiceStub(world.channel).ListNotifications(
            notifications.ListNotificationsRequest(), metadata=world.user(ALICE)
        )
        assert not page.notifications
    async with serving(ORDERS, authority, "operator") as world:
        await world.order(ALICE)
        stub = OrderServiceStub(world.channel)
        for metadata, events in ((world.user(ALICE), 0), (world.user(STAFF, "operator"), 1)):
            await asyncio.sleep(0)
            read = stub.ReadEvents(pb.ReadEventsRequest(), metadata=metadata, timeout=10)
            assert len([each async for each in read]) == events


async def test_a_bad_token_is_refused_by_every_service(authority: Authority) -> None:
    """Who calls is allowed to, but for whom is not proven: nothing is done."""
    async with serving(ORDERS, authority) as world:
        stub = OrderServiceStub(world.channel)
        for token in ("garbage", world.user(ALICE)[0][1][:-3], "a" * 65_000):
            call = stub.GetOrder(
                pb.GetOrderRequest(order_id=uuid7()), metadata=((USER_KEY, token),), timeout=5
            )
            code, reason, _ = await said(call)
            assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert reason.startswith("TOKEN_") or code is grpc.StatusCode.RESOURCE_EXHAUSTED
