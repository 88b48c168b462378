"""The view of sales: its rows, what events do to them, and what is read from them."""

import json
from collections import defaultdict
from dataclasses import asdict
from typing import Final

from accord_runtime.database import Tx
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.views import Change, View
from services.analytics import domain
from services.analytics.domain import COLUMNS, Cell, Sale
from shop.analytics.v1 import analytics_pb2 as pb
from shop.orders.v1.events_pb2 import OrderNoteAdded

MIGRATIONS: Final = [
    """
    CREATE TABLE sale (
        generation BIGINT NOT NULL,
        order_id TEXT NOT NULL,
        facts TEXT NOT NULL,
        PRIMARY KEY (generation, order_id)
    )
    """,
    # A sum that no number of 64 bits holds fails here, on both databases, and is no other number.
    f"""
    CREATE TABLE metric (
        generation BIGINT NOT NULL,
        hour TEXT NOT NULL,
        dimension TEXT NOT NULL,
        value TEXT NOT NULL,
        currency TEXT NOT NULL,
        revision BIGINT NOT NULL,
        {", ".join(f"{column} BIGINT NOT NULL DEFAULT 0" for column in COLUMNS)},
        PRIMARY KEY (generation, hour, dimension, value, currency),
        CHECK (ordered <= 9000000000000000000)
    )
    """,
]

_LABELS: Final = {
    pb.DIMENSION_HOUR: ("TIME", "hour"),
    pb.DIMENSION_DAY: ("TIME", "SUBSTR(hour, 1, 10)"),
    pb.DIMENSION_PRODUCT: ("PRODUCT", "value"),
    pb.DIMENSION_COUNTRY: ("COUNTRY", "value"),
    pb.DIMENSION_STATUS: ("STATUS", "value"),
}
"""Dimension of the contract -> the one on record, and what stands for its value."""

Query = pb.QueryMetricsRequest | pb.WatchMetricsRequest


def _apply(tx: Tx, change: Change) -> None:
    event = change.event
    found = tx.value(
        "SELECT facts FROM sale WHERE generation = :generation AND order_id = :order_id",
        {"generation": change.generation, "order_id": event.key},
    )
    before = _sale(found) if found else None
    after = domain.after(before, event.payload, event.occurred_at)
    if after is None:
        return  # What it was before is older than what the broker keeps; a rebuild finds it.
    added = domain.cells(after)
    added.subtract(domain.cells(before))
    rows: dict[Cell, dict[str, int]] = defaultdict(dict)
    for (cell, column), number in added.items():
        if number:
            rows[cell][column] = number
    for cell, numbers in rows.items():
        _add(tx, change, cell, numbers)
    row = {"generation": change.generation, "order_id": event.key}
    tx.insert(
        "sale",
        {**row, "facts": json.dumps(asdict(after))},
        on_conflict="(generation, order_id) DO UPDATE SET facts = excluded.facts",
    )


SALES: Final = View(
    name="sales",
    version=1,
    # A note changes no number; that it is there is what its writer may ask for.
    apply={**dict.fromkeys(domain.STATUS, _apply), OrderNoteAdded: lambda tx, change: None},
    tables={"sale": "order_id", "metric": "hour"},
)
"""The metrics of orders, by the hour in which they were placed."""


def _add(tx: Tx, change: Change, cell: Cell, numbers: dict[str, int]) -> None:
    names = ("hour", "dimension", "value", "currency")
    sums = ", ".join(f"{column} = metric.{column} + excluded.{column}" for column in numbers)
    tx.insert(
        "metric",
        {
            "generation": change.generation,
            "revision": change.revision,
            **dict(zip(names, cell, strict=True)),
            **numbers,
        },
        on_conflict=f"(generation, {', '.join(names)}) DO UPDATE SET"
        f" revision = excluded.revision, {sums}",
    )


def _sale(facts: str) -> Sale:
    values = json.loads(facts)
    values["items"] = tuple(map(tuple, values["items"]))
    return Sale(**{**values, "stages": tuple(values["stages"])})


def page(tx: Tx, asked: Page, query: Query, generation: int) -> tuple[list[pb.Metric], str]:
    """A page of metrics, by value and currency, and the token of the next."""
    grouped, params = _grouped(query, generation, "HAVING SUM(placed) > 0")
    rows, token = asked.read(tx, f"SELECT * FROM ({grouped}) AS metrics", "id", params=params)
    return [_metric(row) for row in rows], token


def changed(tx: Tx, query: Query, generation: int, after: int, most: int) -> list[pb.Metric]:
    """The metrics that have changed after a revision, those that are 0 now too; 0: all but those.

    No more than `most`.
    """
    having = "HAVING MAX(revision) > :after" if after else "HAVING SUM(placed) > 0"
    grouped, params = _grouped(query, generation, having)
    rows = tx.all(f"{grouped} ORDER BY id LIMIT :most", {**params, "after": after, "most": most})
    return [_metric(row) for row in rows]


def _grouped(query: Query, generation: int, having: str) -> tuple[str, dict[str, object]]:
    dimension, label = _LABELS[query.dimension]
    sums = ", ".join(f"SUM({column}) AS {column}" for column in COLUMNS)
    start = domain.hour(query.start_time.seconds) if query.HasField("start_time") else "0000"
    end = domain.hour(query.end_time.seconds) if query.HasField("end_time") else "9999"
    return (
        f"SELECT {label} || ' ' || currency AS id, {label} AS value, currency, {sums} FROM metric"
        " WHERE generation = :generation AND dimension = :dimension"
        f" AND hour >= :start AND hour < :end GROUP BY {label}, currency {having}",
        {"generation": generation, "dimension": dimension, "start": start, "end": end},
    )


def _metric(row: dict[str, int | str]) -> pb.Metric:
    values = {column: int(row[column]) for column in COLUMNS}
    sums = {column: values.pop(column) for column in ("units", "ordered", "revenue")}
    return pb.Metric(
        value=str(row["value"]),
        currency_code=str(row["currency"]),
        orders=pb.Funnel(**values),
        **sums,
    )
