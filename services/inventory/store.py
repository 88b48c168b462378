"""The products in the database."""

from collections.abc import Iterable
from typing import Final

from accord.errors import FailedPrecondition, Precondition
from accord_runtime.database import Row, Tx
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import Product

MIGRATIONS: Final = [
    """
    CREATE TABLE product (
        sku TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        price_minor_units BIGINT NOT NULL,
        currency_code TEXT NOT NULL,
        on_hand BIGINT NOT NULL,
        reserved BIGINT NOT NULL,
        CHECK (0 <= reserved AND reserved <= on_hand)
    )
    """,
    """
    CREATE TABLE reservation (
        order_id TEXT NOT NULL PRIMARY KEY,
        state TEXT NOT NULL,
        idempotency_key TEXT UNIQUE
    )
    """,
    """
    CREATE TABLE reservation_line (
        order_id TEXT NOT NULL REFERENCES reservation,
        sku TEXT NOT NULL,
        quantity BIGINT NOT NULL,
        price_minor_units BIGINT NOT NULL,
        currency_code TEXT NOT NULL,
        PRIMARY KEY (order_id, sku)
    )
    """,
    # As `Fulfilment` numbers them.
    "ALTER TABLE reservation ADD COLUMN fulfilment BIGINT NOT NULL DEFAULT 0",
]


def upsert(tx: Tx, sku: str, name: str, price: Money, on_hand: int) -> Product:
    """Create a product, or replace its name, price and stock on hand.

    Raises:
        FailedPrecondition: CURRENCY_CHANGED or STOCK_IS_RESERVED; nothing is changed.
    """
    row = tx.one(
        "INSERT INTO product (sku, name, price_minor_units, currency_code, on_hand, reserved)"
        " VALUES (:sku, :name, :minor_units, :currency, :on_hand, 0)"
        " ON CONFLICT (sku) DO UPDATE SET name = excluded.name, on_hand = excluded.on_hand,"
        " price_minor_units = excluded.price_minor_units"
        " WHERE product.currency_code = excluded.currency_code"
        " AND product.reserved <= excluded.on_hand"
        " RETURNING *",
        {
            "sku": sku,
            "name": name,
            "minor_units": price.minor_units,
            "currency": price.currency_code,
            "on_hand": on_hand,
        },
    )
    if row is not None:
        return to_product(row)
    product = find(tx, sku)
    assert product is not None, "only a product that is there can stand in the way"
    if product.price.currency_code != price.currency_code:
        reason = "CURRENCY_CHANGED"
        text = f"{sku} is sold in {product.price.currency_code}"
    else:
        reason = "STOCK_IS_RESERVED"
        text = f"orders hold {product.reserved} of {sku}"
    raise FailedPrecondition(reason, text, Precondition(reason, sku, text))


def find(tx: Tx, sku: str) -> Product | None:
    """The product with a SKU."""
    row = tx.one("SELECT * FROM product WHERE sku = :sku", {"sku": sku})
    return None if row is None else to_product(row)


def find_all(tx: Tx, skus: Iterable[str]) -> dict[str, Product]:
    """The products with these SKUs, as far as they exist, by SKU."""
    rows = tx.all_of("SELECT * FROM product WHERE sku IN (:values)", skus)
    return {row["sku"]: to_product(row) for row in rows}


def page(tx: Tx, after: str, most: int) -> list[Product]:
    """The next products by SKU, in the order in which the database sorts text."""
    rows = tx.all(
        "SELECT * FROM product WHERE sku > :after ORDER BY sku LIMIT :most",
        {"after": after, "most": most},
    )
    return [to_product(row) for row in rows]


def to_product(row: Row) -> Product:
    """A row of `product` as callers see it."""
    return Product(
        sku=row["sku"],
        name=row["name"],
        price=to_price(row),
        on_hand=row["on_hand"],
        reserved=row["reserved"],
        available=row["on_hand"] - row["reserved"],
    )


def to_price(row: Row) -> Money:
    """The price in a row."""
    return Money(minor_units=row["price_minor_units"], currency_code=row["currency_code"])
