"""A server process of orders, as a gateway calls it: answers at once; prints its port."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import uvloop
from grpc_health.v1.health_pb2 import HealthCheckResponse

import accord
from accord_runtime.grpc.operator_contracts import TAKES_CALLS
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1 import orders_pb2_grpc


def _order(order_id: str) -> pb.Order:
    order = pb.Order(order_id=order_id, customer_id="c1", status=pb.ORDER_STATUS_CONFIRMED)
    order.created_at.GetCurrentTime()
    order.items.add(sku="tea", quantity=2)
    return order


class _Orders(orders_pb2_grpc.OrderServiceServicer):
    async def GetOrder(self, request: Any, context: Any) -> Any:
        context.set_trailing_metadata(accord.cache_for(0))  # as of an order that is on its way
        return pb.GetOrderResponse(order=_order(request.order_id))

    async def CancelOrder(self, request: Any, context: Any) -> Any:
        return pb.CancelOrderResponse(order=_order(request.order_id))

    async def StreamOrderUpdates(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.StreamOrderUpdatesResponse(sequence=1, event_type="shop.orders.v1.OrderCreated")
        await asyncio.Event().wait()


async def _main() -> None:
    server = accord.Mesh("orders", idempotency="handler").server()
    orders_pb2_grpc.add_OrderServiceServicer_to_server(_Orders(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.health.set(TAKES_CALLS, HealthCheckResponse.SERVING)
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_main())
