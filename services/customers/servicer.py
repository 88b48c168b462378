"""The RPCs of `shop.customers.v1.CustomerService`."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from accord.errors import AlreadyExists, NotFound, Resource
from accord_runtime.database import Database, Tx
from accord_runtime.grpc import owner
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from services.customers import store
from shop.customers.v1 import customers_pb2 as pb
from shop.customers.v1.customers_pb2_grpc import (
    CustomerServiceServicer,
    add_CustomerServiceServicer_to_server,
)

PAGE: Final = 200  # Customers read at a time; no transaction is open while they are sent.


class Customers(CustomerServiceServicer):
    """Answers from the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateCustomer(
        self, request: pb.CreateCustomerRequest, context: Context
    ) -> pb.CreateCustomerResponse:
        customer = pb.Customer(customer_id=uuid7(), name=request.name, email=request.email)
        if request.HasField("address"):
            customer.address.CopyFrom(request.address)
        customer.created_at.GetCurrentTime()

        def create(tx: Tx) -> pb.CreateCustomerResponse:
            if not store.insert(tx, customer):
                raise AlreadyExists("EMAIL_TAKEN", Resource("customer", request.email))
            return pb.CreateCustomerResponse(customer=customer)

        return await commit(self._database, create)

    async def GetCustomer(
        self, request: pb.GetCustomerRequest, context: Context
    ) -> pb.GetCustomerResponse:
        customer = await self._database.look_up(lambda tx: store.find(tx, request.customer_id))
        if customer is None or not owner.may_touch(customer.customer_id):
            raise NotFound(resource=Resource("customer", request.customer_id))
        return pb.GetCustomerResponse(customer=customer)

    async def BatchGetCustomers(
        self, request: pb.BatchGetCustomersRequest, context: Context
    ) -> pb.BatchGetCustomersResponse:
        found = await self._database.read(lambda tx: store.find_all(tx, request.customer_ids))
        answer = pb.BatchGetCustomersResponse()
        for customer_id in request.customer_ids:
            if customer_id in found and owner.may_touch(customer_id):
                answer.customers.append(found[customer_id])
            else:
                answer.missing_customer_ids.append(customer_id)
        return answer

    async def ListCustomers(
        self, request: pb.ListCustomersRequest, context: Context
    ) -> AsyncIterator[pb.ListCustomersResponse]:
        last = request.after_number
        while page := await self._database.read(partial(store.page, after=last, most=PAGE)):
            for last, customer in page:
                if owner.may_touch(customer.customer_id):
                    yield pb.ListCustomersResponse(number=last, customer=customer)


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    add_CustomerServiceServicer_to_server(Customers(runtime.database), runtime.server)


SERVICE = Service(
    name="customers",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=("shop.customers.v1.CustomerService",),
)
