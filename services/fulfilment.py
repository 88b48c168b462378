"""What a service publishes of an order says whether it is choreographed, as its row does."""

from typing import Any

from accord_runtime.database import Tx
from accord_runtime.events.outbox import Outbox
from shop.common.v1.fulfilment_pb2 import FULFILMENT_CHOREOGRAPHED, Fulfilment


class OrderTable:
    """A table with a row for each order, which has its `fulfilment`, and the events about it."""

    def __init__(self, name: str) -> None:
        self._sql = f"SELECT fulfilment FROM {name} WHERE order_id = :order_id"

    def fulfilment(self, tx: Tx, order_id: str) -> "Fulfilment.ValueType":
        """How an order is fulfilled that has a row."""
        found: Fulfilment.ValueType = tx.value(self._sql, {"order_id": order_id})
        return found

    def publish(self, tx: Tx, outbox: Outbox, event: Any) -> None:
        """Publish an event with `order_id` and `fulfilment`; this fills in the latter."""
        event.fulfilment = self.fulfilment(tx, event.order_id)
        outbox.append(tx, event)

    def say(self, tx: Tx, outbox: Outbox, event: Any) -> None:
        """Publish how a choreographed order stands, unless that was said: its row may be older.

        What becomes of a row that was made for it is published anyway.
        """
        if self.fulfilment(tx, event.order_id) != FULFILMENT_CHOREOGRAPHED:
            event.fulfilment = FULFILMENT_CHOREOGRAPHED
            outbox.append_once(tx, event, "fulfilment")
