"""The card processor of the sandbox, as payments sees it."""

import grpc

from accord.errors import ServiceError
from services.payments.domain import Outcome
from shop.common.v1.money_pb2 import Money
from shop.payments.v1 import payments_pb2
from shop.sandbox.v1 import sandbox_pb2 as pb
from shop.sandbox.v1.sandbox_pb2_grpc import CardProcessorServiceStub


class SandboxProcessor:
    """A `CardProcessor` over gRPC. What is not an answer escapes as the call's own error."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = CardProcessorServiceStub(channel)

    async def capture(self, key: str, reference: str, amount: Money, card_token: str) -> Outcome:
        """Take money from a card; see `CardProcessor`."""
        request = pb.CaptureRequest(
            key=key, reference=reference, amount=amount, card_token=card_token
        )
        try:
            await self._stub.Capture(request)
        except grpc.RpcError as error:
            refusal = ServiceError.from_rpc(error)
            if refusal.reason == "CARD_DECLINED":
                return Outcome(payments_pb2.PAYMENT_STATE_DECLINED, refusal.message)
            if refusal.reason == "KEY_REVERSED":
                return Outcome(payments_pb2.PAYMENT_STATE_REFUNDED)
            raise
        return Outcome(payments_pb2.PAYMENT_STATE_CAPTURED)

    async def reverse(self, key: str, reference: str) -> Money | None:
        """Give money back; see `CardProcessor`."""
        reversed_ = await self._stub.Reverse(pb.ReverseRequest(key=key, reference=reference))
        return reversed_.amount if reversed_.HasField("amount") else None
