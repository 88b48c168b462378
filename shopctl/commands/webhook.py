"""`shopctl webhook`."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from shop.notifications.v1 import webhooks_pb2 as pb
from shop.notifications.v1.webhooks_pb2_grpc import WebhookServiceStub
from shopctl.client import Shop, with_shop
from shopctl.commands.operation import follow
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import Columns, enum_name, format_fields, format_time
from shopctl.options import KeyOption, LimitOption

app = typer.Typer(name="webhook", no_args_is_help=True, help="Have events of orders sent to a URL.")

COLUMNS: Final = Columns(WEBHOOK=36, CREATED=19, STATE=6, URL=32, REASON=0)
DELIVERIES: Final = Columns(MESSAGE=36, UPDATED=19, STATE=9, EVENT=16, KEY=36, TRIED=-5, ERROR=0)
SERVICE = "notifications"
WebhookArgument = Annotated[str, typer.Argument(metavar="ID", help="The webhook.")]


@app.command()
@with_shop
async def create(
    shop: Shop,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    event: Annotated[
        list[str],
        typer.Option(metavar="TYPE", help="E.g. shop.orders.v1.OrderPaid; may be repeated."),
    ],
    condition: Annotated[
        str, typer.Option("--if", metavar="CEL", help="Only events for which this holds.")
    ] = "",
    key: KeyOption = "",
) -> None:
    """Register a webhook. Its secret is printed now and never again."""
    request = pb.CreateWebhookRequest(url=url, event_types=event, condition=condition)
    made = await shop.change(SERVICE, WebhookServiceStub, "CreateWebhook", request, key)
    shop.print(made, *_lines(made.webhook), f"secret     {made.secret}")


@app.command("list")
@with_shop
async def list_webhooks(shop: Shop, limit: LimitOption = 50) -> None:
    """List webhooks, newest first."""
    request = pb.ListWebhooksRequest()
    found = shop.rows(SERVICE, WebhookServiceStub, "ListWebhooks", request, limit)
    with shop.listing("webhooks", COLUMNS) as row:
        async for webhook in found:
            state = enum_name(pb.WebhookState.items(), webhook.state)
            what = (format_time(webhook.created_at), state, webhook.url, webhook.reason)
            row(webhook, COLUMNS.line(webhook.webhook_id, *what))


@app.command()
@with_shop
async def deliveries(shop: Shop, webhook_id: WebhookArgument, limit: LimitOption = 50) -> None:
    """List the deliveries of a webhook in the last week, those of the newest events first."""
    request = pb.ListDeliveriesRequest(webhook_id=webhook_id)
    found = shop.rows(SERVICE, WebhookServiceStub, "ListDeliveries", request, limit)
    with shop.listing("deliveries", DELIVERIES) as row:
        async for each in found:
            state = enum_name(pb.DeliveryState.items(), each.state)
            what = (each.event_type.rpartition(".")[2], each.key, f"{each.attempts}x", each.error)
            row(each, DELIVERIES.line(each.message_id, format_time(each.updated_at), state, *what))


@app.command()
@with_shop
async def update(
    shop: Shop,
    webhook_id: WebhookArgument,
    pause: Annotated[
        bool | None, typer.Option("--pause/--resume", help="Send nothing, or send again.")
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate-secret", help="A new secret, which is printed.")
    ] = False,
    key: KeyOption = "",
) -> None:
    """Pause a webhook, resume one that is paused or off, or give it a new secret."""
    states = {None: "UNSPECIFIED", True: "PAUSED", False: "ACTIVE"}
    state = pb.WebhookState.Value(f"WEBHOOK_STATE_{states[pause]}")
    request = pb.UpdateWebhookRequest(webhook_id=webhook_id, state=state, rotate_secret=rotate)
    made = await shop.change(SERVICE, WebhookServiceStub, "UpdateWebhook", request, key)
    shop.print(made, *_lines(made.webhook), *([f"secret     {made.secret}"] if rotate else []))


@app.command()
@with_shop
async def delete(shop: Shop, webhook_id: WebhookArgument, key: KeyOption = "") -> None:
    """Remove a webhook."""
    request = pb.DeleteWebhookRequest(webhook_id=webhook_id)
    await shop.change(SERVICE, WebhookServiceStub, "DeleteWebhook", request, key)
    shop.print(request, f"{webhook_id} is removed")


@app.command("test")
@with_shop
async def send_test(shop: Shop, webhook_id: WebhookArgument, key: KeyOption = "") -> None:
    """Send a delivery of type webhook.test.

    Exit code: 0 the receiver took it, 5 it did not.
    """
    request = pb.TestWebhookRequest(webhook_id=webhook_id)
    said = await shop.change(SERVICE, WebhookServiceStub, "TestWebhook", request, key)
    if not said.delivered:
        raise CommandError(f"not delivered: {said.error}", ExitCode.REFUSED)
    shop.print(said, f"delivered in {said.took.ToMilliseconds()} ms")


@app.command()
@with_shop
async def replay(
    shop: Shop,
    webhook_id: WebhookArgument,
    since: Annotated[datetime, typer.Option(help="From here on; UTC.")],
    until: Annotated[datetime | None, typer.Option(help="Up to here; UTC. By default now.")] = None,
    key: KeyOption = "",
) -> None:
    """Send again what happened in a range of time, and follow that to its end.

    Exit code: 0 all deliveries have begun, 5 they have not.
    """
    bounds = {"since": Timestamp(), "until": Timestamp()}
    bounds["since"].FromDatetime(since.replace(tzinfo=UTC))
    bounds["until"].FromDatetime((until or datetime.now(UTC)).replace(tzinfo=UTC))
    request = pb.ReplayWebhookRequest(webhook_id=webhook_id, **bounds)
    begun = await shop.change(SERVICE, WebhookServiceStub, "ReplayWebhook", request, key)
    await follow(shop, SERVICE, begun.operation.operation_id)


def _lines(webhook: pb.Webhook) -> list[str]:
    return format_fields(
        webhook=webhook.webhook_id,
        url=webhook.url,
        events=", ".join(webhook.event_types),
        condition=webhook.condition,
        state=enum_name(pb.WebhookState.items(), webhook.state),
        reason=webhook.reason,
    )
