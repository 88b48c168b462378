"""Server reflection, asked as grpcurl asks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

from accord_runtime.grpc import reflection
from shop.orders.v1 import orders_pb2

Ask = Callable[..., Awaitable[pb.ServerReflectionResponse]]

SERVICE = "shop.orders.v1.OrderService"


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server with nothing but reflection."""
    assert orders_pb2.DESCRIPTOR is not None
    server = grpc.aio.server()
    reflection.enable(server, [SERVICE])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


@pytest.fixture(params=["v1", "v1alpha"])
def ask(request: pytest.FixtureRequest, channel: grpc.aio.Channel) -> Ask:
    """Asks under either name."""
    return partial(_ask, channel, request.param)


async def _ask(
    channel: grpc.aio.Channel, version: str, **question: str
) -> pb.ServerReflectionResponse:
    """One question, one answer."""
    method: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        pb.ServerReflectionRequest.SerializeToString,
        pb.ServerReflectionResponse.FromString,
    )
    request = pb.ServerReflectionRequest()
    for name, value in question.items():
        setattr(request, name, value)
    call = method(iter([request]), timeout=5)
    answer: pb.ServerReflectionResponse = await call.read()
    return answer


async def test_services_are_listed(ask: Ask) -> None:
    """The services that were named are listed, and reflection itself."""
    answer = await ask(list_services="*")
    names = [service.name for service in answer.list_services_response.service]
    assert SERVICE in names
    assert "grpc.reflection.v1alpha.ServerReflection" in names


@pytest.mark.parametrize(
    "symbol",
    [
        f"{SERVICE}.CreateOrder",
        SERVICE,
        "shop.orders.v1.CreateOrderRequest",
        "shop.orders.v1.CreateOrderRequest.items",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
)
async def test_symbols_are_found(ask: Ask, symbol: str) -> None:
    """Methods are found as services, messages and fields are, in their file, by its name, too."""
    answer = await ask(file_containing_symbol=symbol)
    raw = answer.file_descriptor_response.file_descriptor_proto
    (file,) = [
        found.name
        for found in map(FileDescriptorProto.FromString, raw)
        if symbol.startswith(f"{found.package}.")
    ]
    answer = await ask(file_by_filename=file)
    assert set(answer.file_descriptor_response.file_descriptor_proto) == set(raw)


@pytest.mark.parametrize("symbol", [f"{SERVICE}.Nothing", "Nothing", "", ".", "shop.orders.v1"])
async def test_what_there_is_not_is_not_found(ask: Ask, symbol: str) -> None:
    """A symbol that does not exist is NOT_FOUND, whatever it looks like."""
    answer = await ask(file_containing_symbol=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
