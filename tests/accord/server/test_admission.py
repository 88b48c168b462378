"""Who is admitted: identity, depth, rate and room, in this order."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from accord import Limits
from accord.context import ANONYMOUS, CallContext
from accord.contract.live_overrides import parse
from accord.ops.v1 import mesh_pb2 as ops
from accord.policies.call_depth import TOO_DEEP
from accord.policies.fault_injection import FaultPolicy
from accord.policies.queue import PATIENCE, Waiter
from accord.policies.retry import PUSHBACK_KEY
from accord.policies.types import Priority
from accord.server.admission import Admission
from accord.v1 import policy_pb2
from tests.accord.drivers import Driver
from tests.accord.kit import (
    Message,
    Stub,
    bound,
    collect,
    eventually,
    failure,
    idle,
    path,
    take,
)
from tests.accord.server_kit import (
    certificate_of,
    certify,
    mutual,
    rejected,
    secured,
    trailers_of,
)
from tests.accord.test_arities import finish

Code = grpc.StatusCode

ALICE = "spiffe://test.internal/alice"
OPERATOR = "spiffe://shop.internal/operator"
"""Whom the contract of the operator's RPCs lists."""


async def answer(request: Any, context: Any) -> Any:
    return request


class Gate:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.started = 0
        self.open = asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> Any:
        raise NotImplementedError  # gRPC wants functions: see `unary`

    def unary(self) -> Any:
        async def handler(request: Any, context: Any) -> Any:
            self.started += 1
            await self.open.wait()
            return request

        return handler


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certify(folder, ("server", "alice", "bob"))
    return folder


@pytest.mark.parametrize("authorize", [False, True])
async def test_allow_list(driver: Driver, certificates: Path, authorize: bool) -> None:
    """With mutual TLS a caller that the contract does not list is PERMISSION_DENIED."""
    mesh = accord.Mesh("callee", authorize=authorize)
    behaviours = {"Guarded": answer, "Limited": answer, "Unary": answer}
    async with mutual(driver, mesh, behaviours, certificates, ("alice", "bob")) as stubs:
        assert (await stubs["alice"].Guarded(Message(text="a"))).text == "a"
        error = await failure(stubs["bob"].Guarded(Message()))
        assert (error.code, error.reason) == (Code.PERMISSION_DENIED, "NOT_ALLOWED")
        assert error.message == (
            "spiffe://test.internal/bob may not call accordtest.v1.EchoService/Guarded:"
            " its contract allows spiffe://test.internal/alice"
        )
        assert (await stubs["bob"].Limited(Message(text="b"))).text == "b"  # "*"
        unlisted = stubs["alice"].Unary(Message(text="c"))  # its contract lists nobody
        if authorize:
            assert (await failure(unlisted)).code is Code.PERMISSION_DENIED
        else:
            assert (await unlisted).text == "c"


async def test_identity_of_a_mesh_client(driver: Driver, certificates: Path) -> None:
    """Channels of a mesh show the certificate that they are given, and keep it."""
    caller = accord.Mesh("caller")
    alice, bob = (certificate_of(certificates, name) for name in ("alice", "bob"))
    mesh, behaviours = accord.Mesh("callee"), {"Guarded": answer}
    async with secured(driver, mesh, behaviours, certificates) as address:
        stub = driver.stub(caller, address, credentials=alice)
        assert driver.stub(caller, address, credentials=alice)._channel is stub._channel
        assert (await stub.Guarded(Message(text="a"))).text == "a"
        stub = driver.stub(caller, address, credentials=bob)
        refused = await failure(stub.Guarded(Message()))
        assert (refused.code, refused.reason) == (Code.PERMISSION_DENIED, "NOT_ALLOWED")
        plain = await failure(driver.stub(caller, address).Guarded(Message()))
        assert plain.code is Code.UNAVAILABLE
        await driver.close(caller)


