"""`shopctl audit`."""

from typing import Annotated, Final

import typer

from accord.ops.v1.audit_pb2 import ListAuditRequest
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from shopctl.client import Shop, with_shop
from shopctl.formatting import Columns, format_time
from shopctl.options import LimitOption, ServiceOption

COLUMNS: Final = Columns(AT=19, WHO=10, WHAT=14, TARGET=36, REASON=0)

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
    with shop.listing("records", COLUMNS) as row:
        async for record in shop.rows(service, AuditServiceStub, "ListAudit", request, limit):
            at, what = format_time(record.at), record.method.rpartition("/")[2]
            line = COLUMNS.line(at, record.principal, what, record.target, record.reason)
            row(record, line, f"  before  {record.before}", f"  after   {record.after}")
