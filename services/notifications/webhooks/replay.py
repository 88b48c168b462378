"""Sends a webhook again what happened in a range of time, from the record of the orders: a job."""

import json
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from accord.errors import FailedPrecondition
from accord_runtime.database import Database, Tx
from accord_runtime.events.inbox import Received
from accord_runtime.events.versions import AS_WRITTEN
from accord_runtime.jobs import Job, Kind, Progress
from accord_runtime.service import Runtime
from services.notifications.webhooks import store
from services.notifications.webhooks.conditions import EVENTS, holds
from services.notifications.webhooks.steps import MAX_WAITING, WebhookSteps
from shop.notifications.v1 import webhooks_pb2 as pb
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub

BATCH: Final = 500
"""Events that a step reads."""

SLACK: Final = 60_000_000
"""Microseconds by which an event may stand behind a later one in the record: replicas' clocks."""

PAUSE: Final = 5.0
"""Seconds to wait when half of what may wait for the receiver does."""


class Replays:
    """The jobs that replay."""

    def __init__(self, runtime: Runtime, steps: WebhookSteps) -> None:
        self._database: Database = runtime.database
        self._orders = OrderServiceStub(runtime.mesh.channel("orders"))
        self._steps = steps
        self.kind = runtime.jobs.register(
            Kind("webhook-replay", pb.ReplayWebhookRequest, self.step)
        )

    async def step(self, job: Job[pb.ReplayWebhookRequest]) -> Progress | Message:
        """Read some more of the record, and begin the deliveries that come of it."""
        at = json.loads(job.checkpoint or b'{"position": 0, "found": 0, "ended": false}')
        if at["ended"]:
            return pb.ReplaySummary(events=job.done_units, deliveries=at["found"])
        webhook_id = job.request.webhook_id
        webhook = await self._database.read(lambda tx: store.get(tx, webhook_id))
        if webhook["state"] != store.ACTIVE:
            raise FailedPrecondition("WEBHOOK_NOT_ACTIVE", "the webhook is paused or off")
        waiting = await self._database.read(lambda tx: store.waiting(tx, webhook_id))
        if waiting > MAX_WAITING // 2:
            return Progress(job.checkpoint, job.done_units, pause=PAUSE)
        since = job.request.since.ToMicroseconds()
        until = job.request.until.ToMicroseconds()
        found: list[Received[Message]] = []
        events, read = 0, 0
        types: Sequence[str] = json.loads(webhook["event_types"])
        request = ReadEventsRequest(after_position=at["position"], types=types)
        stream = self._orders.ReadEvents(request)
        at["ended"] = True
        async for each in stream:
            event, happened = each.event, each.event.occurred_at.ToMicroseconds()
            if happened >= until + SLACK:
                break
            read, at["position"] = read + 1, each.position
            if since <= happened < until and event.type in types:
                events += 1
                payload = AS_WRITTEN.read(EVENTS[event.type], event.version, event.payload.value)
                if holds(webhook["condition"], payload):
                    found.append(Received(event.event_id, event.key, event.sequence, payload))
            if read == BATCH:
                at["ended"] = False
                break
        stream.cancel()
        at["found"] += len(found)

        def effect(tx: Tx) -> None:
            self._steps.begin(tx, webhook_id, found, again=True)

        return Progress(json.dumps(at).encode(), job.done_units + events, effect=effect)
