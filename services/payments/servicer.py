"""The RPCs of `shop.payments.v1.PaymentService`.

How a payment is recorded, tried and taken back is `ExternalEffect`'s; this says what it means.
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc

from accord.errors import InvalidArgument, NotFound, Resource, ServiceError, Unavailable
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import Outbox
from accord_runtime.events.record import RecordReader
from accord_runtime.grpc import idempotency, owner
from accord_runtime.grpc.types import Context
from accord_runtime.saga.orchestrator import DELAYS
from accord_runtime.service import Runtime, Service
from accord_runtime.work.executor import Executor
from accord_runtime.work.external_effect import ExternalEffect
from accord_runtime.work.table import Effect
from services.payments import store
from services.payments.choreography import Choreography
from services.payments.domain import CardProcessor, refusal
from services.payments.processor import SandboxProcessor
from shop.common.v1.fulfilment_pb2 import (
    FULFILMENT_CHOREOGRAPHED,
    FULFILMENT_ORCHESTRATED,
    Fulfilment,
)
from shop.common.v1.money_pb2 import Money
from shop.orders.v1.orders_pb2 import GetPaymentInstructionRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.payments_pb2_grpc import (
    PaymentServiceServicer,
    add_PaymentServiceServicer_to_server,
)

REFUNDS: Final = "refunds"
"""Queue of the refunds that the processor has not confirmed; key: the order."""


class Payments(PaymentServiceServicer):
    """Charges and refunds orders."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        processor: CardProcessor,
        orders: OrderServiceStub,
        outbox: Outbox,
        record: RecordReader,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._record = record
        self._orders = orders
        self._processor = processor
        self._payments = ExternalEffect(
            database,
            executor,
            REFUNDS,
            store.find,
            lambda payment: payment.state == pb.PAYMENT_STATE_REFUNDING,
            self._reverse,
            delays=DELAYS,
        )

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResponse:
        return await self.charge(request, idempotency.key())

    async def charge(
        self,
        request: pb.ChargeRequest,
        key: str | None,
        fulfilment: "Fulfilment.ValueType" = FULFILMENT_ORCHESTRATED,
    ) -> pb.ChargeResponse:
        """Charge an order. Errors as `Charge`."""
        amount = request.amount
        # Nothing is on record before it is known: whoever charges tries again until orders answers.
        card_token = request.card_token or await self._card_of(request.order_id)
        return await self._payments.do(
            request.order_id,
            lambda tx: store.open_charge(
                tx, request.order_id, amount, key, time.time(), fulfilment
            ),
            lambda payment: self._processor.capture(
                payment.payment_id, payment.order_id, amount, card_token
            ),
            lambda tx, payment, outcome: store.settle(
                tx, self._outbox, payment, outcome, time.time()
            ),
            lambda tx, payment: _answer(tx, payment, amount),
        )

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResponse:
        await self._payments.undo(
            request.order_id, lambda tx: store.begin_refund(tx, request.order_id, time.time())
        )

        def answer(tx: Tx) -> pb.RefundResponse:
            refunded = store.find(tx, request.order_id)
            assert refunded is not None
            if refunded.state == pb.PAYMENT_STATE_REFUNDING:
                raise Unavailable(message="the refund goes on in the background")
            return pb.RefundResponse(payment=refunded)

        return await idempotency.commit(self._database, answer)

    def refund_later(self, tx: Tx, order_id: str) -> None:
        """Have a choreographed order refunded, whether or not it was charged."""
        self._payments.undo_later(
            tx,
            order_id,
            lambda tx: store.begin_refund(tx, order_id, time.time(), FULFILMENT_CHOREOGRAPHED),
        )

    async def GetPayment(
        self, request: pb.GetPaymentRequest, context: Context
    ) -> pb.GetPaymentResponse:
        payment = await self._database.look_up(lambda tx: store.find(tx, request.order_id))
        if payment is None or owner.only() is not None:  # whose it is, only orders know
            raise NotFound(resource=Resource("payment", request.order_id))
        return pb.GetPaymentResponse(payment=payment)

    async def ReadEvents(
        self, request: pb.ReadEventsRequest, context: Context
    ) -> AsyncIterator[pb.ReadEventsResponse]:
        async with aclosing(self._record.read(request, pb.ReadEventsResponse)) as responses:
            async for response in responses:
                yield response

    async def _card_of(self, order_id: str) -> str:
        try:
            found = await self._orders.GetPaymentInstruction(
                GetPaymentInstructionRequest(order_id=order_id)
            )
        except grpc.RpcError as error:
            if ServiceError.from_rpc(error).reason != "NOT_FOUND":
                raise
            raise InvalidArgument(("order_id", "is not an order")) from error
        return found.card_token

    async def _reverse(self, payment: pb.Payment) -> Effect:
        amount = await self._processor.reverse(payment.payment_id, payment.order_id)
        return lambda tx: store.finish_refund(
            tx, self._outbox, payment.order_id, amount, time.time()
        )


def _answer(tx: Tx, payment: pb.Payment, amount: Money) -> pb.ChargeResponse | ServiceError | None:
    """The answer to a charge, put on record; None while the processor must be asked."""
    refused = refusal(payment, amount)
    if refused is None and payment.state == pb.PAYMENT_STATE_PENDING:
        return None
    answer = refused or pb.ChargeResponse(payment=payment)
    idempotency.record(tx, answer)
    return answer


def build(runtime: Runtime) -> None:
    """Put the servicer on the server, with the sandbox's card processor behind it."""
    servicer = Payments(
        runtime.database,
        runtime.executor,
        SandboxProcessor(runtime.mesh.channel("sandbox")),
        OrderServiceStub(runtime.mesh.channel("orders")),
        runtime.outbox,
        RecordReader(runtime.database, runtime.notifier),
    )
    Choreography(runtime, servicer)
    add_PaymentServiceServicer_to_server(servicer, runtime.server)


SERVICE = Service(
    name="payments",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=("shop.payments.v1.PaymentService",),
)
