"""`shopctl report`."""

import csv
import io
from typing import Annotated

import typer

from shop.analytics.v1 import analytics_pb2 as pb
from shop.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from shopctl.client import Shop, with_shop
from shopctl.commands.operation import follow
from shopctl.options import KeyOption

app = typer.Typer()

SERVICE = "analytics"
_HEAD = ("of", "value", "placed", "confirmed", "units", "ordered", "revenue")


@app.command()
@with_shop
async def report(
    shop: Shop,
    month: Annotated[str, typer.Argument(metavar="YYYY-MM", help="When orders were placed; UTC.")],
    currency: Annotated[str, typer.Option(metavar="CCC", help="ISO 4217.")] = "EUR",
    key: KeyOption = "",
) -> None:
    """Have a month reported: a job of analytics, which is waited for.

    Prints CSV, amounts in minor units; with --json the message. Interrupted, it goes on: repeat the
    command with the same --key, or see `shopctl operation`.
    """
    request = pb.GenerateReportRequest(month=month, currency_code=currency)
    begun = await shop.change(SERVICE, AnalyticsServiceStub, "GenerateReport", request, key)
    operation = await follow(shop, SERVICE, begun.operation.operation_id, quietly=True)
    found = pb.MonthlyReport()
    operation.response.Unpack(found)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_HEAD)
    sections = ("day", found.days), ("product", found.products), ("country", found.countries)
    for name, metrics in (*sections, ("status", found.statuses)):
        for each in metrics:
            numbers = each.orders.placed, each.orders.confirmed
            rows.writerow((name, each.value, *numbers, each.units, each.ordered, each.revenue))
    shop.print(found, *text.getvalue().splitlines())