@pytest.mark.parametrize(
    ("service", "authorize", "principal", "refused"),
    [
        ("health.v1.Health/Check", True, ANONYMOUS, None),
        ("channelz.v1.Channelz/GetServers", False, ANONYMOUS, None),
        ("channelz.v1.Channelz/GetServers", False, ALICE, None),
        ("channelz.v1.Channelz/GetServers", True, ANONYMOUS, "NO_IDENTITY"),
        ("channelz.v1.Channelz/GetServers", True, ALICE, "NOT_ALLOWED"),
        ("channelz.v1.Channelz/GetServers", True, OPERATOR, None),
        ("reflection.v1.ServerReflection/ServerReflectionInfo", True, ANONYMOUS, "NO_IDENTITY"),
        ("reflection.v1alpha.ServerReflection/ServerReflectionInfo", True, OPERATOR, None),
    ],
)
def test_what_shows_the_process_is_its_operators(
    service: str, authorize: bool, principal: str, refused: str | None
) -> None:
    """Where identities are needed gRPC's own services, but for health, are for the operator."""
    policy = accord.method_policy(f"/grpc.{service}")
    state = accord.Mesh("callee").control
    admission = Admission(policy.method, state, streaming=False, authorize=authorize)
    call = CallContext("callee", policy, None, time.monotonic, principal)
    if refused is None:
        admission.check(call)
        return
    with pytest.raises(accord.ServiceError, match=f"grpc.{service}|certificate") as caught:
        admission.check(call)
    assert caught.value.reason == refused


async def test_anonymous_on_loopback(driver: Driver) -> None:
    """Without mutual TLS nobody has an identity: callers pass, unless identities are required."""
    async with driver.bare({"Guarded": answer}) as served:
        assert (await served.stub.Guarded(Message(text="a"))).text == "a"
    async with driver.bare({"Guarded": answer, "Unary": answer}, authorize=True) as served:
        for method in (served.stub.Guarded, served.stub.Unary):
            error = await failure(method(Message()))
            assert (error.code, error.reason) == (Code.UNAUTHENTICATED, "NO_IDENTITY")
        assert served.counts("Guarded") == {"authorization.refused.NO_IDENTITY": 1}


