"""`shopctl audit`."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from shopctl.common import DEFAULT_HOME, HomeOption, JsonOption, ShopOffsetOption
from shopctl.operator_options import LimitOption, ServiceOption

if TYPE_CHECKING:
    from accord.ops.v1.audit_pb2 import AuditRecord
    from shopctl.client import Shop

MAX_PAGE: Final = 500


def audit(
    service: ServiceOption = "orders",
    target: Annotated[
        str, typer.Option(metavar="ID", help="Only what was done to this work or saga.")
    ] = "",
    limit: LimitOption = 50,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who has intervened in a service and why, newest first."""
    from shopctl import client

    async def call(shop: "Shop") -> None:
        from accord.ops.v1.audit_pb2 import ListAuditRequest

        left, token = limit, ""
        while left > 0:
            request = ListAuditRequest(
                page_size=min(left, MAX_PAGE), page_token=token, target=target
            )
            async with shop.calling(service):
                page = await shop.audit(service).ListAudit(request)
            for record in page.records:
                _print(record, as_json)
            left -= len(page.records)
            token = page.next_page_token
            if not token:
                break

    client.run(home, offset, call)


def _print(record: "AuditRecord", as_json: bool) -> None:
    from shopctl import show, working

    if as_json:
        show.as_json(record)
        return
    what = record.method.rpartition("/")[2]
    typer.echo(
        f"{show.moment(record.at)}  {record.principal}  {what}  {record.target}  {record.reason}"
    )
    for name, text in (("before", record.before), ("after", record.after)):
        typer.echo(f"  {name:<6}  {working.harmless(text)}")
