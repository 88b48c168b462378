"""The parts around the notifications service: a broker, customers, orders and a mail server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import accord
from accord_runtime.grpc.ids import uuid7
from accord_runtime.service import Runtime, Service
from services.customers.servicer import SERVICE as CUSTOMERS
from services.notifications import steps
from services.notifications.queue import PATIENCE
from shop.customers.v1.customers_pb2 import CreateCustomerRequest, Customer
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.services.notifications.mailbox import Mailbox
from tests.services.notifications.serving import channel_to, serving
from tests.support.ports import free_port

ORDERS = Service(name="orders", contracts=(), build=lambda runtime: None)
"""As much of the orders as is needed to publish what happened to them."""


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker that runs until the session ends."""
    binary = shutil.which("nats-server", path=os.path.dirname(sys.executable))
    assert binary is not None
    port = free_port()
    store = tmp_path_factory.mktemp("nats")
    options = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(store)]
    server = subprocess.Popen([binary, *options], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield f"nats://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mail server, which runs."""
    box = Mailbox(free_port())
    box.start()
    yield box
    box.stop()


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come every tenth of a second, as often as usual; circuits open for no longer."""
    monkeypatch.setattr(steps, "PATIENCE", (0.1,) * len(PATIENCE))
    breaker = {"open": "0.1s", "max_open": "0.1s"}
    policy = {"shop.customers.v1.CustomerService/GetCustomer": {"policy": {"breaker": breaker}}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))


@pytest.fixture
def customers_port() -> int:
    return free_port()


@pytest.fixture
async def ada(tmp_path: Path, customers_port: int) -> Customer:
    """A customer; her service is not running when the test begins."""
    listen = f"127.0.0.1:{customers_port}"
    async with (
        serving(CUSTOMERS, tmp_path, listen=listen) as runtime,
        channel_to(runtime) as channel,
    ):
        request = CreateCustomerRequest(name="Ada Lovelace", email="ada@example.com")
        metadata = accord.idempotency_key(uuid7())
        return (
            await CustomerServiceStub(channel).CreateCustomer(request, metadata=metadata)
        ).customer


@pytest.fixture
async def customers(
    ada: Customer, tmp_path: Path, customers_port: int, nats_url: str
) -> AsyncIterator[Runtime]:
    """The customers service, with Ada in it."""
    listen = f"127.0.0.1:{customers_port}"
    async with serving(CUSTOMERS, tmp_path, listen=listen, nats_url=nats_url) as runtime:
        yield runtime


@pytest.fixture
async def orders(tmp_path: Path, nats_url: str) -> AsyncIterator[Runtime]:
    async with serving(ORDERS, tmp_path, nats_url=nats_url) as runtime:
        yield runtime
