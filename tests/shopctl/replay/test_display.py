"""What a replay shows of itself."""

import io

from rich.console import Console

from shop.orders.v1.orders_pb2 import (
    ORDER_STATUS_CONFIRMED,
    ORDER_STATUS_CREATED,
    ORDER_STATUS_REJECTED,
    StreamOrderUpdatesResponse,
)
from shopctl.replay import display
from shopctl.replay.reconcile import Check, Difference, Unit, Verdict
from shopctl.replay.report import MAX_DIFFERENCES, amount, table
from shopctl.replay.tally import DRIVING, Tally


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_plain_lines() -> None:
    """Without a terminal: two lines per stage, and one per twentieth of the orders."""
    tally, output = Tally(100), io.StringIO()
    with display.lines(tally, output):
        tally.begin("creating customers", 50)
        for _ in range(50):
            tally.step()
        tally.begin(DRIVING, 100)
        for number in range(1, 101):
            tally.placed_one()
            tally.updated(number, StreamOrderUpdatesResponse(status=ORDER_STATUS_CONFIRMED))
            tally.step()
    lines = output.getvalue().splitlines()
    assert len(lines) == 2 + 21
    assert lines[:2] == ["creating customers 0/50", "creating customers 50/50"]
    assert lines[2] == "placing orders 0/100; placed 0"
    assert lines[12] == "placing orders 50/100; placed 50, confirmed 50"
    assert lines[-1] == "placing orders 100/100; placed 100, confirmed 100"


def test_panel_counts_by_status() -> None:
    """The panel shows the stage and how many orders are in which state."""
    tally = Tally(3)
    tally.begin(DRIVING, 3)
    for number, status in ((1, ORDER_STATUS_CREATED), (2, ORDER_STATUS_REJECTED)):
        tally.placed_one()
        tally.updated(number, StreamOrderUpdatesResponse(status=status))
    tally.updated(1, StreamOrderUpdatesResponse(status=ORDER_STATUS_CONFIRMED))
    tally.retried("UNAVAILABLE")
    text = shown(display.panel(tally))
    assert "placing orders" in text
    assert "0/3" in text
    assert "placed 2/3  confirmed 1  rejected 1  repeated: UNAVAILABLE 1" in text
    assert tally.ended == 2


def test_amounts() -> None:
    """Cents are printed as dollars with two digits, exactly, whatever their size."""
    assert amount(123456789012345678, Unit.CENTS) == "1,234,567,890,123,456.78"
    assert amount(5, Unit.CENTS) == "0.05"
    assert amount(-105, Unit.CENTS) == "-1.05"
    assert amount(1234, Unit.UNITS) == "1,234"


def test_table_names_what_differs() -> None:
    """The table shows both sides of each sum and the rows that differ, up to a bound."""
    rows = [Difference(f"order {n}", "payments", "captured", "1", "2") for n in range(60)]
    verdict = Verdict([Check("payments", "captured", Unit.CENTS, 100, 199)], rows)
    text = shown(table(verdict))
    assert "payments  captured    1.00         1.99  USD   DIFFERS" in text
    assert text.count("order ") == MAX_DIFFERENCES
    assert "and 10 more" in text
