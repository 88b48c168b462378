"""Every block of Python on every page runs, or mypy accepts it as a part of something."""

import asyncio
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest
from mypy import api

import accord
from accord.context import scope_left
from accord.stores import SqliteStore
from shop.customers.v1.customers_pb2 import CreateCustomerRequest, GetCustomerRequest
from shop.payments.v1.payments_pb2 import ChargeRequest, ChargeResponse, Payment
from shop.payments.v1.payments_pb2_grpc import (
    PaymentServiceServicer,
    PaymentServiceStub,
    add_PaymentServiceServicer_to_server,
)
from tests.docs.pages import ROOT, blocks

RUN: Final = {
    "README.md": "test_readme.py",
    "docs/first-contract.md": "test_first_contract.py",
    "docs/identity.md": "test_identity.py",
    "docs/webhooks.md": "test_webhooks.py",
    "generated/README.md": "../contracts/test_clients.py",
    "interceptors/README.md": "../contracts/test_wheels.py",  # `python`; `py` are parts
    "runtime/README.md": "../contracts/test_wheels.py",
}
"""Page -> the test that runs its blocks of `python` as they stand."""

OPTIONS: Final = "# mypy: allow-untyped-defs, allow-untyped-calls, check-untyped-defs\n"
ANYTHING: Final = "from typing import Any\n"

FRAMES: Final = {
    "docs/xds.md": ANYTHING
    + """
import accord
from accord.identity import Identity
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
""",
    "docs/coming-from.md": ANYTHING
    + """
import accord
import grpc
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.payments.v1.payments_pb2 import ChargeRequest
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
inventory: Any
payments: "PaymentServiceStub"
stub: Any
request: ChargeRequest
GetStockRequest: Any
NotFound = accord.NotFound
retry: Any
stop_after_attempt: Any
wait_random_exponential: Any
retry_if_exception: Any
pybreaker: Any
GrpcAioInstrumentorClient: Any
GrpcAioInstrumentorServer: Any
""",
    "docs/jobs.md": ANYTHING
    + """
from google.protobuf.message import Message
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.types import Context
from accord_runtime.jobs import Job, Kind, Progress
from accord_runtime.service import Runtime
from shop.customers.v1.customers_pb2 import CreateCustomerRequest as ReportRequest
ReportResponse: Any
def Report(rows: int) -> Message:
    raise NotImplementedError
read_a_page: Any
""",
    "docs/edge.md": ANYTHING,
    "docs/events.md": ANYTHING,
    "docs/new-service.md": ANYTHING
    + """
from accord_runtime.service import Runtime
from shop.customers.v1.customers_pb2 import GetCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.orders.v1.events_pb2 import OrderConfirmed
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
runtime: Runtime
request: GetCustomerRequest
handle: Any
""",
    "docs/views.md": ANYTHING
    + """
from accord_runtime.database import Tx
from accord_runtime.service import Runtime
from accord_runtime.views import Change, View, Views
from shop.orders.v1.events_pb2 import OrderShipped
read_orders: Any
def day(seconds: float) -> str:
    raise NotImplementedError
""",
    "docs/policies/cache.md": ANYTHING
    + """
import accord
from shop.customers.v1.customers_pb2 import Customer, GetCustomerResponse
mesh: accord.Mesh
""",
    "docs/policies/compensation.md": ANYTHING
    + """
import grpc.aio
from accord_runtime.database import Tx
from accord_runtime.saga import Call, Contract, Local
from shop.payments.v1.payments_pb2 import ChargeRequest, ChargeResponse
from shop.shipping.v1.shipping_pb2 import CreateShipmentRequest, CreateShipmentResponse
payments: grpc.aio.Channel
shipping: grpc.aio.Channel
async def payment(order_id: str) -> ChargeRequest: raise NotImplementedError
def paid(tx: Tx, order_id: str, answer: ChargeResponse) -> None: ...
def start_shipping(tx: Tx, order_id: str) -> None: ...
async def parcel(order_id: str) -> CreateShipmentRequest: raise NotImplementedError
def shipped(tx: Tx, order_id: str, answer: CreateShipmentResponse) -> None: ...
""",
    "docs/policies/deadline.md": ANYTHING
    + """
import accord
from fastapi import FastAPI
""",
    "docs/policies/errors.md": ANYTHING
    + """
import accord
import grpc.aio
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
customers: "CustomerServiceStub"
request: CreateCustomerRequest
email: str
""",
    "docs/policies/idempotency.md": ANYTHING
    + """
import asyncio
import accord
from accord.stores import SqliteStore
from shop.payments.v1.payments_pb2 import ChargeResponse, Payment
from shop.payments.v1.payments_pb2_grpc import PaymentServiceServicer
""",
    "interceptors/README.md": ANYTHING
    + """
import accord
import pytest
ParcelServiceStub: Any
GetParcelRequest: Any
request: Any
""",
    "runtime/README.md": ANYTHING
    + """
import accord
import grpc.aio
import pytest
from pathlib import Path
from google.protobuf.message import Message
from accord_runtime.database import Database, Tx
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import Received
from accord_runtime.grpc.ids import derived
from accord_runtime.process import running
from accord_runtime.saga import Call, Contract, Definition, Local, Sagas
from accord_runtime.service import Runtime, Service
from accord_runtime.settings import Addresses, Settings
from accord_runtime.work.executor import Queue
from accord_runtime.work.table import Effect, Work
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub as DeskServiceStub
class ParcelSent(Message):
    parcel_id: str
    def __init__(self, *, parcel_id: str) -> None: ...
class SendParcelResponse(ParcelSent): ...
SERVICE: Service
database: Database
runtime: Runtime
addresses: Any
letters: Any
parcel_id: str
sku: str
ParcelServiceStub: Any
StoreParcelRequest: Any
def note(tx: Tx, parcel_id: str) -> None: ...
async def shelf(parcel_id: str) -> Message: raise NotImplementedError
label = van = shelf
def labelled(tx: Tx, parcel_id: str, answer: Any) -> None: ...
def sent(tx: Tx, parcel_id: str) -> None: ...
def refused(tx: Tx, parcel_id: str, step: str, error: accord.ServiceError) -> None: ...
undone = sent
""",
}
"""Page -> what its parts leave to the reader, who has it."""


