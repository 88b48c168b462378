"""The RPCs of `shop.payments.v1.PaymentService`.

The processor is never asked inside a transaction. Before it is asked, the row says so; after it
has answered, the row may have moved on, and then the row is right: it was written first.
"""

from collections.abc import Callable
from typing import Any, Final

from accord.context import current
from accord.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError, Unavailable
from accord_runtime.database import Database, Tx
from accord_runtime.grpc.idempotency import commit, record
from accord_runtime.work.executor import Effect, Executor, Work, expedite
from services.payments import store
from services.payments.domain import CardProcessor, Payment, PaymentState, Refusal, refusal
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1.payments_pb2_grpc import PaymentServiceServicer

REFUNDS: Final = "refunds"
"""Queue of the refunds that the processor has not confirmed; key: the order."""


class Payments(PaymentServiceServicer):
    """Charges and refunds orders."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        processor: CardProcessor,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._executor = executor
        self._processor = processor
        self._clock = clock
        executor.register(REFUNDS, self._go_on)

    async def Charge(self, request: pb.ChargeRequest, context: Any) -> pb.ChargeResponse:
        amount = request.amount
        key = _idempotency_key()

        def begin(tx: Tx) -> tuple[Payment, pb.ChargeResponse | ServiceError | None]:
            payment = store.open_charge(tx, request.order_id, amount, key, self._clock())
            if payment is None:
                raise InvalidArgument(
                    ("", "the idempotency key was used for another order"),
                    reason="IDEMPOTENCY_KEY_REUSED",
                )
            return payment, _answer(tx, payment, amount)

        payment, answer = await self._database.write(begin)
        if answer is None:
            outcome = await self._processor.capture(
                payment.payment_id, payment.order_id, amount, request.card_token
            )
            answer = await self._database.write(
                lambda tx: _answer(tx, store.settle(tx, payment, outcome, self._clock()), amount)
            )
            assert answer is not None
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    async def Refund(self, request: pb.RefundRequest, context: Any) -> pb.RefundResponse:
        def begin(tx: Tx) -> tuple[Payment, Work | None]:
            payment, begun = store.begin_refund(tx, request.order_id, self._clock())
            # Whatever happens to this process, the work is found again.
            work = self._executor.enqueue_held(tx, REFUNDS, payment.order_id) if begun else None
            return payment, work

        payment, work = await self._database.write(begin)
        if work is not None:
            await self._executor.run(work)
        elif payment.state is PaymentState.REFUNDING:
            await self._catch_up(payment)

        def answer(tx: Tx) -> pb.RefundResponse:
            refunded = store.find(tx, request.order_id)
            assert refunded is not None
            if refunded.state is PaymentState.REFUNDING:
                raise Unavailable(message="the refund goes on in the background")
            return pb.RefundResponse(payment=_message(refunded))

        return await commit(self._database, answer)

    async def GetPayment(
        self, request: pb.GetPaymentRequest, context: Any
    ) -> pb.GetPaymentResponse:
        payment = await self._database.read(lambda tx: store.find(tx, request.order_id))
        if payment is None:
            raise NotFound("payment", request.order_id)
        return pb.GetPaymentResponse(payment=_message(payment))

    async def _go_on(self, work: Work) -> Effect | None:
        """Finish a refund that was begun; the handler of the queue."""
        payment = await self._database.read(lambda tx: store.find(tx, work.key))
        if payment is None or payment.state is not PaymentState.REFUNDING:
            return None
        return await self._undo(payment)

    async def _catch_up(self, payment: Payment) -> None:
        """Finish a refund whose work waits for its next attempt, or for an operator."""
        finish = await self._undo(payment)

        def write(tx: Tx) -> None:
            finish(tx)
            # It finds nothing left to do, and is gone from the operator's list.
            expedite(tx, REFUNDS, payment.order_id, self._clock())

        await self._database.write(write)

    async def _undo(self, payment: Payment) -> Effect:
        await self._processor.reverse(payment.payment_id, payment.order_id)
        return lambda tx: store.finish_refund(tx, payment.order_id, self._clock())


def _idempotency_key() -> str | None:
    call = current()
    return call.idempotency.scope.key if call and call.idempotency else None


def _answer(tx: Tx, payment: Payment, amount: Money) -> pb.ChargeResponse | ServiceError | None:
    """The answer to a charge, put on record; None while the processor must be asked."""
    refused = refusal(payment, amount)
    if refused is None and payment.state is PaymentState.PENDING:
        return None
    answer: pb.ChargeResponse | ServiceError
    if refused is None:
        answer = pb.ChargeResponse(payment=_message(payment))
    else:
        answer = _error(refused, payment)
    record(tx, answer)
    return answer


def _error(refused: Refusal, payment: Payment) -> ServiceError:
    reason = f": {payment.decline_reason}" if refused is Refusal.CARD_DECLINED else ""
    return FailedPrecondition(refused.name, f"{refused.value}{reason}")


def _message(payment: Payment) -> pb.Payment:
    message = pb.Payment(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        amount=payment.amount,
        state=pb.PaymentState.Value(f"PAYMENT_STATE_{payment.state.value}"),
        decline_reason=payment.decline_reason,
    )
    message.updated_at.FromMicroseconds(round(payment.updated_at * 1e6))
    return message
