"""`shopctl audit`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from grpc.aio import Channel

from accord.ops.v1.audit_pb2 import AuditRecord, ListAuditRequest
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import format_time
from shopctl.options import LimitOption, ServiceOption

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
) -> None:
    """Show who has intervened in a service and why, newest first."""

    async def read(channel: Channel, size: int, token: str) -> tuple[Sequence[AuditRecord], str]:
        request = ListAuditRequest(page_size=size, page_token=token, target=target)
        page = await AuditServiceStub(channel).ListAudit(request)
        return page.records, page.next_page_token

    async for record in shop.rows(service, read, limit):
        what = record.method.rpartition("/")[2]
        at = format_time(record.at)
        shop.print(
            record,
            f"{at}  {record.principal}  {what}  {record.target}  {record.reason}",
            f"  before  {record.before}",
            f"  after   {record.after}",
        )
