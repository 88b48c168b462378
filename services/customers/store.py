"""The customers in the database."""

from collections.abc import Iterable
from typing import Final

from accord_runtime.database import Row, Tx
from shop.common.v1.address_pb2 import Address
from shop.customers.v1.customers_pb2 import Customer

MIGRATIONS: Final = [
    """
    CREATE TABLE customer (
        number BIGINT NOT NULL PRIMARY KEY,
        customer_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        email TEXT NOT NULL,
        address BLOB NOT NULL,
        created_ns BIGINT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX customer_email ON customer (LOWER(email))",
    "CREATE TABLE last_number (number BIGINT NOT NULL)",
    "INSERT INTO last_number (number) VALUES (0)",
]


def insert(tx: Tx, customer: Customer) -> bool:
    """Add a customer; False when another one has the e-mail address.

    Numbers are handed out under a lock, so whoever has seen one of them misses none below it.
    """
    tx.execute("UPDATE last_number SET number = number + 1")
    added = tx.execute(
        "INSERT INTO customer (number, customer_id, name, email, address, created_ns)"
        " SELECT number, :id, :name, :email, :address, :created FROM last_number WHERE true"
        " ON CONFLICT DO NOTHING",
        {
            "id": customer.customer_id,
            "name": customer.name,
            "email": customer.email,
            "address": customer.address.SerializeToString(),
            "created": customer.created_at.ToNanoseconds(),
        },
    )
    return added == 1


def find(tx: Tx, customer_id: str) -> Customer | None:
    """The customer with an id."""
    row = tx.one("SELECT * FROM customer WHERE customer_id = :id", {"id": customer_id})
    return None if row is None else _customer(row)


def find_all(tx: Tx, customer_ids: Iterable[str]) -> dict[str, Customer]:
    """The customers with these ids, as far as they exist, by id."""
    rows = tx.all_of("SELECT * FROM customer WHERE customer_id IN (:values)", customer_ids)
    return {row["customer_id"]: _customer(row) for row in rows}


def page(tx: Tx, after: int, most: int) -> list[tuple[int, Customer]]:
    """The next customers with their numbers, in the order of creation."""
    rows = tx.all(
        "SELECT * FROM customer WHERE number > :after ORDER BY number LIMIT :most",
        {"after": after, "most": most},
    )
    return [(row["number"], _customer(row)) for row in rows]


def _customer(row: Row) -> Customer:
    customer = Customer(customer_id=row["customer_id"], name=row["name"], email=row["email"])
    if row["address"]:  # An address has mandatory fields: no bytes means that there is none.
        customer.address.CopyFrom(Address.FromString(row["address"]))
    customer.created_at.FromNanoseconds(row["created_ns"])
    return customer
