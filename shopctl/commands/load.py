"""`shopctl load`."""

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Annotated, Literal

import typer

from services import topology
from shopctl.client import Shop, with_shop
from shopctl.load import report
from shopctl.load.calls import SHARES, over_grpc, prepare
from shopctl.load.runner import Runner
from shopctl.load.schedule import arrivals
from shopctl.options import parse_duration

app = typer.Typer()


@app.command()
@with_shop
async def load(
    shop: Shop,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Calls a second.")] = 10.0,
    duration: Annotated[
        timedelta,
        typer.Option("--for", parser=parse_duration, metavar="TIME", help="How long: 30s, 5m, 1h."),
    ] = timedelta(seconds=30),
    most: Annotated[
        int, typer.Option(min=1, max=10_000, help="Calls open at a time; others are dropped.")
    ] = 1000,
    through: Annotated[
        Literal["grpc", "edge"],
        typer.Option(help="Services by gRPC, as the operator, or the edge by REST, as customers."),
    ] = "grpc",
    seed: Annotated[int, typer.Option(help="The same seed draws the same calls.")] = 1,
) -> None:
    """Call the shop at a rate that does not depend on its answers, and measure these.

    Of a hundred calls 20 place an order, 40 get one, 30 get a product and 10 watch an order until
    it ends. Latency is measured from when a call was due, to the first answer. Ctrl-C ends it
    early, with what was measured.
    """
    stage = await prepare(shop)
    async with AsyncExitStack() as stack:
        if through == "edge":
            from shopctl.load.edge_calls import over_edge  # which brings aiohttp

            url = f"http://{shop.address(topology.EDGE)}"
            calls = await stack.enter_async_context(over_edge(url, shop.home, stage))
        else:
            calls = over_grpc(shop, stage)
        runner = Runner(calls, most)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, runner.stop)
        shown = asyncio.create_task(_show(runner)) if sys.stderr.isatty() else None
        result = await runner.run(arrivals(rate, duration.total_seconds(), SHARES, seed))
    if shown is not None:
        shown.cancel()
        sys.stderr.write("\r\x1b[K")
    if shop.as_json:
        typer.echo(json.dumps({"through": through, **report.as_json(result, rate)}))
    else:
        typer.echo("\n".join(report.lines(result, most)))


async def _show(runner: Runner) -> None:
    clock = asyncio.get_running_loop().time
    start = clock()
    while True:
        sys.stderr.write(f"\r\x1b[K{report.progress(runner, clock() - start)}")
        sys.stderr.flush()
        await asyncio.sleep(0.5)
