"""Real servers and clients for the test contract, compiled when the tests start."""

import asyncio
import gc
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

import accord
from accord.ops.v1 import mesh_pb2
from accord.policies.queue import Permit
from accord.policies.types import Priority
from accord.v1 import policy_pb2

HERE = Path(__file__).parent
SERVICE = "accordtest.v1.EchoService"

Handlers = Mapping[str, Callable[..., Any]]


def add_contract(name: str) -> None:
    """Add a test contract to the default pool, as importing generated code would."""
    vocabulary = HERE.parents[1] / "protos"
    wellknown = resources.files("grpc_tools") / "_proto"
    with tempfile.NamedTemporaryFile() as out:
        arguments = [
            "protoc",
            f"-I{HERE / 'protos'}",
            f"-I{vocabulary}",
            f"-I{wellknown}",
            f"--descriptor_set_out={out.name}",
            name,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError("the test contract does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes())
    assert policy_pb2.DESCRIPTOR  # what contracts import is in the pool
    for file in files.file:
        descriptor_pool.Default().Add(file)


add_contract("accordtest/v1/echo.proto")
_POOL = descriptor_pool.Default()
_METHODS = {method.name: method for method in _POOL.FindServiceByName(SERVICE).methods}
Message: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("accordtest.v1.Message"))


def path(method: str) -> str:
    """The full name of a test method."""
    return f"/{SERVICE}/{method}"


def arity(method: str) -> str:
    """Which of gRPC's four kinds a method is: `unary_stream` answers with a stream."""
    found = _METHODS[method]
    request = "stream" if found.client_streaming else "unary"
    response = "stream" if found.server_streaming else "unary"
    return f"{request}_{response}"


def bound(mesh: accord.Mesh, method: str, most: int, **override: Any) -> None:
    """Let a server work on so many calls of a method at once; 0: on as many as come."""
    policy = policy_pb2.MethodPolicy(limit=policy_pb2.Limit(max_concurrent=most))
    mesh.control.overrides.set(path(method), mesh_pb2.Override(policy=policy, **override))


OPEN: Final = 1.5
"""Seconds for which the circuit of `patient` is open."""


def patient(mesh: accord.Mesh, method: str = "Fragile") -> None:
    """Let a circuit stay open for as long as a busy machine needs to meet it."""
    policy = policy_pb2.MethodPolicy()
    policy.timeout.seconds = 60
    policy.breaker.open.FromMilliseconds(int(OPEN * 1000))
    policy.breaker.max_open.CopyFrom(policy.breaker.open)
    mesh.control.overrides.set(path(method), mesh_pb2.Override(policy=policy))


def take(mesh: accord.Mesh, method: str) -> Permit:
    """One of a method's places on a server."""
    line = mesh.control.line(path(method), streaming=False)
    assert line is not None
    permit = mesh.control.limiter.acquire(line, Priority.DEFAULT)
    assert isinstance(permit, Permit)
    return permit


def idle(mesh: accord.Mesh) -> bool:
    """Whether a server holds no permit, and nobody waits for one."""
    found = mesh.control.limiter.snapshot()
    return not (found.in_flight or found.queued)


class Stub:
    """A client of the test service: `stub.Unary(Message(...))`."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._channel, arity(method))
        return call(
            path(method),
            request_serializer=Message.SerializeToString,
            response_deserializer=Message.FromString,
        )

    def raw(self, method: str) -> Any:
        """A method that sends bytes."""
        call = getattr(self._channel, arity(method))
        return call(path(method), response_deserializer=Message.FromString)


def handlers(behaviours: Handlers) -> Any:
    """A generic handler of some of the test methods."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            method: getattr(grpc, f"{arity(method)}_rpc_method_handler")(
                behaviour,
                request_deserializer=Message.FromString,
                response_serializer=Message.SerializeToString,
            )
            for method, behaviour in behaviours.items()
        },
    )


@asynccontextmanager
async def serving(
    mesh: accord.Mesh, behaviours: Handlers, *, port: int = 0, **server: Any
) -> AsyncIterator[str]:
    """A server of the mesh on a loopback port; yields its address."""
    running = mesh.server(**server)
    running.add_generic_rpc_handlers((handlers(behaviours),))
    bound = running.add_insecure_port(f"127.0.0.1:{port}")
    await running.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await running.stop(None)


@asynccontextmanager
async def echo(behaviours: Handlers, **mesh: Any) -> AsyncIterator[Stub]:
    """A server and a client, each with a mesh of its own; `mesh` goes to both."""
    callee, caller = accord.Mesh("callee", **mesh), accord.Mesh("caller", **mesh)
    async with serving(callee, behaviours) as address:
        try:
            yield Stub(caller.channel(address))
        finally:
            await caller.close()
            await callee.close()


async def failure(awaitable: Any) -> accord.ServiceError:
    """The parsed error of a call that must fail."""
    try:
        result = await awaitable
    except grpc.RpcError as error:
        found = accord.failure_of(error)
        assert found is not None
        return found
    raise AssertionError(f"the call succeeded: {result}")


async def collect(call: Any) -> list[Any]:
    """All messages of a stream."""
    return [message async for message in call]


async def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something has happened; fail if it does not."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # whatever is waited for has no event


async def collected(condition: Callable[[], object]) -> None:
    """As `eventually`, for what happens when the collector has been, more than once."""
    async with asyncio.timeout(20):
        while not condition():
            gc.collect()
            await asyncio.sleep(0.02)
