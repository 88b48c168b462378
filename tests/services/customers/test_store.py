"""The customers on each database."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from accord_runtime.database import Database, Params, Row, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.grpc.ids import uuid7
from services.customers import store
from services.customers.store import MIGRATIONS
from shop.common.v1.address_pb2 import Address
from shop.customers.v1.customers_pb2 import Customer


def a_customer(email: str, address: Address | None = None) -> Customer:
    customer = Customer(customer_id=uuid7(), name="Ada", email=email, address=address)
    customer.created_at.FromNanoseconds(1_700_000_000_123_456_789)
    return customer


async def add(database: Database, customer: Customer) -> bool:
    return await database.write(lambda tx: store.insert(tx, customer))


@pytest.fixture
async def customers(database: Database) -> Database:
    """A database with the tables of the service."""
    await migrate(database, "customers", MIGRATIONS)
    return database


@pytest.fixture
async def replica(customers: Database, database_url: str, service: str) -> AsyncIterator[Database]:
    """Another process's view of the same database, where there can be one."""
    if database_url.startswith("sqlite"):
        yield customers
        return
    other = await open_database(database_url, service)
    yield other
    await other.close()


@pytest.mark.parametrize(
    "address", [None, Address(name="Ada", line1="Main St 1", city="Köln", country_code="DE")]
)
async def test_what_goes_in_comes_out(customers: Database, address: Address | None) -> None:
    """A customer is kept whole, to the nanosecond, and an absent address stays absent."""
    ada = a_customer("ada@example.com", address)
    await add(customers, ada)

    assert await customers.read(lambda tx: store.find(tx, ada.customer_id)) == ada
    assert await customers.read(lambda tx: store.find(tx, uuid7())) is None


async def test_many_are_read_by_one_query(
    customers: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Customers that are there are found by their ids, however many of them, by one statement."""
    people = [a_customer(f"{number}@example.com") for number in range(10)]
    for one in people:
        await add(customers, one)
    asked = [uuid7(), *(one.customer_id for one in people), *(uuid7() for _ in range(89))]

    def read(tx: Tx) -> tuple[dict[str, Customer], int]:
        statements: list[str] = []
        checked = tx._checked

        def counted(_: Tx, sql: str, given: Params) -> tuple[int, list[Row]]:
            statements.append(sql)
            return checked(sql, given)

        with monkeypatch.context() as patch:
            patch.setattr(Tx, "_checked", counted)
            return store.find_all(tx, asked), len(statements)

    found, statements = await customers.read(read)

    assert found == {one.customer_id: one for one in people}
    assert statements == 1


async def test_email_is_unique_whatever_its_case(customers: Database) -> None:
    """Two customers cannot share an address by writing it differently."""
    assert await add(customers, a_customer("Ada@Example.com"))
    assert not await add(customers, a_customer("aDA@example.COM"))
    assert await add(customers, a_customer("ada@example.org"))


async def test_email_is_taken_once(customers: Database, replica: Database) -> None:
    """Of many who want one address at the same time, one gets it."""
    added = await asyncio.gather(
        *(add(database, a_customer("a@b.cd")) for database in [customers, replica] * 10)
    )

    assert sum(added) == 1


async def test_reader_misses_nobody(customers: Database, replica: Database) -> None:
    """Whoever lists while others are added, and goes on from the last number, sees everybody."""
    people = [a_customer(f"{number}@example.com") for number in range(100)]
    seen: list[Customer] = []

    async def follow() -> None:
        last = 0
        while len(seen) < len(people):
            for number, customer in await replica.read(partial(store.page, after=last, most=7)):
                seen.append(customer)
                last = number

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        for number, customer in enumerate(people):
            tasks.create_task(add([customers, replica][number % 2], customer))

    assert sorted(one.customer_id for one in seen) == [one.customer_id for one in people]
