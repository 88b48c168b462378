"""What `shopctl order trace` does."""

import asyncio
from typing import Final

import typer

from accord.ops.v1.trace_pb2 import FindTracesRequest, FoundTrace, ListSpansRequest
from shopctl import common, show, timeline
from shopctl.client import Shop
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.operator_options import NAMES
from shopctl.timeline import Recorded

MAX_PAGE: Final = 500


async def trace(shop: Shop, order_id: str, *, everything: bool, as_json: bool) -> None:
    """Prints the timeline of an order: the call that placed it, or all that it has led to."""
    async with shop.calling("orders"):
        found = await shop.traces("orders").FindTraces(FindTracesRequest(key=order_id))
    if not found.traces:
        raise CommandError(f"there is no order {order_id}", ExitCode.REFUSED)
    printed = False
    for each in found.traces if everything else found.traces[:1]:
        printed |= await _trace(shop, each, everything=everything, as_json=as_json)
    if not printed:
        raise CommandError(
            f"no service has spans of order {order_id} any more: they keep the last 2,000 each,"
            " until they end",
            ExitCode.REFUSED,
        )


async def _trace(shop: Shop, found: FoundTrace, *, everything: bool, as_json: bool) -> bool:
    answers = await asyncio.gather(*(_spans(shop, name, found.trace_id) for name in NAMES))
    silent = [name for name, spans in zip(NAMES, answers, strict=True) if spans is None]
    lines = timeline.tree(span for spans in answers for span in spans or ())
    shown = lines if everything else timeline.synchronous(lines)
    if as_json:
        for line in shown:
            show.as_json(line.recorded.span, service=line.recorded.service)
    elif shown:
        events = ", ".join(name.rpartition(".")[2] for name in found.event_types)
        typer.echo(f"trace {found.trace_id}  {show.moment(found.at)}  {events}")
        typer.echo(timeline.render(shown, colour=common.wants_colour(), width=common.width()))
        if len(shown) < len(lines):
            typer.echo(f"{len(lines) - len(shown)} more in the background: --all")
    if silent:
        typer.echo(f"shopctl: no answer from {', '.join(silent)}", err=True)
    return bool(shown)


async def _spans(shop: Shop, service: str, trace_id: str) -> list[Recorded] | None:
    """The spans that a service still has, or None if it does not answer."""
    found: list[Recorded] = []
    token = ""
    while True:
        request = ListSpansRequest(trace_id=trace_id, page_size=MAX_PAGE, page_token=token)
        try:
            async with shop.calling(service):
                page = await shop.traces(service).ListSpans(request)
        except CommandError:
            return None
        found += (Recorded(service, span) for span in page.spans)
        token = page.next_page_token
        if not token:
            return found
