"""The image, as the real grpcurl uses it against a server that has no reflection."""

import asyncio
import json
import subprocess
from pathlib import Path

import grpc.aio
import pytest

from shop.customers.v1 import customers_pb2, customers_pb2_grpc
from tests.contracts.export import support


class Customers(customers_pb2_grpc.CustomerServiceServicer):
    """Knows everybody."""

    async def GetCustomer(
        self, request: customers_pb2.GetCustomerRequest, context: object
    ) -> customers_pb2.GetCustomerResponse:
        return customers_pb2.GetCustomerResponse(
            customer=customers_pb2.Customer(customer_id=request.customer_id, name="Ada")
        )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The shop's contracts, exported."""
    file = tmp_path / "shop.protoset"
    made = support.run("contracts", "export", "protoset", support.ROOT, "-o", file)
    assert made.returncode == 0, made.stderr.decode()
    return file


async def _grpcurl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        (support.SCRIPTS / "grpcurl", *arguments),
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_grpcurl_calls_a_server_without_reflection(image: Path) -> None:
    """With the image grpcurl calls an RPC by its JSON; without it, it cannot."""
    server = grpc.aio.server()
    customers_pb2_grpc.add_CustomerServiceServicer_to_server(Customers(), server)  # type: ignore[abstract]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        call = ("-d", '{"customer_id": "c-1"}', address)
        method = "shop.customers.v1.CustomerService/GetCustomer"
        done = await _grpcurl("-plaintext", "-protoset", image, *call, method)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["customer"] == {"customerId": "c-1", "name": "Ada"}
        assert (await _grpcurl("-plaintext", *call, method)).returncode != 0
    finally:
        await server.stop(None)


async def test_grpcurl_describes_policy(image: Path) -> None:
    """Grpcurl lists the services of the image and shows the options and comments of an RPC."""
    listed = await _grpcurl("-protoset", image, "list")
    assert "shop.orders.v1.OrderService" in listed.stdout.split()
    shown = await _grpcurl("-protoset", image, "describe", "shop.orders.v1.OrderService.GetOrder")
    assert "Callers may keep the answer for 30 s" in shown.stdout
    assert "accord.v1.policy" in shown.stdout
