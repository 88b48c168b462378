"""`shopctl replay`."""

import json
import sys
from typing import Annotated

import typer

from shopctl.client import running_offset
from shopctl.errors import ExitCode
from shopctl.options import DEFAULT_HOME, FulfilmentOption, HomeOption, JsonOption, ShopOffsetOption
from shopctl.replay import report, session
from shopctl.replay.progress import Tally, TallyProgress, printed_lines
from shopctl.terminal import is_terminal

app = typer.Typer()


@app.command()
def replay(
    orders: Annotated[int, typer.Option("--orders", "-n", min=1, help="How many orders.")] = 100,
    concurrency: Annotated[
        int,
        typer.Option("--concurrency", "-c", min=1, max=256, help="Orders under way at a time."),
    ] = 16,
    declined: Annotated[
        float,
        typer.Option(min=0, max=100, metavar="PCT", help="Share of orders whose card is declined."),
    ] = 5.0,
    short: Annotated[
        float,
        typer.Option(
            "--short-stock", min=0, max=100, metavar="PCT", help="Share of orders that lack stock."
        ),
    ] = 5.0,
    card: Annotated[
        str,
        typer.Option(
            metavar="TOKEN",
            help="Card of the others: tok_slow, tok_flaky and tok_lost work in the end, too.",
        ),
    ] = "tok_good",
    fulfilment: FulfilmentOption = "orchestrated",
    seed: Annotated[int, typer.Option(help="The same seed draws the same orders.")] = 1,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for everything.")] = 300.0,
    scale_factor: Annotated[
        float, typer.Option(min=0.001, max=10, help="Of TPC-H: 0.01 has 15,000 orders.")
    ] = 0.01,
    home: HomeOption = DEFAULT_HOME,
    offset: ShopOffsetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put real orders (TPC-H) through the shop and reconcile every book to the cent.

    Services may be killed meanwhile: every call is repeated, with the same idempotency key, until
    it is answered. Needs the extra "replay" of accord-shop.

    Exit code: 0 all books agree, 1 they do not, 4 the shop does not run, 7 time was up.
    """
    settings = session.Settings(
        orders=orders,
        concurrency=concurrency,
        declined=declined,
        short=short,
        card=card,
        fulfilment=fulfilment,
        seed=seed,
        timeout=timeout,
        scale_factor=scale_factor,
        offset=running_offset(home, offset) or 0,
        home=home,
    )
    tally = Tally(orders)
    people = is_terminal() and not as_json
    with TallyProgress(tally) if people else printed_lines(tally, sys.stderr):
        result = session.replay(settings, tally)
    if as_json:
        typer.echo(json.dumps(report.as_json(settings, result, tally)))
    else:
        console = report.console()
        console.print(report.table(result.verdict))
        console.print(report.summary(settings, result, tally))
    if not result.verdict.agrees:
        raise typer.Exit(ExitCode.FAILED)
