"""A service with jobs, for tests: with the contract of customers, it counts.

`CreateCustomer` starts a job that counts to the length of the name, one a step, and answers the
operation's id. Each step leaves a row in `results`. As a program
(`python -m tests.runtime.jobs.counting`) it is configured as any service.
"""

import asyncio
import os
from typing import Any

from google.protobuf.message import Message

from accord.errors import FailedPrecondition
from accord_runtime.database import Tx
from accord_runtime.grpc.idempotency import commit
from accord_runtime.jobs import Job, Kind, Progress
from accord_runtime.process import main
from accord_runtime.service import Runtime, Service
from services import topology
from shop.customers.v1 import customers_pb2 as pb
from shop.customers.v1.customers_pb2_grpc import (
    CustomerServiceServicer,
    add_CustomerServiceServicer_to_server,
)

TABLES = ["CREATE TABLE results (id TEXT NOT NULL, text TEXT NOT NULL)"]


class Counting(CustomerServiceServicer):
    """Counts in the background."""

    def __init__(self, runtime: Runtime, **changes: Any) -> None:
        self.runtime = runtime
        self.attempts = 0
        self.go = asyncio.Event()
        self.go.set()
        self.pause = float(os.environ.get("COUNT_PAUSE", "0"))
        self.kind = runtime.jobs.register(
            Kind("count", pb.CreateCustomerRequest, self.step, **changes)
        )

    async def CreateCustomer(
        self, request: pb.CreateCustomerRequest, context: Any
    ) -> pb.CreateCustomerResponse:
        def start(tx: Tx) -> pb.CreateCustomerResponse:
            operation = self.runtime.jobs.start(tx, self.kind, request)
            customer = pb.Customer(customer_id=operation.operation_id)
            return pb.CreateCustomerResponse(customer=customer)

        return await commit(self.runtime.database, start)

    async def step(self, job: Job[pb.CreateCustomerRequest]) -> Progress | Message:
        self.attempts += 1
        number = int(job.checkpoint or b"0") + 1
        total = len(job.request.name)
        if job.request.name == "broken":
            raise RuntimeError("secret")
        if job.request.name == "refused":
            raise FailedPrecondition("NOTHING_TO_COUNT", "there is nothing to count")
        if job.request.name == "large":
            return pb.Customer(name="x" * 2**20)
        await self.go.wait()
        await asyncio.sleep(self.pause)
        if number > total:
            return pb.Customer(name=f"counted to {job.done_units}")

        def effect(tx: Tx) -> None:
            tx.insert("results", {"id": job.operation_id, "text": str(number)})

        return Progress(str(number).encode(), number, total, effect)


def service(name: str, built: list[Counting], **changes: Any) -> Service:
    """The service; `built` receives what counts, `changes` are those of its kind of jobs."""

    def build(runtime: Runtime) -> None:
        built.append(Counting(runtime, **changes))  # type: ignore[abstract]
        add_CustomerServiceServicer_to_server(built[-1], runtime.server)

    return Service(
        name=name, contracts=("shop.customers.v1.CustomerService",), build=build, migrations=TABLES
    )


if __name__ == "__main__":
    main(service("customers", []), topology.addresses)
