"""Short ways to say things about stock."""

from collections.abc import Mapping, Sequence
from typing import Final

from accord.errors import FailedPrecondition
from accord_runtime.database import Database, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events import outbox
from services.inventory import reservations, store
from services.inventory.domain import State
from services.inventory.store import MIGRATIONS
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import Product, ReserveLine
from tests.support.events import OUTBOX


def money(minor_units: int, currency_code: str) -> Money:
    return Money(minor_units=minor_units, currency_code=currency_code)


def line(sku: str, quantity: int, price: Money) -> ReserveLine:
    return ReserveLine(sku=sku, quantity=quantity, unit_price=price)


PRICE: Final = money(1999, "EUR")


def lines(wanted: Mapping[str, int], price: Money = PRICE) -> list[ReserveLine]:
    return [line(sku, quantity, price) for sku, quantity in wanted.items()]


async def open_store(database: Database, stock: Mapping[str, int]) -> None:
    """Make the tables, and a product at the usual price for each SKU."""
    await migrate(database, "runtime", [*outbox.MIGRATIONS, *outbox.LATER_MIGRATIONS])
    await migrate(database, "inventory", MIGRATIONS)
    for sku, on_hand in stock.items():
        await upsert(database, sku, on_hand)


async def upsert(database: Database, sku: str, on_hand: int, price: Money = PRICE) -> Product:
    return await database.write(lambda tx: store.upsert(tx, sku, f"A {sku}", price, on_hand))


async def reserve(
    database: Database, order_id: str, wanted: Sequence[ReserveLine], key: str | None = None
) -> State:
    answer = await database.write(
        lambda tx: reservations.reserve(tx, OUTBOX, order_id, wanted, key)
    )
    if isinstance(answer, FailedPrecondition):
        raise answer
    return answer


async def release(database: Database, order_id: str) -> State:
    return await database.write(lambda tx: reservations.release(tx, OUTBOX, order_id))


async def commit(database: Database, order_id: str) -> State:
    return await database.write(lambda tx: reservations.commit(tx, OUTBOX, order_id))


async def stock(database: Database) -> dict[str, tuple[int, int]]:
    """SKU -> (on hand, reserved)."""
    found = await database.read(lambda tx: store.page(tx, "", 1000))
    return {product.sku: (product.on_hand, product.reserved) for product in found}


async def forget(database_url: str, service: str) -> None:
    """Remove what earlier tests have left in a service's schema of the shared server."""
    if database_url.startswith("postgresql"):
        database = await open_database(database_url, service)
        await database.write(lambda tx: tx.execute(f"DROP SCHEMA {service} CASCADE"))
        await database.close()