async def test_authorisation_in_dark_mode(
    driver: Driver, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `authorize` would add is counted and logged; a list acts on identities as before."""
    mesh = accord.Mesh("callee", authorize="dark")
    behaviours = {"Guarded": answer, "Unary": answer}
    async with mutual(driver, mesh, behaviours, certificates, ("alice", "bob")) as stubs:
        assert (await stubs["bob"].Unary(Message(text="a"))).text == "a"
        assert (await failure(stubs["bob"].Guarded(Message()))).code is Code.PERMISSION_DENIED
    async with driver.bare({"Guarded": answer}, authorize="dark") as served:
        assert (await served.stub.Guarded(Message(text="a"))).text == "a"
        assert served.counts("Guarded") == {"authorization.dark.NO_IDENTITY": 1}
    assert mesh.control.counts.of("/accordtest.v1.EchoService/Unary") == {
        "authorization.dark.NOT_ALLOWED": 1
    }
    said = [record.getMessage().partition(" trace_id")[0] for record in caplog.records]
    assert said == [
        "a call would be refused caller=spiffe://test.internal/bob"
        " method=/accordtest.v1.EchoService/Unary reason=NOT_ALLOWED times=1",
        "a call was refused caller=spiffe://test.internal/bob"
        " method=/accordtest.v1.EchoService/Guarded reason=NOT_ALLOWED times=1",
        "a call would be refused caller=anonymous"
        " method=/accordtest.v1.EchoService/Guarded reason=NO_IDENTITY times=1",
    ]


def test_authorize_is_one_of_three() -> None:
    """A word that is no mode is refused at once."""
    with pytest.raises(ValueError, match="authorize='drak'"):
        accord.Mesh("callee", authorize="drak")  # type: ignore[arg-type]


async def test_rate_limit_per_identity(driver: Driver, certificates: Path) -> None:
    """Each identity has a bucket of its own; one that is empty answers with the time to wait."""
    mesh = accord.Mesh("callee")
    async with mutual(driver, mesh, {"Limited": answer}, certificates, ("alice", "bob")) as stubs:
        for _ in range(5):
            await stubs["alice"].Limited(Message())
        error = await rejected(stubs["alice"].Limited(Message()))
        await stubs["bob"].Limited(Message())
    found = accord.failure_of(error)
    assert found is not None
    assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert found.retry_after == pytest.approx(10, abs=1)
    assert 9000 < int(trailers_of(error)[PUSHBACK_KEY]) <= 10_000


@pytest.mark.parametrize(
    ("depth", "passes"),
    [("0", True), ("2", True), ("3", False), ("64", False), ("999999", False)],
)
async def test_depth(driver: Driver, depth: str, passes: bool) -> None:
    """A chain that is longer than the contract allows is refused, and says so."""
    async with driver.bare({"Unary": answer}) as served:
        call = served.stub.Unary(Message(text="a"), metadata=(("accord-depth", depth),))
        if passes:
            assert (await call).text == "a"
            return
        error = await failure(call)
        assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, TOO_DEEP)
        assert served.counts("Unary") == {"depth.refused": 1}


async def test_dark_mode(driver: Driver) -> None:
    """In dark mode depth, rate and concurrency limits decide and count, and let the call pass."""
    async with driver.bare({"Limited": answer}) as served:
        off = (
            ops.DARK_POLICY_DEPTH,
            ops.DARK_POLICY_RATE_LIMIT,
            ops.DARK_POLICY_CONCURRENCY_LIMIT,
        )
        bound(served.mesh, "Limited", 1, dark=off)
        permit = take(served.mesh, "Limited")
        for _ in range(6):
            call = served.stub.Limited(Message(text="a"), metadata=(("accord-depth", "9"),))
            assert (await call).text == "a"
        assert served.counts("Limited") == {
            "depth.dark": 6,
            "rate_limit.dark": 1,
            "limit.dark": 6,
        }
        served.mesh.control.limiter.release(permit)
        await eventually(served.idle)


async def test_no_bound_no_refusal(driver: Driver) -> None:
    """However many calls are at work, none is refused while the process lacks nothing."""
    gate = Gate()
    async with driver.bare({"Unary": gate.unary()}) as served:
        bound(served.mesh, "Unary", 0)
        calls = [served.stub.Unary(Message(), timeout=20) for _ in range(300)]
        await eventually(lambda: gate.started == 300, 20)
        gate.open.set()
        await asyncio.gather(*calls)
        assert not served.counts("Unary")
        await eventually(served.idle)


async def test_no_room(driver: Driver) -> None:
    """A call that finds no place within its patience is told when to come back."""
    gate = Gate()
    async with driver.bare({"Unary": gate.unary()}) as served:
        bound(served.mesh, "Unary", 1)
        first = served.stub.Unary(Message())
        await eventually(lambda: gate.started == 1)
        error = await rejected(served.stub.Unary(Message()))
        found = accord.failure_of(error)
        assert found is not None
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert found.retry_after is not None
        assert int(trailers_of(error)[PUSHBACK_KEY]) == pytest.approx(
            found.retry_after * 1000, abs=1
        )
        gate.open.set()
        await first
        assert served.counts("Unary") == {"limit.refused.DEFAULT": 1}
        await eventually(served.idle)


async def test_queue_by_priority(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A critical call passes those that wait, and the least important gives up first."""
    monkeypatch.setitem(PATIENCE, Priority.DEFAULT, 30.0)
    monkeypatch.setitem(PATIENCE, Priority.CRITICAL, 30.0)
    gate, order = Gate(), []

    async def handler(request: Any, context: Any) -> Any:
        order.append(request.text)
        await gate.open.wait()
        return request

    async with driver.bare({"Unary": handler}) as served:
        bound(served.mesh, "Unary", 1)
        limiter = served.mesh.control.limiter

        def call(priority: str) -> Any:
            metadata = (("accord-priority", priority),)
            return served.stub.Unary(Message(text=priority), metadata=metadata, timeout=20)

        running = served.stub.Unary(Message(text="running"), timeout=20)
        await eventually(lambda: order == ["running"])
        usual = call("DEFAULT")
        await eventually(lambda: limiter.snapshot().queued == 1)
        critical = call("CRITICAL")
        await eventually(lambda: limiter.snapshot().queued == 2)
        assert (await failure(call("SHEDDABLE"))).reason == "OVERLOADED"
        gate.open.set()
        await asyncio.gather(running, critical, usual)
        assert order == ["running", "CRITICAL", "DEFAULT"]
        assert served.counts("Unary") == {"limit.refused.SHEDDABLE": 1}


async def test_who_sends_no_request_holds_no_place(driver: Driver) -> None:
    """A call whose request never comes takes no permit from those who have sent theirs."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watch(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            arrived.set()
            return await continuation(details)

    class SyncWatch(grpc.ServerInterceptor):  # type: ignore[type-arg]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            loop.call_soon_threadsafe(arrived.set)
            return continuation(details)

    mesh, interceptors = accord.Mesh("callee"), [Watch() if driver.aio else SyncWatch()]
    bound(mesh, "Unary", 1)
    async with (
        driver.serving(mesh, {"Unary": answer}, interceptors=interceptors) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        calls: Any = channel.stream_unary
        silent = calls(path("Unary"))()
        await arrived.wait()
        for _ in range(3):
            await Stub(channel).Unary(Message())
        await eventually(lambda: idle(mesh))
        silent.cancel()


async def test_cancelled_while_waiting(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that goes away while it waits leaves its place, and its handler never starts."""
    monkeypatch.setitem(PATIENCE, Priority.DEFAULT, 30.0)
    gate = Gate()
    async with driver.bare({"Unary": gate.unary()}) as served:
        policy = policy_pb2.MethodPolicy(limit=policy_pb2.Limit(max_concurrent=1))
        policy.timeout.seconds = 60
        served.mesh.control.overrides.set(path("Unary"), ops.Override(policy=policy))
        calls = served.mesh.control.limiter
        first = served.stub.Unary(Message())
        await eventually(lambda: gate.started == 1)
        second = served.stub.Unary(Message())
        await eventually(lambda: calls.snapshot().queued == 1)
        second.cancel()
        await eventually(lambda: calls.snapshot().queued == 0)
        late = await failure(served.stub.Unary(Message(), timeout=0.05))
        assert late.code is Code.DEADLINE_EXCEEDED
        await eventually(lambda: calls.snapshot().queued == 0)
        gate.open.set()
        await first
        await eventually(served.idle)
        assert gate.started == 1


async def test_expired_work_is_not_begun(driver: Driver) -> None:
    """A call whose deadline has passed while it waited never reaches its handler."""
    ran: list[str] = []

    async def handler(request: Any, context: Any) -> Any:
        ran.append(request.text)
        await asyncio.sleep(0.15)
        return request

    async with driver.bare({"Unary": handler}) as served:
        bound(served.mesh, "Unary", 1)
        first = asyncio.ensure_future(finish(served.stub.Unary(Message(text="first")), "Unary"))
        await eventually(lambda: ran == ["first"])
        late = await failure(served.stub.Unary(Message(text="late"), timeout=0.05))
        assert late.code is Code.DEADLINE_EXCEEDED
        await first
        await eventually(served.idle)
    assert ran == ["first"]


async def test_streams_have_their_own_limit(driver: Driver) -> None:
    """Open streams take no permits from calls, and have a fixed number of places."""
    opened = asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield request
        opened.set()
        await asyncio.sleep(60)

    behaviours = {"ServerStream": endless, "Unary": answer}
    async with driver.bare(behaviours, limits=Limits(streams=1)) as served:
        stream = served.stub.ServerStream(Message())
        await stream.read()
        await opened.wait()
        assert (await served.stub.Unary(Message(text="a"))).text == "a"
        error = await failure(collect(served.stub.ServerStream(Message())))
        assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        stream.cancel()
        await eventually(served.idle)


def _violations(request: Any) -> list[accord.FieldViolation]:
    return [accord.FieldViolation("text", "is bad")] if request.text == "bad" else []


async def test_order_of_stages(driver: Driver) -> None:
    """A call that breaks every rule meets them in order: each fix reveals the next one."""

    async def handler(request: Any, context: Any) -> Any:
        raise accord.NotFound()

    async with driver.bare(
        {"Charge": handler}, validator=_violations, idempotency="handler"
    ) as served:
        control = served.mesh.control
        control.overrides.set(
            path("Charge"),
            parse(
                "Charge",
                '{"policy": {"limit": {"max_concurrent": 1,'
                ' "rate": {"per_second": 0.001, "burst": 1}}}}',
            ),
        )
        permit = take(served.mesh, "Charge")
        deep = (("accord-depth", "9"),)

        async def reason(request: Any, metadata: Any = ()) -> str:
            return (await failure(served.stub.Charge(request, metadata=metadata))).reason

        bad = Message(text="bad")
        assert await reason(bad, deep) == TOO_DEEP
        assert await reason(bad) == "OVERLOADED"  # it had a token
        assert await reason(bad) == "RATE_LIMITED"
        bound(served.mesh, "Charge", 1, dark=[ops.DARK_POLICY_RATE_LIMIT])
        assert await reason(bad) == "OVERLOADED"
        control.limiter.release(permit)
        control.faults.inject(path("Charge"), FaultPolicy(abort_percent=100), 60)
        assert await reason(bad) == "INVALID_ARGUMENT"
        assert await reason(Message()) == "IDEMPOTENCY_KEY_REQUIRED"
        keyed = accord.idempotency_key("k1")
        assert await reason(Message(), keyed) == "FAULT_INJECTED"
        control.faults.clear(path("Charge"))
        assert await reason(Message(), keyed) == "NOT_FOUND"


HOSTILE = [
    [("accord-depth", "9" * 10_000)],
    [("accord-depth", "-1"), ("accord-attempt", "-7"), ("accord-priority", "")],
    [("accord-depth", "1e9"), ("accord-attempt", "0x10"), ("accord-priority", "9" * 10_000)],
    [("accord-depth-bin", b"\xff\x00"), ("accord-attempt-bin", b"\xff" * 10_000)],
    [("accord-fault", "%" * 10_000), ("accord-fault", "delay-ms=-1")],
    [("traceparent", "00-" + "z" * 10_000), ("baggage", "=,;=" * 2_000)],
    [("accord-priority", "critical"), ("accord-depth", " 1 "), ("accord-attempt", "1 ")],
    [(f"x-key-{index}", "v") for index in range(1000)],
    [("accord-depth", "7") for _ in range(999)] + [("accord-depth", "0")],
]


@pytest.mark.parametrize("metadata", HOSTILE)
async def test_hostile_metadata(driver: Driver, metadata: list[tuple[str, Any]]) -> None:
    """Metadata that is too long, garbled or too much is as good as none."""

    async def handler(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=f"{call.depth} {call.attempt} {call.priority.name}")

    async with driver.bare({"Unary": handler}) as served:
        for _ in range(5):
            found = await served.stub.Unary(Message(), metadata=metadata)
            assert found.text == "0 0 DEFAULT"


async def test_attempt_is_read(driver: Driver) -> None:
    """The handler's context knows which attempt of its caller it serves."""

    async def handler(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=str(call.attempt))

    async with driver.bare({"Unary": handler}) as served:
        for sent, read in (("0", "0"), ("3", "3"), ("x", "0"), ("100", "99"), ("1" * 10, "0")):
            metadata = (("accord-attempt", sent),)
            assert (await served.stub.Unary(Message(), metadata=metadata)).text == read


async def test_health_is_never_shed(driver: Driver) -> None:
    """GRPC's own services answer while there is no room for anything else."""
    mesh = accord.Mesh("callee")
    server = driver.server(mesh)
    address = await driver.start(server, {"Unary": answer})
    bound(mesh, "Unary", 1)
    assert take(mesh, "Unary")
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        found = await stub.Check(health_pb2.HealthCheckRequest())
        assert found.status == health_pb2.HealthCheckResponse.SERVING
    await driver.stop(server)


async def test_priority_travels_down(driver: Driver) -> None:
    """A nested call has the priority of the call that it is made for."""

    async def relay(request: Any, context: Any) -> Any:
        return await stub.Unary(request)

    async def leaf(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=f"{call.priority.name} {call.depth}")

    async with driver.echo({"Critical": relay, "Unary": leaf}) as stub:
        assert (await stub.Critical(Message())).text == "CRITICAL 1"


def test_who_may_go_on_waiting_asks_less_and_less_often() -> None:
    """A thousand that wait for a place do not keep the process busy with asking for it."""
    now = 0.0
    mesh = accord.Mesh("callee", clock=lambda: now)
    policy = accord.method_policy(path("Limited"))
    admission = Admission(policy.method, mesh.control, streaming=False, authorize=False)
    call = CallContext("callee", policy, None, lambda: now, priority=Priority.DEFAULT)
    waiter = Waiter(mesh.control.limiter.line(1), Priority.DEFAULT, now, lambda: None)
    asked = []
    while now < 10:
        asked.append(admission.patience(call, waiter))
        now += asked[-1]
    longest = PATIENCE[Priority.DEFAULT]
    assert asked == [longest * 2 ** max(0, each - 1) for each in range(len(asked))]
