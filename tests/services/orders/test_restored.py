"""The database of a service is put back from before what an order has had done by it.

The service is a process of its own, and the copy one of its real database.
"""

from functools import partial
from pathlib import Path

import grpc
import pytest

from accord import idempotency_key
from accord.errors import ServiceError
from accord_runtime.grpc.ids import uuid7
from services.orders import store
from shop.orders.v1 import orders_pb2 as pb
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1 import sandbox_pb2 as outside
from tests.faults.backups import Backup
from tests.services.orders.books import Ledger, behave, kinds, ledger, stock, updates
from tests.services.orders.test_flow import GOOD, place
from tests.services.payments.client import TAKEN_AND_BACK
from tests.services.sandbox.world import eventually, running_process, world_at
from tests.support.shop import order_request, running_shop

PARTS = ("sandbox", "customers", "inventory", "shipping", "payments", "orders")


async def test_a_charge_that_payments_has_lost_is_refunded(
    tmp_path: Path, shop_database: str
) -> None:
    """The saga undoes it, payments does not know of it, and the money is given back, once."""
    others = [name for name in PARTS if name != "payments"]
    async with running_shop(tmp_path, *others, database_url=shop_database) as shop:

        async def paid() -> bool:
            database = shop.runtimes["orders"].database
            found = await database.read(lambda tx: store.get(tx, order.order_id))
            return found.status == pb.ORDER_STATUS_SHIPPING

        async with running_process(
            "payments", tmp_path, shop.offset, database_url=shop_database
        ) as payments:
            copy = Backup(tmp_path, "payments", shop_database)
            await behave(shop, outside.PARTY_CARRIER, outside.BEHAVIOR_FAIL)
            await shop.product("tea", 499, on_hand=10)
            request = order_request(await shop.customer(), {"tea": 2}, country="AQ")
            order = await place(shop, request)
            await eventually(paid)
            payments.kill()
            await payments.wait()
        assert await ledger(shop, order.order_id) == Ledger(captures=1, money=998)
        copy.put_back()
        async with running_process("payments", tmp_path, shop.offset, database_url=shop_database):
            # No carrier goes there: the saga turns back.
            await behave(shop, outside.PARTY_CARRIER, outside.BEHAVIOR_NORMAL)
            seen = await updates(shop, order.order_id)

            assert kinds(seen)[-2:] == ["Undoing", "Failed"]
            assert await ledger(shop, order.order_id) == Ledger(captures=1, money=0)
            async with world_at(shop.offset) as world:
                assert await world.kinds(order.order_id) == TAKEN_AND_BACK
            stub = PaymentServiceStub(shop.channel("payments"))
            asked = payments_pb2.GetPaymentRequest(order_id=order.order_id)
            state = (await stub.GetPayment(asked)).payment.state
            assert state == payments_pb2.PAYMENT_STATE_REFUNDED
            assert await stock(shop, "tea") == (10, 0)


async def test_an_order_under_way_at_a_copy_of_orders_ends_as_it_did(
    tmp_path: Path, shop_database: str
) -> None:
    """Its steps are asked for again, weeks later too, and nothing is taken or sent twice."""
    others = [name for name in PARTS if name != "orders"]
    async with running_shop(tmp_path, *others, database_url=shop_database) as shop:
        await shop.product("tea", 499, on_hand=10)
        request = order_request(await shop.customer(), {"tea": 2})
        start = partial(running_process, "orders", tmp_path, shop.offset)
        async with start(database_url=shop_database) as orders:
            await shop.stop("inventory")
            with pytest.raises(grpc.RpcError) as pending:
                await shop.orders.CreateOrder(
                    request, metadata=idempotency_key(uuid7()), timeout=1.5
                )
            assert ServiceError.from_rpc(pending.value).reason == "ORDER_PENDING"
            copy = Backup(tmp_path, "orders", shop_database)
            inventory = await shop.start("inventory")
            asked = pb.ListOrdersRequest(customer_id=request.customer_id)
            order_id = (await shop.orders.ListOrders(asked)).orders[0].order_id
            assert kinds(await updates(shop, order_id)) == GOOD
            orders.kill()
            await orders.wait()
        copy.put_back()
        # As seven days do: then inventory does not know the key any more.
        await inventory.database.write(lambda tx: tx.execute("DELETE FROM idempotency"))
        async with start(database_url=shop_database):
            assert kinds(await updates(shop, order_id)) == GOOD
        assert await ledger(shop, order_id) == Ledger(1, 998, 1, 2)
        assert await stock(shop, "tea") == (8, 0)
