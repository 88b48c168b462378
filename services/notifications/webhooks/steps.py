"""The steps from an order's event to its subscribers.

The event is taken: each webhook that is about it, and whose condition holds, gets a delivery, which
commits with the event. Then each delivery is sent, in the order of the events of its order; others
go on meanwhile. Its id, the header `webhook-id`, follows from event and webhook: a receiver that is
sent it twice, by a process that died in between or by a replay, recognises it.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from accord.errors import Unavailable
from accord_runtime.database import Row, Tx
from accord_runtime.events.inbox import EventHandler, Received
from accord_runtime.grpc.ids import derived, made_at
from accord_runtime.service import Runtime
from accord_runtime.work.executor import Queue
from accord_runtime.work.table import Effect, Work
from services.notifications.webhooks import store
from services.notifications.webhooks.conditions import EVENTS, holds
from services.notifications.webhooks.sender import Answer, Sender
from services.notifications.webhooks.signing import signatures
from shop.notifications.v1 import webhooks_pb2 as pb

log = logging.getLogger(__name__)

QUEUE: Final = "webhook"
"""Queue of deliveries; its keys are those of the events, behind the webhook's id."""

DELAYS: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, *[7200.0] * 12)
"""Seconds before each retry; a little more than a day in all, so that a webhook of which nothing
succeeds is switched off, and a delivery is parked that fails while others succeed."""

PATIENCE: Final = 24 * 3600.0
"""Seconds for which every delivery may fail before a webhook is switched off."""

MAX_WAITING: Final = 10_000
"""Deliveries that may wait for one receiver; then its webhook is switched off."""

PER_WEBHOOK: Final = 4
"""Deliveries of one webhook that are sent at a time."""

SENDING: Final = 64
"""Deliveries that are sent at a time."""

KEPT: Final = 7 * 24 * 3600.0
"""Seconds for which it is known what came of a delivery."""

GONE: Final = 410
"""Status by which a receiver says that it wants no more."""


