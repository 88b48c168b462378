"""The RPCs of `shop.notifications.v1.WebhookService`."""

import json
import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from accord.interfaces import FieldViolation
from accord_runtime.database import Row, Tx
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, unix_seconds
from accord_runtime.service import Runtime
from services.notifications.webhooks import conditions, store
from services.notifications.webhooks.addresses import Destinations
from services.notifications.webhooks.replay import Replays
from services.notifications.webhooks.sender import Sender
from services.notifications.webhooks.signing import new_secret
from services.notifications.webhooks.steps import WebhookSteps
from shop.notifications.v1 import webhooks_pb2 as pb
from shop.notifications.v1.webhooks_pb2_grpc import WebhookServiceServicer

OLD_SECRET = 24 * 3600.0
"""Seconds for which deliveries are signed with the secret of before, too."""


class Webhooks(WebhookServiceServicer):
    """Registers webhooks, and says what came of them; `clock`: Unix time in seconds."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        settings = runtime.settings
        self._clock = clock
        self._destinations = Destinations.of(
            settings.outbound_networks, http=settings.outbound_http
        )
        sender = Sender(self._destinations)
        runtime.closing.append(sender.close)
        self._database = runtime.database
        self._jobs = runtime.jobs
        self.steps = WebhookSteps(runtime, sender, clock)
        self._replays = Replays(runtime, self.steps)

    async def CreateWebhook(
        self, request: pb.CreateWebhookRequest, context: Context
    ) -> pb.CreateWebhookResponse:
        if problems := self._problems(request):
            raise InvalidArgument("INVALID_ARGUMENT", *problems)
        webhook_id, secret, now = uuid7(), new_secret(), self._clock()

        def create(tx: Tx) -> pb.CreateWebhookResponse:
            if not store.insert(tx, webhook_id, request, secret, now):
                text = f"there are {store.MAX_WEBHOOKS} webhooks"
                raise ResourceExhausted("TOO_MANY_WEBHOOKS", None, text)
            webhook = store.message(store.get(tx, webhook_id))
            return pb.CreateWebhookResponse(webhook=webhook, secret=secret)

        return await commit(self._database, create)

    async def GetWebhook(
        self, request: pb.GetWebhookRequest, context: Context
    ) -> pb.GetWebhookResponse:
        return pb.GetWebhookResponse(webhook=store.message(await self._get(request.webhook_id)))

    async def ListWebhooks(
        self, request: pb.ListWebhooksRequest, context: Context
    ) -> pb.ListWebhooksResponse:
        asked = Page(request)
        page, token = await self._database.read(lambda tx: store.page(tx, asked))
        return pb.ListWebhooksResponse(webhooks=page, next_page_token=token)

    async def UpdateWebhook(
        self, request: pb.UpdateWebhookRequest, context: Context
    ) -> pb.UpdateWebhookResponse:
        webhook_id, now = request.webhook_id, self._clock()
        secret = new_secret() if request.rotate_secret else ""

        def update(tx: Tx) -> pb.UpdateWebhookResponse:
            webhook = store.get(tx, webhook_id, lock=True)
            if request.state == pb.WEBHOOK_STATE_PAUSED:
                self.steps.stop(tx, webhook_id, request.state)
            elif request.state == store.ACTIVE != webhook["state"]:
                store.change(tx, webhook_id, state=store.ACTIVE, state_changed_at=now)
                store.change(tx, webhook_id, reason="", failing_since=0.0)
            if secret:
                old = {"old_secret": webhook["secret"], "old_until": now + OLD_SECRET}
                store.change(tx, webhook_id, secret=secret, **old)
            found = store.message(store.get(tx, webhook_id))
            return pb.UpdateWebhookResponse(webhook=found, secret=secret)

        return await commit(self._database, update)

    async def DeleteWebhook(
        self, request: pb.DeleteWebhookRequest, context: Context
    ) -> pb.DeleteWebhookResponse:
        def delete(tx: Tx) -> pb.DeleteWebhookResponse:
            store.get(tx, request.webhook_id, lock=True)
            store.delete(tx, request.webhook_id)
            return pb.DeleteWebhookResponse()

        return await commit(self._database, delete)

    async def TestWebhook(
        self, request: pb.TestWebhookRequest, context: Context
    ) -> pb.TestWebhookResponse:
        webhook = await self._get(request.webhook_id)
        stamp = Timestamp()
        stamp.GetCurrentTime()
        content = {"type": "webhook.test", "timestamp": stamp.ToJsonString(), "data": {}}
        answer = await self.steps.send(webhook, uuid7(), json.dumps(content).encode())
        response = pb.TestWebhookResponse(
            delivered=not answer.error, status=answer.status, error=answer.error
        )
        response.took.FromMicroseconds(round(answer.took * 1e6))
        return await commit(self._database, lambda tx: response)

    async def ReplayWebhook(
        self, request: pb.ReplayWebhookRequest, context: Context
    ) -> pb.ReplayWebhookResponse:
        since = unix_seconds(request.since, "since")
        until = unix_seconds(request.until, "until")
        if since >= until:
            raise InvalidArgument(("until", "must be later than `since`"))
        if until > self._clock():
            raise InvalidArgument(("until", "must not be in the future"))

        def start(tx: Tx) -> pb.ReplayWebhookResponse:
            if store.get(tx, request.webhook_id)["state"] != store.ACTIVE:
                raise FailedPrecondition("WEBHOOK_NOT_ACTIVE", "the webhook is paused or off")
            operation = self._jobs.start(tx, self._replays.kind, request)
            return pb.ReplayWebhookResponse(operation=operation)

        return await commit(self._database, start)

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: Context
    ) -> pb.ListDeliveriesResponse:
        webhook_id, state = request.webhook_id, request.state
        asked = Page(request, webhook_id=webhook_id, state=str(state))
        await self._get(webhook_id)
        page, token = await self._database.read(
            lambda tx: store.deliveries(tx, asked, webhook_id, state)
        )
        return pb.ListDeliveriesResponse(deliveries=page, next_page_token=token)

    async def _get(self, webhook_id: str) -> Row:
        return await self._database.read(lambda tx: store.get(tx, webhook_id))

    def _problems(self, request: pb.CreateWebhookRequest) -> list[FieldViolation]:
        found = []
        if wrong := self._destinations.problem(request.url):
            found.append(FieldViolation("url", wrong))
        for number, name in enumerate(request.event_types):
            if name not in conditions.EVENTS:
                known = ", ".join(conditions.EVENTS)
                found.append(FieldViolation(f"event_types[{number}]", f"is none of {known}"))
            elif request.condition and (wrong := conditions.problem(request.condition, name)):
                found.append(FieldViolation("condition", wrong))
        return found
