"""What a process holds: channels, servers, and gRPC's own services behind the pipeline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc.aio import UsageError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import accord
from accord.policies.call_depth import DEPTH_KEY
from accord.server.stage_order import IGNORED
from tests.accord.drivers import Driver
from tests.accord.kit import (
    SERVICE,
    Message,
    Stub,
    collect,
    eventually,
    failure,
    handlers,
    path,
    serving,
)
from tests.accord.sync import kit


async def _echo(request: Any, context: Any) -> Any:
    return request


@asynccontextmanager
async def healthy() -> AsyncIterator[tuple[str, Any]]:
    """A server with a health service; yields its address and that service."""
    server = accord.Mesh("callee").server()
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)  # one's own wins
    server.add_generic_rpc_handlers((handlers({"Unary": _echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        await server.stop(None)


async def test_channels_are_kept() -> None:
    """A target has one channel, found by name, by function, or by being an address itself."""
    mesh = accord.Mesh("orders", targets={"payments": "127.0.0.1:1"})
    assert mesh.channel("payments") is mesh.channel("payments")
    assert mesh.address("payments") == "127.0.0.1:1"
    assert mesh.address("127.0.0.1:2") == "127.0.0.1:2"
    assert accord.Mesh("orders", targets=str.upper).address("x") == "X"
    await mesh.close()
    await mesh.close()


async def test_close_ends_channels_of_both_kinds() -> None:
    """A mesh that is closed leaves no channel open, those of `sync` neither."""
    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Unary": _echo}) as address:
        stubs = Stub(mesh.channel(address)), Stub(mesh.sync.channel(address))
        await stubs[0].Unary(Message())
        await asyncio.to_thread(stubs[1].Unary, Message())
        await mesh.close()
        with pytest.raises(UsageError):
            await stubs[0].Unary(Message())
        with pytest.raises(ValueError, match="closed"):
            stubs[1].Unary(Message())


async def test_nobody_there(driver: Driver) -> None:
    """A target that does not answer is UNAVAILABLE, with the method's name."""
    mesh = accord.Mesh("orders", targets={"payments": "127.0.0.1:1"})
    error = await failure(driver.stub(mesh, "payments").Unary(Message()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    await driver.close(mesh)


async def test_health_goes_through_the_pipeline() -> None:
    """GRPC's health service, whose Watch writes by itself, works behind the interceptor."""
    mesh = accord.Mesh("caller")
    async with healthy() as (address, servicer):
        stub: Any = health_pb2_grpc.HealthStub(mesh.channel(address))
        request = health_pb2.HealthCheckRequest()
        serving = health_pb2.HealthCheckResponse.SERVING
        assert (await stub.Check(request)).status == serving
        watch = stub.Watch(request)
        assert (await watch.read()).status == serving
        await servicer.enter_graceful_shutdown()
        changed = await watch.read()
        assert changed.status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await mesh.close()


async def test_unhealthy_server_gets_no_calls() -> None:
    """A server of a target whose health is watched gets no calls when it does not serve."""
    async with healthy() as (address, servicer):
        mesh = accord.Mesh("caller", targets={"echo": address}, health_checks={"echo"})
        stub = Stub(mesh.channel("echo"))
        assert (await stub.Unary(Message(text="a"))).text == "a"
        await servicer.enter_graceful_shutdown()
        error: accord.ServiceError | None = None
        async with asyncio.timeout(3):
            while error is None:
                try:
                    await stub.Unary(Message())
                except grpc.aio.AioRpcError as caught:
                    error = accord.failure_of(caught)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        await mesh.close()


async def test_taken_port_is_refused() -> None:
    """A second server on a port fails instead of sharing it, where its options say so."""
    mesh = accord.Mesh("callee")
    async with healthy() as (address, _):
        second = mesh.server(options=[("grpc.so_reuseport", 0)])
        with suppress(RuntimeError):  # how gRPC says it depends on its version
            assert second.add_insecure_port(address) == 0
        await second.stop(None)


async def test_own_channel_and_server() -> None:
    """The interceptors work on a channel and a server that somebody else makes."""
    mesh = accord.Mesh("any")
    server = grpc.aio.server(interceptors=mesh.server_interceptors())
    server.add_generic_rpc_handlers((handlers({"Unary": _echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", interceptors=mesh.client_interceptors()
    ) as channel:
        assert (await Stub(channel).Unary(Message(text="a"))).text == "a"
        assert (await failure(Stub(channel).Unary(Message(), timeout=0))).reason
    await server.stop(None)


async def test_handlers_given_to_the_server(driver: Driver) -> None:
    """Handlers that a server is made with are in its pipeline, and its health knows them."""
    mesh = accord.Mesh("callee", validator=lambda _: [accord.FieldViolation("text", "no")])
    given = handlers(driver.behaviours({"Unary": _echo}))
    server = driver.server(mesh, handlers=[given])
    async with grpc.aio.insecure_channel(await driver.start(server)) as channel:
        error = await failure(Stub(channel).Unary(Message()))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        health_stub: Any = health_pb2_grpc.HealthStub(channel)
        checked = await health_stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
    await driver.stop(server)


async def test_method_that_is_not_served(driver: Driver) -> None:
    """A method that nobody serves stays UNIMPLEMENTED."""
    async with driver.echo({"Unary": _echo}) as stub:
        error = await failure(stub.Relay(Message()))
    assert error.code is grpc.StatusCode.UNIMPLEMENTED


async def test_server_stop_ends_streams(driver: Driver) -> None:
    """Stopping a server cancels its streams, whose callers see UNAVAILABLE."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        started.set()
        try:
            yield Message()
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    mesh = accord.Mesh("any")
    server = driver.server(mesh)
    address = await driver.start(server, {"ServerStream": endless})
    call = driver.stub(mesh, address).ServerStream(Message())
    reading = asyncio.ensure_future(failure(collect(call)))
    await started.wait()
    await driver.stop(server, 0)
    assert (await reading).code is grpc.StatusCode.UNAVAILABLE
    await eventually(cancelled.is_set)
    await driver.close(mesh)


async def test_server_stop_tells_who_watches(driver: Driver) -> None:
    """A server that stops in order says so first, and then takes no more calls."""
    server = driver.server(accord.Mesh("callee"), lame_duck=0.05)
    address = await driver.start(server, {"Unary": _echo})
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.ensure_future(driver.stop(server, 1))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await asyncio.wait_for(stopping, 5)
        refused = await failure(Stub(channel).Unary(Message()))
    assert refused.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("service", [SERVICE, "grpc.health.v1.Health"])
def test_contracts_are_checked(service: str) -> None:
    """Every service, with or without options, passes the check at start-up."""
    assert accord.check_service(service)


@pytest.mark.parametrize("driver", ["aio", "sync"])
@pytest.mark.parametrize("size", [11, 40])
async def test_metadata_between_the_bounds_of_grpc(driver: str, size: int) -> None:
    """Both sides read up to 64 KiB: nothing fails by chance, in neither direction."""
    pairs = tuple((f"k{n}", "v" * 950) for n in range(size))

    async def answer(request: Any, context: Any) -> Any:
        assert len(context.invocation_metadata()) >= size
        await context.send_initial_metadata(pairs)
        context.set_trailing_metadata(pairs)
        return request

    mesh = accord.Mesh("caller")
    async with serving(accord.Mesh("callee"), {"Unary": answer}) as address:
        if driver == "aio":
            call = Stub(mesh.channel(address)).Unary
            for _ in range(30):
                await call(Message(), metadata=pairs)
        else:
            call = Stub(mesh.sync.channel(address)).Unary
            for _ in range(30):
                await asyncio.to_thread(call, Message(), metadata=pairs)
        await mesh.close()


@pytest.mark.parametrize("threads", [False, True], ids=["aio", "sync"])
async def test_snapshot_of_a_process_that_only_serves(threads: bool) -> None:
    """What it is asked for, and what its policies have decided."""
    callee = accord.Mesh("callee")
    assert callee.snapshot().served == {}
    async with AsyncExitStack() as stack:
        if threads:
            calls = {"Unary": lambda request, context: request}
            address = stack.enter_context(kit.serving(callee, calls))
        else:
            address = await stack.enter_async_context(serving(callee, {"Unary": _echo}))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        for depth in ("0", "0", "deep"):
            await Stub(channel).Unary(Message(), metadata=((DEPTH_KEY, depth),))
    assert callee.snapshot().served == {path("Unary"): {"calls": 3, f"{IGNORED}.{DEPTH_KEY}": 1}}
