"""Every event that was ever written can be folded: the events of real orders of each release."""

import base64
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from accord_runtime import process
from accord_runtime.database import Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events.outbox import of_key
from accord_runtime.events.record import envelope
from services.notifications import domain as mails
from shop.common.v1.event_pb2 import EventRecord
from shop.orders.v1 import events_pb2
from tests.contracts.compat.comparison import covers
from tests.contracts.compat.record import COLUMNS, event_types
from tests.services.orders.books import refold
from tools import releases

FILES: Final = [
    file for folder in releases.released().values() for file in (folder / "events").iterdir()
]
MAILS: Final[Mapping[type[Message], Callable[[Any], mails.News]]] = {
    events_pb2.OrderConfirmed: mails.confirmed,
    events_pb2.OrderRejected: mails.rejected,
    events_pb2.OrderFailed: mails.failed,
    events_pb2.OrderCancelled: mails.cancelled,
}
"""Event -> what the notifications make of it."""


def name_of(file: Path) -> str:
    """Release and way of an order."""
    return f"{file.parent.parent.name}-{file.stem}"


def rows(file: Path) -> list[dict[str, Any]]:
    """The events of a file, as rows of the table that they were in."""
    return [
        {**row, "payload": base64.b64decode(row["payload"])}
        for row in json.loads(file.read_text())["events"]
    ]


def all_rows(file: Path) -> list[dict[str, Any]]:
    """The same, and those that other services have of the order; 0.1.0 had none."""
    others = json.loads(file.read_text()).get("others", {}).values()
    return [*rows(file), *itertools.chain(*others)]


def kept_order(file: Path) -> dict[str, Any]:
    """The order as the released servers showed it."""
    order: dict[str, Any] = json.loads(file.read_text())["order"]
    return order


@pytest.mark.parametrize("version", releases.released())
def test_every_released_event_was_recorded(version: str) -> None:
    """No event type of a release is without a record of it."""
    folder = releases.released()[version]
    recorded = {row["type"] for file in (folder / "events").iterdir() for row in all_rows(file)}
    assert recorded == event_types(releases.image_of(folder))


@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_an_order_is_the_fold_of_its_events(file: Path, tmp_path: Path) -> None:
    """Today's code folds released events, in today's database, into the order that it was then."""
    database = await open_database(f"sqlite:///{tmp_path}/orders.db", "orders")
    try:
        await migrate(database, "runtime", process.MIGRATIONS)
        written = rows(file)

        def insert(tx: Tx) -> None:
            values = ", ".join(f":{column.strip()}" for column in COLUMNS.split(","))
            for row in written:
                tx.execute(f"INSERT INTO events ({COLUMNS}) VALUES ({values})", row)

        await database.write(insert)
        key = written[0]["key"]
        order = await database.read(lambda tx: refold(tx, key))
        stored = await database.read(lambda tx: of_key(tx, key))
    finally:
        await database.close()
    folded = json_format.MessageToDict(
        order, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert covers(folded, kept_order(file))
    for event, row in zip(stored, written, strict=True):
        record = EventRecord.FromString(EventRecord(**envelope(event)).SerializeToString())
        assert (record.event_id, record.sequence) == (row["event_id"], row["sequence"])
        payload = type(event.message())()
        assert record.payload.Unpack(payload)
        assert payload == event.message()
        kept = type(payload).FromString(row["payload"])
        if isinstance(kept, events_pb2.OrderPlaced):
            # 0.1.0 published it; whoever reads the record does not see it.
            assert bool(kept.card_token) == name_of(file).startswith("0.1.0-")
            kept.ClearField("card_token")
        assert payload.SerializeToString() == kept.SerializeToString()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_customer_is_told_of_a_released_ending(file: Path) -> None:
    """The event with which a released order has ended still becomes a mail about that order."""
    ending = rows(file)[-1]
    if ending["type"] == "shop.orders.v1.OrderNoteAdded":
        ending = next(row for row in rows(file) if row["type"].endswith(".OrderConfirmed"))
    kinds = {kind.DESCRIPTOR.full_name: kind for kind in MAILS}
    kind = kinds[ending["type"]]
    news = MAILS[kind](kind.FromString(ending["payload"]))
    assert news.order_id == ending["key"]
    assert news.customer_id == kept_order(file)["customer_id"]
    assert kept_order(file)["status"] == f"ORDER_STATUS_{news.outcome}"
    assert ending["key"] in news.subject
