"""BulkUpdateOrders: a stream of updates, each applied once."""

import time
from collections.abc import AsyncIterator
from typing import Final

import accord
from accord import Idempotency, InvalidArgument, ResourceExhausted, ServiceError
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import Outbox
from accord_runtime.grpc import idempotency
from accord_runtime.saga import Sagas
from services.orders import domain, store
from shop.orders.v1.orders_pb2 import (
    BulkUpdateOrdersRequest,
    BulkUpdateOrdersResponse,
    Order,
    Refusal,
)

MAX_UPDATES: Final = 10_000
"""Updates of one call."""

MAX_REFUSALS: Final = 100
"""Refusals that the answer spells out."""


def cancel(tx: Tx, outbox: Outbox, sagas: Sagas, order_id: str, reason: str) -> Order:
    """Begin to undo an order. Raises a refusal when it is too late."""
    order = store.get_own(tx, order_id, lock=True)
    store.happened(tx, outbox, order, domain.cancel(order, reason))
    sagas.cancel(tx, order_id)
    return order


class BulkUpdates:
    """Applies streams of updates."""

    def __init__(self, database: Database, outbox: Outbox, sagas: Sagas) -> None:
        self._database = database
        self._outbox = outbox
        self._sagas = sagas

    async def apply_all(
        self, requests: AsyncIterator[BulkUpdateOrdersRequest]
    ) -> BulkUpdateOrdersResponse:
        """Apply every update of a stream, or learn what it did the first time.

        Raises:
            InvalidArgument: the stream is empty, or its key was used for another.
            ResourceExhausted: it is too long (TOO_MANY_UPDATES).
        """
        summary, index = BulkUpdateOrdersResponse(), 0
        async for request in requests:
            if index >= MAX_UPDATES:
                raise ResourceExhausted(
                    "TOO_MANY_UPDATES", None, f"a call takes at most {MAX_UPDATES} updates"
                )
            outcome = await self._once(index, request)
            summary.applied += outcome.applied
            summary.refused += outcome.refused
            if len(summary.refusals) < MAX_REFUSALS:
                summary.refusals.extend(outcome.refusals)
            index += 1
        if index == 0:
            raise InvalidArgument(("", "the stream has no updates"))
        return summary

    async def _once(self, index: int, request: BulkUpdateOrdersRequest) -> BulkUpdateOrdersResponse:
        call = accord.current()
        assert call is not None
        assert call.idempotency is not None  # The contract requires a key.
        raw = request.SerializeToString(deterministic=True)
        item = Idempotency(call.idempotency.scope.item(index), accord.fingerprint(call.method, raw))

        def apply(tx: Tx) -> BulkUpdateOrdersResponse:
            known = idempotency.find(tx, item.scope, time.time())
            if known is not None:
                if known.fingerprint != item.fingerprint:
                    raise InvalidArgument(
                        "IDEMPOTENCY_KEY_REUSED",
                        ("metadata.idempotency-key", f"was used for another update {index}"),
                    )
                return BulkUpdateOrdersResponse.FromString(known.response or b"")
            outcome = self._apply(tx, index, request)
            idempotency.record(tx, outcome, call=item)
            return outcome

        return await self._database.write(apply)

    def _apply(
        self, tx: Tx, index: int, request: BulkUpdateOrdersRequest
    ) -> BulkUpdateOrdersResponse:
        try:
            # Both decide before they write, so a refusal leaves nothing behind.
            if request.WhichOneof("update") == "cancel_reason":
                cancel(tx, self._outbox, self._sagas, request.order_id, request.cancel_reason)
            else:
                order = store.get_own(tx, request.order_id, lock=True)
                store.happened(tx, self._outbox, order, domain.note(order, request.add_note))
        except ServiceError as error:
            refusal = Refusal(
                index=index, order_id=request.order_id, reason=error.reason, detail=error.message
            )
            return BulkUpdateOrdersResponse(refused=1, refusals=[refusal])
        return BulkUpdateOrdersResponse(applied=1)