class WebhookSteps:
    """Tells subscribers what happens to orders.

    Args:
        runtime: of the service.
        sender: sends deliveries.
        clock: Unix time in seconds.
    """

    def __init__(
        self, runtime: Runtime, sender: Sender, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = runtime.database
        self._executor = runtime.executor
        self._sender = sender
        self._clock = clock
        self.handlers: dict[type[Message], EventHandler] = dict.fromkeys(EVENTS.values(), self.take)
        self._executor.register(
            # The first 36 characters of a key are the webhook's id.
            Queue(QUEUE, self.deliver, DELAYS, SENDING, group=36, per_group=PER_WEBHOOK)
        )

    async def take(self, event: Received[Any]) -> Effect | None:
        """First step: a delivery for each webhook that wants to be told."""
        name = event.payload.DESCRIPTOR.full_name
        webhooks = [
            webhook
            for webhook in await self._database.look_up(store.active)
            if name in json.loads(webhook["event_types"])
            and holds(webhook["condition"], event.payload)
        ]
        if not webhooks:
            return None

        def effect(tx: Tx) -> None:
            for webhook in webhooks:
                self.begin(tx, webhook["webhook_id"], [event])

        return effect

    def begin(
        self, tx: Tx, webhook_id: str, events: Sequence[Received[Any]], *, again: bool = False
    ) -> None:
        """Begin deliveries of a webhook; `again`: also of events that it was told before."""
        now = self._clock()
        store.sweep(tx, now - KEPT)
        for event in events:
            message_id = derived(event.event_id, f"webhook {webhook_id}")
            delivery = {
                "message_id": message_id,
                "webhook_id": webhook_id,
                "event_id": event.event_id,
                "event_type": event.payload.DESCRIPTOR.full_name,
                "key": event.key,
                "sequence": event.sequence,
                "body": body(event),
                "updated_at": now,
            }
            if store.begin(tx, delivery, again=again):
                key, seq = f"{webhook_id}/{event.key}", event.sequence
                self._executor.enqueue(tx, QUEUE, key, message_id.encode(), seq=seq)
        if store.waiting(tx, webhook_id) > MAX_WAITING:
            self._switch_off(tx, webhook_id, f"more than {MAX_WAITING} deliveries waited for it")

    async def deliver(self, work: Work) -> Effect | None:
        """Second step: send a delivery."""
        message_id = work.payload.decode()

        def read(tx: Tx) -> tuple[Row | None, Row | None]:
            delivery = store.delivery(tx, message_id)
            return delivery, delivery and store.find(tx, delivery["webhook_id"])

        delivery, webhook = await self._database.read(read)
        if delivery is None or webhook is None or delivery["state"] in store.ENDED:
            return None  # Its webhook was deleted, paused or switched off.
        answer = await self.send(webhook, message_id, delivery["body"])
        attempts, now = work.attempts + 1, self._clock()
        settle = partial(store.settle, message_id=message_id, attempts=attempts, now=now)
        settle = partial(settle, status=answer.status, error=answer.error)
        if not answer.error:

            def delivered(tx: Tx) -> None:
                settle(tx, state=pb.DELIVERY_STATE_DELIVERED)
                if webhook["failing_since"]:
                    store.change(tx, webhook["webhook_id"], failing_since=0.0)

            return delivered

        def failed(tx: Tx) -> bool:
            found = store.find(tx, webhook["webhook_id"], lock=True)
            if found is None or found["state"] != store.ACTIVE:
                return False
            last = attempts > len(DELAYS)
            settle(tx, state=pb.DELIVERY_STATE_PARKED if last else store.WAITING)
            return self._still_sent(tx, found, answer, now)

        if not await self._database.write(failed):
            return None
        raise Unavailable("NOT_DELIVERED", answer.retry_after, answer.error)

    async def send(self, webhook: Row, message_id: str, content: bytes) -> Answer:
        """Send a delivery, signed."""
        now = self._clock()
        secrets = [webhook["secret"]]
        if now < webhook["old_until"]:
            secrets.append(webhook["old_secret"])
        signature = signatures(secrets, message_id, int(now), content)
        return await self._sender.post(webhook["url"], content, message_id, int(now), signature)

    def stop(
        self, tx: Tx, webhook_id: str, state: "pb.WebhookState.ValueType", reason: str = ""
    ) -> None:
        """Pause a webhook or switch it off, and give up what waits for it."""
        now = self._clock()
        store.change(tx, webhook_id, state=state, reason=reason, state_changed_at=now)
        for key in store.give_up(tx, webhook_id, now):
            # Its work finds nothing to do, and is gone from the operator's list.
            self._executor.expedite(tx, QUEUE, f"{webhook_id}/{key}")

    def _still_sent(self, tx: Tx, webhook: Row, answer: Answer, now: float) -> bool:
        """Note that a delivery has failed; False if that was enough."""
        webhook_id, since = webhook["webhook_id"], webhook["failing_since"] or now
        if answer.status == GONE:
            self._switch_off(tx, webhook_id, f"the receiver answered {GONE}: it is gone")
        elif now - since >= PATIENCE:
            text = f"no delivery has succeeded for a day; the last one: {answer.error}"
            self._switch_off(tx, webhook_id, text)
        else:
            store.change(tx, webhook_id, failing_since=since)
            return True
        return False

    def _switch_off(self, tx: Tx, webhook_id: str, reason: str) -> None:
        self.stop(tx, webhook_id, store.OFF, reason)
        tx.after_commit(partial(log.error, "webhook %s is switched off: %s", webhook_id, reason))


def body(event: Received[Any]) -> bytes:
    """What is sent of an event, the same each time."""
    at = datetime.fromtimestamp(made_at(event.event_id), UTC)
    content = {
        "type": event.payload.DESCRIPTOR.full_name,
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_id": event.event_id,
        "sequence": event.sequence,
        "data": MessageToDict(event.payload, preserving_proto_field_name=True),
    }
    return json.dumps(content, separators=(",", ":")).encode()
