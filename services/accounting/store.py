"""The ledger in the database: it is only added to, and only with what balances."""

import json
from dataclasses import asdict
from typing import Any, Final

from accord_runtime.database import Row, Tx
from accord_runtime.grpc.ids import derived
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import timestamp
from services.accounting.domain import TYPES, Known, Posting
from shop.accounting.v1 import accounting_pb2 as pb

MIGRATIONS: Final = [
    """
    CREATE TABLE ledger_transaction (
        transaction_id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        order_id TEXT NOT NULL,
        event_id TEXT NOT NULL,
        occurred_at DOUBLE PRECISION NOT NULL,
        posted_at DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX ledger_transaction_order ON ledger_transaction (order_id, transaction_id)",
    """
    CREATE TABLE ledger_entry (
        transaction_id TEXT NOT NULL,
        line BIGINT NOT NULL,
        account BIGINT NOT NULL,
        currency TEXT NOT NULL,
        amount BIGINT NOT NULL,
        order_id TEXT NOT NULL,
        occurred_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (transaction_id, line)
    )
    """,
    "CREATE INDEX ledger_entry_order ON ledger_entry (order_id)",
    """
    CREATE TABLE ledger_order (
        order_id TEXT NOT NULL PRIMARY KEY,
        known TEXT NOT NULL,
        unpaid BIGINT NOT NULL
    )
    """,
    "CREATE INDEX ledger_order_unpaid ON ledger_order (order_id) WHERE unpaid > 0",
]

_KIND: Final = "TRANSACTION_KIND_"


class UnbalancedError(ValueError):
    """A transaction whose entries do not sum up to zero in each currency, or that has none."""


def post(
    tx: Tx, order_id: str, posting: Posting, event_id: str, occurred_at: float, now: float
) -> None:
    """Write a transaction; once for each order and kind.

    Raises:
        UnbalancedError: it does not balance.
        Conflict: it is there already.
    """
    transaction_id = derived(order_id, f"ledger {posting.kind}")
    row = {"transaction_id": transaction_id, "order_id": order_id, "occurred_at": occurred_at}
    head = {"kind": posting.kind, "event_id": event_id, "posted_at": now}
    tx.insert("ledger_transaction", {**row, **head})
    for line, (account, amount) in enumerate(posting.debits.items(), start=1):
        entry = {"line": line, "account": account, "currency": posting.currency, "amount": amount}
        tx.insert("ledger_entry", {**row, **entry})
    # Of what is on record now, and not of what was meant to be.
    sums = tx.all(
        "SELECT currency, SUM(amount) AS amount FROM ledger_entry WHERE transaction_id = :id"
        " GROUP BY currency",
        {"id": transaction_id},
    )
    if not sums or any(each["amount"] for each in sums):
        raise UnbalancedError(f"{posting.kind} of order {order_id} does not balance: {sums}")


def known(tx: Tx, order_id: str, *, lock: bool = False) -> Known:
    """What is known of an order; `lock` keeps others from changing it before the commit."""
    if lock:
        empty = {"order_id": order_id, "known": json.dumps(asdict(Known())), "unpaid": 0}
        tx.insert("ledger_order", empty, on_conflict="DO NOTHING")
    sql = "SELECT known FROM ledger_order WHERE order_id = :id" + (tx.for_update if lock else "")
    values = json.loads(tx.value(sql, {"id": order_id}) or "{}")
    lists: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Known(**lists)


def keep(tx: Tx, order_id: str, now_known: Known) -> None:
    """Write down what is known of an order."""
    tx.execute(
        "UPDATE ledger_order SET known = :known, unpaid = :unpaid WHERE order_id = :id",
        {
            "id": order_id,
            "known": json.dumps(asdict(now_known)),
            "unpaid": int(now_known.captured is not None and now_known.paid is None),
        },
    )


def unpaid(tx: Tx, most: int) -> list[str]:
    """Orders for which money was taken, and of which orders has not said that they were paid."""
    sql = "SELECT order_id FROM ledger_order WHERE unpaid > 0 ORDER BY order_id LIMIT :most"
    return [row["order_id"] for row in tx.all(sql, {"most": most})]


def of_order(tx: Tx, order_id: str) -> dict[tuple[int, str], int]:
    """(Account, currency) -> debits less credits, for one order."""
    rows = tx.all(
        "SELECT account, currency, SUM(amount) AS amount FROM ledger_entry"
        " WHERE order_id = :id GROUP BY account, currency",
        {"id": order_id},
    )
    return {(row["account"], row["currency"]): row["amount"] for row in rows}


def balances(tx: Tx, as_of: float, account: int = 0) -> list[pb.Balance]:
    """The sums of each account and currency, of what had happened by a time; 0: of all accounts."""
    rows = tx.all(
        "SELECT account, currency,"
        " SUM(CASE WHEN amount > 0 THEN amount ELSE 0 END) AS debit,"
        " SUM(CASE WHEN amount < 0 THEN -amount ELSE 0 END) AS credit FROM ledger_entry"
        " WHERE occurred_at <= :as_of AND (account = :account OR :account = 0)"
        " GROUP BY account, currency ORDER BY account, currency",
        {"as_of": as_of, "account": account},
    )
    return [
        pb.Balance(type=TYPES[row["account"]], currency_code=row.pop("currency"), **row)
        for row in rows
    ]


def transactions(tx: Tx, asked: Page, order_id: str) -> tuple[list[pb.Transaction], str]:
    """A page of transactions, newest first, and the token of the next; "": of any order."""
    rows, token = asked.read(
        tx,
        "SELECT * FROM ledger_transaction",
        "transaction_id",
        equal={"order_id": order_id},
        newest_first=True,
    )
    return [_transaction(tx, row) for row in rows], token


def _transaction(tx: Tx, row: Row) -> pb.Transaction:
    sql = (
        "SELECT * FROM ledger_entry WHERE transaction_id = :id AND order_id = :order ORDER BY line"
    )
    found = tx.all(sql, {"id": row["transaction_id"], "order": row["order_id"]})
    return pb.Transaction(
        transaction_id=row["transaction_id"],
        kind=pb.TransactionKind.Value(_KIND + row["kind"]),
        order_id=row["order_id"],
        event_id=row["event_id"],
        occurred_at=timestamp(row["occurred_at"]),
        posted_at=timestamp(row["posted_at"]),
        entries=[
            pb.Entry(
                account=each["account"],
                currency_code=each["currency"],
                debit=max(each["amount"], 0),
                credit=max(-each["amount"], 0),
            )
            for each in found
        ],
    )