def parts() -> Iterator[tuple[str, str]]:
    """Pages, and their blocks that are no programs."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for page in listed.stdout.split():
        text = (ROOT / page).read_text()
        for block in blocks(text, "py") + ([] if page in RUN else blocks(text, "python")):
            yield page, block


def test_parts_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, arguments and types are right: those of the library, of gRPC and of the contracts."""
    files = []
    for number, (page, block) in enumerate(parts()):
        assert page in FRAMES, f"{page} has a part of which nothing is known"
        body = textwrap.indent(block, "    ")
        program = f"{OPTIONS}{FRAMES[page]}\nasync def part() -> Any:\n{body}"
        files.append(tmp_path / f"part{number}_{Path(page).stem.replace('-', '_')}.py")
        files[-1].write_text(program)
    assert {page for page, _ in parts()} == set(FRAMES)
    monkeypatch.chdir(ROOT)
    said, complaints, code = api.run(["--no-error-summary", *map(str, files)])
    assert code == 0, said + complaints


def part(page: str, number: int = 0) -> str:
    """A block of Python of a page."""
    return blocks((ROOT / page).read_text(), "python")[number]


async def test_errors() -> None:
    """What the handler raises is what the caller asks for."""
    handler, caller = part("docs/policies/errors.md"), part("docs/policies/errors.md", 1)
    with pytest.raises(accord.AlreadyExists) as caught:
        exec(handler, {"accord": accord, "email": "ada@example.com"})
    status = caught.value.to_status("customers").SerializeToString()
    trailers = grpc.aio.Metadata((accord.errors.DETAILS_KEY, status))
    code = grpc.StatusCode.ALREADY_EXISTS
    raised = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, "", "")

    class Customers:
        async def CreateCustomer(self, request: CreateCustomerRequest) -> None:
            raise raised

    names: dict[str, Any] = {"accord": accord, "grpc": grpc, "customers": Customers()}
    exec(f"async def part(request):\n{textwrap.indent(caller, '    ')}", names)
    assert await names["part"](None) is None


async def test_fallback() -> None:
    """The mesh takes it, and it answers."""
    from shop.customers.v1 import customers_pb2

    mesh = accord.Mesh("orders")
    names: dict[str, Any] = {**vars(customers_pb2), "mesh": mesh}
    exec(part("docs/policies/cache.md", 1), names)
    answer = await names["nobody"](GetCustomerRequest(customer_id="7"), None)
    assert (answer.customer.customer_id, answer.customer.name) == ("7", "(unknown)")


async def test_deadline_of_an_http_request() -> None:
    """Endpoints that are awaited, and those that run in threads, have it; the start has not."""
    names: dict[str, Any] = {"accord": accord, "FastAPI": pytest.importorskip("fastapi").FastAPI}
    exec(part("docs/policies/deadline.md"), names)
    app, left = names["app"], []

    @app.get("/awaited")  # type: ignore[untyped-decorator]
    async def awaited() -> str:
        left.append(scope_left())
        return "ok"

    @app.get("/blocking")  # type: ignore[untyped-decorator]
    def blocking() -> str:
        left.append(scope_left())
        return "ok"

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    for path in ("/awaited", "/blocking"):
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "headers": [],
            "query_string": b"",
        }
        await app(scope, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [200, 200]
    assert len(left) == 2
    assert all(seconds is not None and 0 < seconds <= 2 for seconds in left)

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        left.append(scope_left())

    await names["Deadline"](inner, 2.0)({"type": "lifespan"}, receive, send)
    assert left[2] is None


async def test_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servicer of the page serves: three calls with one key have one effect."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "accord": accord,
        "asyncio": asyncio,
        "SqliteStore": SqliteStore,
        "PaymentServiceServicer": PaymentServiceServicer,
        "ChargeResponse": ChargeResponse,
        "Payment": Payment,
    }
    exec(part("docs/policies/idempotency.md"), names)
    store: SqliteStore = names["store"]

    def create(connection: Any) -> ChargeResponse:
        connection.execute("CREATE TABLE charges (order_id TEXT)")
        return ChargeResponse()

    store.commit(create)
    server = names["mesh"].server()
    add_PaymentServiceServicer_to_server(names["Payments"](), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    caller = accord.Mesh("caller")
    payments = PaymentServiceStub(caller.channel(f"127.0.0.1:{port}"))
    for _ in range(3):
        answer = await payments.Charge(
            ChargeRequest(order_id="7"), metadata=accord.idempotency_key("order-7")
        )
        assert answer.payment.order_id == "7"
    await caller.close()
    await server.stop(None)
    rows: list[Any] = []

    def read(connection: Any) -> ChargeResponse:
        rows.extend(connection.execute("SELECT order_id FROM charges"))
        return ChargeResponse()

    store.commit(read)
    assert rows == [("7",)]
