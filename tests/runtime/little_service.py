"""A small service for tests, with the contract of customers.

As a program (`python -m tests.runtime.little_service`) it is configured as any service;
with LITTLE=fail in its environment something in its background fails after a while, with
LITTLE=log it logs what it does.
"""

import asyncio
import logging
import os
from typing import Any

from accord.errors import AlreadyExists, Resource
from accord_runtime.database import Database, DatabaseUnavailable, Tx
from accord_runtime.grpc.idempotency import commit
from accord_runtime.process import main
from accord_runtime.service import Runtime, Service
from accord_runtime.work.executor import Queue
from accord_runtime.work.table import Effect, Work
from services import topology
from shop.customers.v1 import customers_pb2 as pb
from shop.customers.v1.customers_pb2_grpc import (
    CustomerServiceServicer,
    add_CustomerServiceServicer_to_server,
)

log = logging.getLogger(__name__)

TABLES = ["CREATE TABLE results (id TEXT NOT NULL, text TEXT NOT NULL)"]
SLOW = 0.4
"""Seconds that `GetCustomer` and rows of the queue "slow" take."""


class Little(CustomerServiceServicer):
    """Creates customers once per e-mail address, and takes its time to find them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateCustomer(
        self, request: pb.CreateCustomerRequest, context: Any
    ) -> pb.CreateCustomerResponse:
        def create(tx: Tx) -> pb.CreateCustomerResponse:
            values = {"id": request.email, "text": request.name}
            taken = tx.one("SELECT 1 AS one FROM results WHERE id = :id", values)
            tx.execute("INSERT INTO results (id, text) VALUES (:id, :text)", values)
            if taken:
                raise AlreadyExists("EMAIL_TAKEN", Resource("customer", request.email))
            return pb.CreateCustomerResponse(customer=pb.Customer(name=request.name))

        if os.environ.get("LITTLE") == "log":
            why = ValueError("on request")
            log.warning("a customer was %s", "created", extra={"colour": "red"}, exc_info=why)
        return await commit(self._database, create)

    async def GetCustomer(
        self, request: pb.GetCustomerRequest, context: Any
    ) -> pb.GetCustomerResponse:
        await asyncio.sleep(SLOW)
        return pb.GetCustomerResponse(customer=pb.Customer(customer_id=request.customer_id))

    BatchGetCustomers = None  # type: ignore[assignment]

    async def ListCustomers(self, request: pb.ListCustomersRequest, context: Any) -> Any:
        raise DatabaseUnavailable("server closed the connection; password=secret")
        yield


async def _slow(work: Work) -> Effect:
    await asyncio.sleep(SLOW)

    def write(tx: Tx) -> None:
        tx.execute("INSERT INTO results (id, text) VALUES (:key, '')", {"key": work.key})

    return write


async def _fail() -> None:
    await asyncio.sleep(0.1)
    raise ConnectionError("the background is broken")


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    add_CustomerServiceServicer_to_server(Little(runtime.database), runtime.server)
    runtime.executor.register(Queue("slow", _slow))
    if os.environ.get("LITTLE") == "fail":
        runtime.background.append(("something", _fail))


def service(name: str) -> Service:
    """The service under a name of its own, so that it has a schema of its own."""
    return Service(
        name=name, contracts=("shop.customers.v1.CustomerService",), build=build, migrations=TABLES
    )


if __name__ == "__main__":
    main(service("customers"), topology.addresses)
