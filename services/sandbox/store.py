"""The tables of the sandbox, and its ledger."""

from accord_runtime.database import Row, Tx
from accord_runtime.grpc.types import timestamp
from shop.common.v1.money_pb2 import Money
from shop.sandbox.v1.sandbox_pb2 import EntryKind, ReadLedgerResponse

MIGRATIONS = [
    """
    CREATE TABLE ledger (
        number BIGINT PRIMARY KEY,
        kind BIGINT NOT NULL,
        key TEXT NOT NULL,
        reference TEXT NOT NULL,
        minor_units BIGINT,
        currency_code TEXT,
        units BIGINT NOT NULL,
        at DOUBLE PRECISION NOT NULL,
        UNIQUE (kind, key)
    )
    """,
    "CREATE INDEX ledger_by_reference ON ledger (reference, number)",
    "CREATE TABLE ledger_head (number BIGINT NOT NULL)",
    "INSERT INTO ledger_head (number) VALUES (0)",
    """
    CREATE TABLE captures (
        key TEXT PRIMARY KEY,
        reference TEXT NOT NULL,
        state TEXT NOT NULL,
        capture_id TEXT NOT NULL,
        minor_units BIGINT,
        currency_code TEXT,
        decline_reason TEXT NOT NULL
    )
    """,
    "CREATE TABLE flaky_captures (key TEXT PRIMARY KEY, calls BIGINT NOT NULL)",
    """
    CREATE TABLE parcels (
        key TEXT PRIMARY KEY,
        reference TEXT NOT NULL,
        state TEXT NOT NULL,
        tracking_number TEXT NOT NULL,
        units BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE behaviors (
        party BIGINT PRIMARY KEY,
        behavior BIGINT NOT NULL,
        delay DOUBLE PRECISION NOT NULL,
        calls_left BIGINT
    )
    """,
]


def append_entry(
    tx: Tx,
    kind: "EntryKind.ValueType",
    key: str,
    reference: str,
    now: float,
    *,
    amount: Money | None = None,
    units: int = 0,
) -> None:
    """Add an entry to the ledger.

    Numbers are dense and become visible in order: whoever holds the head's row is the only one who
    appends until its transaction is over. A reader that goes on from a number misses nothing.
    """
    tx.insert(
        "ledger",
        {
            "number": tx.value("UPDATE ledger_head SET number = number + 1 RETURNING number"),
            "kind": kind,
            "key": key,
            "reference": reference,
            "minor_units": amount.minor_units if amount else None,
            "currency_code": amount.currency_code if amount else None,
            "units": units,
            "at": now,
        },
    )


def ledger_head(tx: Tx) -> int:
    """Number of the last entry; 0 when there is none."""
    head: int = tx.value("SELECT number FROM ledger_head")
    return head


def read_entries(
    tx: Tx, after: int, up_to: int, reference: str, limit: int
) -> list[ReadLedgerResponse]:
    """The next entries after a number, oldest first; an empty `reference` stands for all."""
    rows = tx.all(
        "SELECT * FROM ledger WHERE number > :after AND number <= :up_to"
        + (" AND reference = :reference" if reference else "")
        + " ORDER BY number LIMIT :limit",
        {"after": after, "up_to": up_to, "reference": reference, "limit": limit},
    )
    return [
        ReadLedgerResponse(
            number=row["number"],
            kind=row["kind"],
            key=row["key"],
            reference=row["reference"],
            amount=money_of(row),
            units=row["units"],
            at=timestamp(row["at"]),
        )
        for row in rows
    ]


def money_of(row: Row) -> Money | None:
    """The amount in a row, if it has one."""
    if row["currency_code"] is None:
        return None
    return Money(minor_units=row["minor_units"], currency_code=row["currency_code"])
