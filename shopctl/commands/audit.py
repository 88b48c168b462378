"""`shopctl audit`."""

from typing import Annotated

import typer

from accord.ops.v1.audit_pb2 import ListAuditRequest
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
    request = ListAuditRequest(target=target)
    async for record in shop.rows(service, AuditServiceStub, "ListAudit", request, limit):
        what = record.method.rpartition("/")[2]
        at = format_time(record.at)
        shop.print(
            record,
            f"{at}  {record.principal}  {what}  {record.target}  {record.reason}",
            f"  before  {record.before}",
            f"  after   {record.after}",
        )
