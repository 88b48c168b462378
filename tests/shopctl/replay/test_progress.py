"""How far a replay is, as it is shown."""

import io

from rich.console import Console

from shop.orders.v1.orders_pb2 import (
    ORDER_STATUS_CONFIRMED,
    ORDER_STATUS_CREATED,
    ORDER_STATUS_REJECTED,
    StreamOrderUpdatesResponse,
)
from shopctl.replay.progress import DRIVING, Tally, TallyProgress, printed_lines


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_plain_lines() -> None:
    """Without a terminal: two lines per stage, and one per twentieth of the orders."""
    tally, output = Tally(100), io.StringIO()
    with printed_lines(tally, output):
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
    text = shown(TallyProgress(tally))
    assert "placing orders" in text
    assert "0/3" in text
    assert "placed 2/3  confirmed 1  rejected 1  repeated: UNAVAILABLE 1" in text
    assert tally.ended == 2
