"""`shopctl audit`."""

from collections.abc import Sequence
from typing import Annotated

import grpc.aio
import typer

from accord.ops.v1.audit_pb2 import AuditRecord, ListAuditRequest
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import format_time, one_line, print_json
from shopctl.options import JsonOption, LimitOption, ServiceOption

app = typer.Typer()


@app.command()
@with_shop
async def audit(
    shop: Shop,
    service: ServiceOption = "orders",
    target: Annotated[
        str, typer.Option(metavar="ID", help="Only what was done to this work or saga.")
    ] = "",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who has intervened in a service and why, newest first."""

    async def read(
        channel: grpc.aio.Channel, size: int, token: str
    ) -> tuple[Sequence[AuditRecord], str]:
        request = ListAuditRequest(page_size=size, page_token=token, target=target)
        page = await AuditServiceStub(channel).ListAudit(request)
        return page.records, page.next_page_token

    async for record in shop.rows(service, read, limit):
        if as_json:
            print_json(record)
            continue
        what = record.method.rpartition("/")[2]
        at = format_time(record.at)
        typer.echo(f"{at}  {record.principal}  {what}  {record.target}  {record.reason}")
        for name, text in (("before", record.before), ("after", record.after)):
            typer.echo(f"  {name:<6}  {one_line(text)}")
