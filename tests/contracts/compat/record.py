"""Records the events of real orders at a release: `python -m tests.contracts.compat.record FOLDER`.

Starts the servers that the folder of the release keeps, lets orders take every way there is, and
writes what their database has of each, with the order as the servers show it, to `FOLDER/events`.
"""

import argparse
import base64
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2

from accord.v1 import policy_pb2
from accord_runtime.grpc.ids import uuid7
from tests.contracts.compat import version
from tests.contracts.compat.client import running_client
from tests.contracts.compat.rows import ORDERS, PAYMENTS, SAGAS, SHIPPING
from tests.contracts.compat.servers import servers
from tests.contracts.compat.world import NOWHERE, PRICE, World
from tools import releases

Way = Callable[[World], tuple[str, str]]

PUBLISHING: Final = ("orders", "payments", "inventory", "shipping")
"""Services that have events."""

COLUMNS: Final = (
    "event_id, position, key, sequence, type, version, subject, payload, causation_id, trace,"
    " occurred_at"
)


def _placed(ending: str, **changes: Any) -> Way:
    """The way of an order that is only placed."""

    def walk(world: World) -> tuple[str, str]:
        return world.place(**changes), ending

    return walk


def _items(**changes: Any) -> list[dict[str, Any]]:
    return [{"sku": "tea", "quantity": 1, "unit_price": PRICE, **changes}]


def _noted(world: World) -> tuple[str, str]:
    order_id = world.place()
    assert world.ending(order_id) == "ORDER_STATUS_CONFIRMED"
    for text in ("Rang twice", "Grüße 你好"):
        note = {"order_id": order_id, "add_note": text}
        world.call(f"{ORDERS}BulkUpdateOrders", note, key=uuid7())
    return order_id, "CONFIRMED"


def _cancelled(world: World) -> tuple[str, str]:
    order_id = world.place(card_token="tok_slow")
    cancel = {"order_id": order_id, "reason": "Too slow"}
    world.call(f"{ORDERS}CancelOrder", cancel, key=uuid7())
    world.call(f"{SHIPPING}CancelShipment", {"order_id": order_id})
    return order_id, "CANCELLED"


def _compensated(world: World) -> tuple[str, str]:
    order_id = world.place(card_token="tok_slow")
    turn = {"saga_id": order_id, "reason": "as agreed"}
    world.call(f"{SAGAS}CompensateSaga", turn, target="orders", key=uuid7())
    return order_id, "CANCELLED"


def _refunded(world: World) -> tuple[str, str]:
    order_id = world.place(card_token="tok_slow")
    world.call(f"{PAYMENTS}Refund", {"order_id": order_id})
    return order_id, "FAILED"


def _by_hand(world: World) -> tuple[str, str]:
    world.behave("CARRIER", "FAIL")
    order_id = world.place()
    world.fails_at(order_id, "ship")
    world.parked(order_id)
    world.behave("CARRIER", "NORMAL")
    skip = {"saga_id": order_id, "reason": "as agreed", "step": "ship"}
    world.call(f"{SAGAS}SkipStep", skip, target="orders", key=uuid7())
    return order_id, "CONFIRMED"


WAYS: Final[dict[str, Way]] = {
    # First, because for a moment nothing can be shipped.
    "confirmed_and_shipped_by_hand": _by_hand,
    "confirmed": _placed("CONFIRMED"),
    "confirmed_with_notes": _noted,
    "rejected_out_of_stock": _placed("REJECTED", items=_items(quantity=10000)),
    "rejected_unknown_product": _placed("REJECTED", items=_items(sku="unknown")),
    "rejected_price_changed": _placed(
        "REJECTED", items=_items(unit_price={"minor_units": "1", "currency_code": "EUR"})
    ),
    "failed_card_declined": _placed("FAILED", card_token="tok_declined"),
    "failed_no_carrier": _placed("FAILED", ship_to=NOWHERE),
    "failed_and_refunded_by_others": _refunded,
    "cancelled_by_the_customer": _cancelled,
    "cancelled_by_the_shop": _compensated,
}
"""Name -> the way of an order, and the status that it ends with."""


def record(folder: Path) -> None:
    """Write the events of an order of each way.

    Raises:
        RuntimeError: an event type of the contracts is in none of them.
    """
    with tempfile.TemporaryDirectory() as work:
        code = version.kept(folder, Path(work, "code"))
        with (
            servers(Path(work, "home"), code) as shop,
            running_client(code, shop.targets, shop.home) as client,
        ):
            world = World(shop, client)
            walks = {name: walk(world) for name, walk in WAYS.items()}
            orders = {}
            for name, (order_id, ending) in walks.items():
                assert world.ending(order_id) == f"ORDER_STATUS_{ending}", name
                orders[name] = world.call(f"{ORDERS}GetOrder", {"order_id": order_id})["order"]
        logs = {
            name: {
                service: _log(Path(work, "home", f"{service}.db"), order["order_id"])
                for service in PUBLISHING
            }
            for name, order in orders.items()
        }
    written = {
        event["type"] for services in logs.values() for log in services.values() for event in log
    }
    if missing := event_types(releases.image_of(folder)) - written:
        raise RuntimeError(f"no order has {', '.join(sorted(missing))}: add a way to {__file__}")
    (folder / "events").mkdir()
    for name, services in logs.items():
        kept = {"order": orders[name], "events": services.pop("orders"), "others": services}
        text = json.dumps(kept, indent=1, ensure_ascii=False)
        (folder / "events" / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def event_types(image: Path) -> set[str]:
    """Full names of the events of an image."""
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    return {
        f"{file.package}.{message.name}"
        for file in files
        for message in file.message_type
        if message.options.HasExtension(policy_pb2.event)
    }


def _log(file: Path, order_id: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute(
            f"SELECT {COLUMNS} FROM events WHERE key = ? ORDER BY sequence", (order_id,)
        )
        return [
            {**row, "payload": base64.b64encode(row["payload"]).decode()} for row in map(dict, rows)
        ]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of contracts/released")
    record(parser.parse_args().folder.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
