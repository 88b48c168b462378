"""What a channel leaves to gRPC's core."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from accord.client import service_config
from accord.client.method_state import MAX_WAITS, WAIT, Target
from accord.ops.v1 import mesh_pb2
from accord.policies.budget import BudgetPolicy
from accord.v1 import policy_pb2
from tests.accord.kit import SERVICE, Message, Stub, handlers, path, serving


async def _good(request: Any, context: Any) -> Any:
    return request


async def _bad(request: Any, context: Any) -> Any:
    raise accord.Unavailable("BROKEN", 0.0, "this replica is broken")


def balancing(settings: dict[str, Any]) -> dict[str, Any]:
    """A config with settings of one policy of load balancing."""
    return {"loadBalancingConfig": [{"round_robin": settings}]}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"loadBalancingPolicy": "round_robin"}, "loadBalancingPolicy"),
        ({"loadBalancingConfig": []}, "loadBalancingConfig: must be a list"),
        ({"loadBalancingConfig": [{"rr": {}}]}, r"loadBalancingConfig\[0\].rr: is none of"),
        ({"retryThrottling": {"maxTokens": 1}}, "retryThrottling.*budget"),
        ({"methodConfig": [{"name": [{}], "timeout": "1s"}]}, r"methodConfig\[0\].timeout"),
        ({"methodConfig": [{"retryPolicy": {}}]}, r"methodConfig\[0\].retryPolicy"),
        ({"methodConfig": {}}, "methodConfig: must be a list"),
        ({"methodConfig": [{"waitForReady": "yes"}]}, r"methodConfig\[0\].waitForReady: must be"),
        (balancing({"maxEjectionPercent": -1}), "maxEjectionPercent: must lie between 0 and 100"),
        (balancing({"maxEjectionPercent": 101}), "maxEjectionPercent: must lie between 0 and 100"),
        ({"healthCheckConfig": {"serviceName": 1}}, "healthCheckConfig.serviceName"),
        ({"typo": 1}, "typo: is not a field"),
        (
            {"loadBalancingConfig": [{"outlier_detection_experimental": {"interval": "1"}}]},
            "interval: must be seconds",
        ),
        (
            {"loadBalancingConfig": [{"outlier_detection_experimental": {}}]},
            "childPolicy: must be a list",
        ),
    ],
)
def test_bad_config_is_refused(config: dict[str, Any], problem: str) -> None:
    """A config that gRPC would fail every call with is refused when the mesh is made, by field."""
    with pytest.raises(service_config.ServiceConfigError, match=problem):
        accord.Mesh("caller", service_config=config)


def test_what_gRPC_takes_is_taken() -> None:
    """Bounds themselves, and the fields of a method that are the core's."""
    for percent in (0, 100):
        service_config.check(balancing({"maxEjectionPercent": percent}))
    service_config.check({"methodConfig": [{"name": [{}], "waitForReady": True}]})


@pytest.mark.parametrize("health", [None, "", "shop.orders.v1.OrderService"])
def test_default_passes_the_check(health: str | None) -> None:
    """What a channel has by itself is what one may give."""
    service_config.check(service_config.default(health=health))


async def test_outlier_is_ejected() -> None:
    """One backend of three that answers UNAVAILABLE gets no more calls; the others get them all."""
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(serving(accord.Mesh("callee"), {"Unary": behaviour}))
            for behaviour in (_good, _good, _bad)
        ]
        mesh = accord.Mesh("caller", targets={"echo": f"ipv4:{','.join(addresses)}"})
        stack.push_async_callback(mesh.close)
        stub = Stub(mesh.channel("echo"))
        outcomes: list[bool] = []

        async def call() -> None:
            try:
                await stub.Unary(Message())
            except grpc.aio.AioRpcError:
                outcomes.append(False)
            else:
                outcomes.append(True)

        for _ in range(2000):
            await call()
            if outcomes[-60:] == [True] * 60:
                break
        else:
            raise AssertionError("the broken backend was never left out")
        assert not all(outcomes)


def test_an_attempt_waits_for_another_turn() -> None:
    """It waits while the next backend would be that of the attempt before, but not for long."""
    target = Target("echo", BudgetPolicy(), time.monotonic)
    target.turns = 5
    assert not list(target.waits(0)), "a first attempt"
    assert not list(target.waits(5)), "nobody has called in between"
    target.turns = 6
    waits = target.waits(5)
    assert next(waits) == WAIT
    target.turns = 7
    assert not list(waits), "another call has made an attempt"
    assert len(list(target.waits(6))) == MAX_WAITS


@pytest.mark.parametrize("driver", ["aio", "sync"])
async def test_another_attempt_goes_elsewhere(driver: str) -> None:
    """With one of two backends at fault the second attempt is answered, with calls in between."""
    at_fault = False

    async def ill(request: Any, context: Any) -> Any:
        if at_fault:
            raise accord.Unavailable("BROKEN", 0.0)
        return request

    method, mesh = "Retried", accord.Mesh("caller")
    policy = policy_pb2.MethodPolicy()
    policy.timeout.seconds = 2
    policy.retry.max_attempts = 2
    policy.retry.initial_backoff.FromMilliseconds(1)
    policy.retry.max_backoff.FromMilliseconds(20)
    mesh.control.overrides.set(path(method), mesh_pb2.Override(policy=policy))
    async with (
        serving(accord.Mesh("callee"), {method: _good}) as good,
        serving(accord.Mesh("callee"), {method: ill}) as bad,
    ):
        target = f"ipv4:{good},{bad}"
        stub = Stub(mesh.channel(target) if driver == "aio" else mesh.sync.channel(target))
        call = getattr(stub, method)

        async def one() -> bool:
            try:
                if driver == "aio":
                    await call(Message())
                else:
                    await asyncio.to_thread(call.future(Message()).result)
            except grpc.RpcError:
                return False
            return True

        for _ in range(40):
            assert await one()
        at_fault = True
        calls = []
        for _ in range(80):  # before the bad one is left out
            calls.append(asyncio.ensure_future(one()))
            await asyncio.sleep(0.003)
        failed = (await asyncio.gather(*calls)).count(False)
        assert failed <= 12  # by chance it would be a quarter; 2 on an idle machine
        await mesh.close()


async def test_health_and_drain() -> None:
    """A server tells its health by itself: SERVING per service, NOT_SERVING before it stops."""
    mesh = accord.Mesh("callee")
    server = mesh.server(lame_duck=0.05)
    server.add_generic_rpc_handlers((handlers({"Unary": _good}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    seen: list[int] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        seen.append((await watch.read()).status)
        await server.stop(1.0)
        seen.append((await watch.read()).status)
        watch.cancel()
    status = health_pb2.HealthCheckResponse
    assert seen == [status.SERVING, status.NOT_SERVING]


async def test_invalid_contract_does_not_start() -> None:
    """A server with a method of invalid policy does not start; file, method and field are named."""
    file = descriptor_pb2.FileDescriptorProto(
        name="accordtest/v1/broken.proto",
        package="accordtest.v1",
        dependency=["accordtest/v1/echo.proto", "accord/v1/policy.proto"],
    )
    method = file.service.add(name="BrokenService").method.add(
        name="Never",
        input_type=".accordtest.v1.Message",
        output_type=".accordtest.v1.Message",
    )
    method.options.Extensions[policy_pb2.policy].timeout.SetInParent()
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    server = accord.Mesh("callee").server()
    server.add_registered_method_handlers("accordtest.v1.BrokenService", {})
    with pytest.raises(accord.ContractError, match=r"broken\.proto.*BrokenService/Never.*timeout"):
        await server.start()
    await server.stop(None)
