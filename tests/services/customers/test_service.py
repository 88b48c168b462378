"""The customers service, called over a port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pytest

import accord
from accord_runtime.grpc.ids import uuid7
from services.customers import servicer
from shop.common.v1.address_pb2 import Address
from shop.customers.v1 import customers_pb2 as pb
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.support.shop import running_shop


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[CustomerServiceStub]:
    async with running_shop(tmp_path, "customers") as shop:
        yield CustomerServiceStub(shop.channel("customers"))


async def create(
    stub: CustomerServiceStub, email: str, key: str = "", address: Address | None = None
) -> pb.Customer:
    request = pb.CreateCustomerRequest(name="Ada Lovelace", email=email, address=address)
    metadata = accord.idempotency_key(key or uuid7())
    return (await stub.CreateCustomer(request, metadata=metadata)).customer


async def refused(call: Awaitable[object]) -> accord.ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = accord.failure_of(caught.value)
    assert error is not None
    return error


async def test_create_and_get(stub: CustomerServiceStub) -> None:
    """The customer that was created is the one that is found."""
    address = Address(name="Ada", line1="Main St 1", city="Köln", country_code="DE")
    ada = await create(stub, "ada@example.com", address=address)

    found = await stub.GetCustomer(pb.GetCustomerRequest(customer_id=ada.customer_id))
    assert found.customer == ada
    assert ada.address == address


async def test_unknown_customer(stub: CustomerServiceStub) -> None:
    """An id that nobody has is NOT_FOUND, with the id in the details."""
    nobody = uuid7()
    error = await refused(stub.GetCustomer(pb.GetCustomerRequest(customer_id=nobody)))

    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert error.resource is not None
    assert error.resource.name == nobody


async def test_many_at_once(stub: CustomerServiceStub) -> None:
    """A hundred ids are one call: who is there comes as asked for, the others are listed."""
    ada, bob = [await create(stub, f"{name}@example.com") for name in ("ada", "bob")]
    nobody = [uuid7() for _ in range(98)]
    ids = [bob.customer_id, *nobody, ada.customer_id]

    found = await stub.BatchGetCustomers(pb.BatchGetCustomersRequest(customer_ids=ids))

    assert [*found.customers] == [bob, ada]
    assert [*found.missing_customer_ids] == nobody
    for wrong in ([], [*ids, uuid7()], [ada.customer_id] * 2):
        request = pb.BatchGetCustomersRequest(customer_ids=wrong)
        error = await refused(stub.BatchGetCustomers(request))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert error.violations[0].field == "customer_ids"


async def test_repeat_is_one_customer(stub: CustomerServiceStub) -> None:
    """The same request under the same key creates once, however often it comes at once."""
    created = await asyncio.gather(*(create(stub, "ada@example.com", "key") for _ in range(10)))

    assert len({customer.customer_id for customer in created}) == 1


async def test_email_taken(stub: CustomerServiceStub) -> None:
    """An address that another customer has is refused, and stays refused for that key."""
    await create(stub, "ada@example.com")

    for _ in range(2):
        error = await refused(create(stub, "ADA@EXAMPLE.COM", "second"))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN")


async def test_wrong_request(stub: CustomerServiceStub) -> None:
    """The rules of the contract hold without a line in the service; so does the need for a key."""
    request = pb.CreateCustomerRequest(email="no address")
    error = await refused(stub.CreateCustomer(request, metadata=accord.idempotency_key("k")))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {violation.field for violation in error.violations} == {"name", "email"}

    without_key = pb.CreateCustomerRequest(name="Ada", email="ada@example.com")
    error = await refused(stub.CreateCustomer(without_key))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_list_in_pages(stub: CustomerServiceStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """All customers come, oldest first, though they are read a few at a time."""
    monkeypatch.setattr(servicer, "PAGE", 3)
    created = [await create(stub, f"{number}@example.com") for number in range(7)]

    listed = [item async for item in stub.ListCustomers(pb.ListCustomersRequest())]

    assert [item.customer for item in listed] == created
    assert [item.number for item in listed] == [1, 2, 3, 4, 5, 6, 7]


async def test_list_goes_on(stub: CustomerServiceStub) -> None:
    """A list goes on after any number it has given out, without gap or duplicate."""
    created = [await create(stub, f"{number}@example.com") for number in range(5)]

    for seen in range(6):
        request = pb.ListCustomersRequest(after_number=seen)
        rest = [item.customer async for item in stub.ListCustomers(request)]
        assert rest == created[seen:]


async def test_slow_reader_holds_nothing(
    stub: CustomerServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many lists stand still half read, customers can be read and created."""
    monkeypatch.setattr(servicer, "PAGE", 2)
    for number in range(6):
        await create(stub, f"{number}@example.com")
    lists = [stub.ListCustomers(pb.ListCustomersRequest()) for _ in range(20)]
    for reading in lists:
        await reading.read()

    async with asyncio.timeout(5):
        late = await create(stub, "late@example.com")
        await stub.GetCustomer(pb.GetCustomerRequest(customer_id=late.customer_id))

    for reading in lists:
        reading.cancel()


async def test_answers_are_kept_until_a_write(tmp_path: Path) -> None:
    """A customer is asked for once in 30 s, unless the caller has written a customer since."""
    async with running_shop(tmp_path, "customers") as shop:
        stub = CustomerServiceStub(shop.channel("customers"))
        customer_id = (await create(stub, "first@example.com")).customer_id

        async def asked() -> int:
            await stub.GetCustomer(pb.GetCustomerRequest(customer_id=customer_id))
            (route,) = (
                each for each in shop.mesh.snapshot().routes if each.method.endswith("/GetCustomer")
            )
            return route.cache_misses

        assert [await asked() for _ in range(3)] == [1, 1, 1]
        await create(stub, "second@example.com")
        assert [await asked() for _ in range(2)] == [2, 2]
