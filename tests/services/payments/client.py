"""A caller of the payments service without interceptors: no attempt is hidden, here or below."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from accord import idempotency_key
from services.topology import address
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.sandbox.v1 import sandbox_pb2 as outside
from tests.services.sandbox.world import DEADLINE, SINGLE, failure

PRICE = Money(minor_units=1999, currency_code="EUR")
TAKEN = [outside.ENTRY_KIND_CAPTURED]
TAKEN_AND_BACK = [outside.ENTRY_KIND_CAPTURED, outside.ENTRY_KIND_REVERSED]


class Client:
    """Calls the payments service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = PaymentServiceStub(channel)

    async def charge(
        self,
        order: str,
        card: str = "tok_good",
        *,
        key: str | None = None,
        amount: Money = PRICE,
        timeout: float = DEADLINE,
    ) -> pb.Payment:
        """Charge an order, under its own key unless another is given; no card: orders is asked."""
        request = pb.ChargeRequest(order_id=order, amount=amount, card_token=card)
        metadata = (*SINGLE, *idempotency_key(key or f"{order}/charge"))
        return (await self._stub.Charge(request, metadata=metadata, timeout=timeout)).payment

    async def refund(self, order: str, timeout: float = DEADLINE) -> pb.Payment:
        request = pb.RefundRequest(order_id=order)
        return (await self._stub.Refund(request, metadata=SINGLE, timeout=timeout)).payment

    async def get(self, order: str) -> pb.Payment:
        request = pb.GetPaymentRequest(order_id=order)
        return (await self._stub.GetPayment(request, timeout=DEADLINE)).payment

    async def state(self, order: str) -> pb.PaymentState.ValueType:
        return (await self.get(order)).state

    async def is_pending(self, order: str) -> bool:
        """Whether a charge was begun."""
        try:
            return await self.state(order) == pb.PAYMENT_STATE_PENDING
        except grpc.aio.AioRpcError:
            return False

    async def is_refunded(self, order: str) -> bool:
        """Whether the refund is over."""
        try:
            return await self.state(order) == pb.PAYMENT_STATE_REFUNDED
        except grpc.aio.AioRpcError:
            return False

    async def is_charged(self, order: str) -> bool:
        """Try to charge an order."""
        try:
            return (await self.charge(order)).state == pb.PAYMENT_STATE_CAPTURED
        except grpc.aio.AioRpcError:
            return False

    async def refusal(self, order: str, **options: object) -> tuple[grpc.StatusCode, str]:
        """Code and reason of a charge that must not succeed."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.charge(order, **options)  # type: ignore[arg-type]
        return failure(raised)


@asynccontextmanager
async def calling(offset: int) -> AsyncIterator[Client]:
    """A client of the service at a port offset."""
    async with grpc.aio.insecure_channel(address("payments", offset)) as channel:
        yield Client(channel)
