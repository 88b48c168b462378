"""Contracts to export, a server that fails on command, and Node."""

import asyncio
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from accord.protos import include
from accord_checks import image
from accord_checks.declarations import Rpc
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.support.node import asked
from tools.offline_packages import fill_node

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SCRIPTS = Path(sys.executable).parent
RPCS = 300
COMMAND = "import sys; from accord_checks.cli import main; sys.exit(main())"

Image = descriptor_pb2.FileDescriptorSet


@cache
def shop_image() -> Image:
    """The contracts of this repository."""
    return image.read(str(ROOT))


@cache
def foreign_image() -> Image:
    """Contracts that this repository knows nothing of, compiled by protoc."""
    return compiled(HERE / "protos")


@cache
def large_image() -> Image:
    """Thirty services of ten RPCs each, without any policy."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RPCS // 10):
            rpcs = "".join(f"rpc Do{rpc}(M) returns (M);" for rpc in range(10))
            Path(folder, f"s{number}.proto").write_text(
                f'syntax = "proto3"; package large.p{number}.v1;'
                f" service S{number} {{ {rpcs} }} message M {{ string text = 1; }}"
            )
        return compiled(Path(folder))


def compiled(folder: Path) -> Image:
    """What protoc makes of all `.proto` files of a folder."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.proto"))
    wellknown = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile() as out:
        arguments = (f"-I{folder}", f"-I{include()}", f"-I{wellknown}", "--include_imports")
        command = ["protoc", *arguments, "--include_source_info", f"-o{out.name}", *files]
        assert protoc.main(command) == 0
        return Image.FromString(Path(out.name).read_bytes())


def all_contracts() -> dict[str, ResolvedContracts]:
    """All of them, by name."""
    images = {"shop": shop_image(), "foreign": foreign_image(), "large": large_image()}
    return {name: ResolvedContracts(found) for name, found in images.items()}


@cache
def flaky() -> Mapping[str, Rpc]:
    """The RPCs of the service that fails on command, by name."""
    methods = ResolvedContracts(foreign_image()).rpcs()
    return {
        method.short: method for method in methods if method.service.name == "flaky.v1.FlakyService"
    }


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Source: TypeAlias = Callable[[], Image]
Behaviour: TypeAlias = Callable[[int, Context], grpc.StatusCode | Awaitable[None] | None]
"""What to do with an attempt, the first being 1: None answers, a code fails, an awaitable waits."""


class Flaky(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Serves RPCs by name: every answer is empty, and failures come as told."""

    def __init__(self, methods: Iterable[Rpc]) -> None:
        self._policies = {method.policy.method: method.policy for method in methods}
        self.behaviours: dict[str, Behaviour] = {}
        self.attempts: Counter[str] = Counter()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        name: str = handler_call_details.method
        policy = self._policies.get(name)
        if policy is None:
            return None

        async def single(_: Any, context: Context) -> bytes:
            await self._decide(name, context)
            return b""

        async def streamed(_: Any, context: Context) -> AsyncIterator[bytes]:
            await self._decide(name, context)
            yield b""

        if policy.server_streaming:
            if policy.client_streaming:
                return grpc.stream_stream_rpc_method_handler(streamed)
            return grpc.unary_stream_rpc_method_handler(streamed)
        if policy.client_streaming:
            return grpc.stream_unary_rpc_method_handler(single)
        return grpc.unary_unary_rpc_method_handler(single)

    async def _decide(self, name: str, context: Context) -> None:
        self.attempts[name] += 1
        behaviour = self.behaviours.get(name, _well)
        decided = behaviour(self.attempts[name], context)
        if isinstance(decided, grpc.StatusCode):
            await context.abort(decided, "as told")
        elif decided is not None:
            await decided

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """The port on which it is served."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield port
        finally:
            await server.stop(None)


def _well(_: int, __: Context) -> None:
    return None


def failing(code: grpc.StatusCode, times: float = math.inf) -> Behaviour:
    """Fails with a code, the first few times or always."""
    return lambda attempt, _: code if attempt <= times else None


def hanging(_: int, __: Context) -> Awaitable[None]:
    """Never answers."""
    return asyncio.Event().wait()  # type: ignore[return-value]


async def outcome(channel: grpc.aio.Channel, method: str, *, streamed: bool = False) -> str:
    """What comes of a call with an empty request: the name of its code."""
    try:
        async with asyncio.timeout(30):
            if streamed:
                call = channel.unary_stream(method, bytes, bytes)
                async for _ in call(b""):
                    pass
            else:
                await channel.unary_unary(method, bytes, bytes)(b"")
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def node(script: str, given: Any) -> Any:
    """Run a script under Node: JSON in, JSON out."""
    await asyncio.to_thread(fill_node)
    return await asked(HERE / "node", script, given)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line, in a process of its own."""
    return subprocess.run(
        (sys.executable, "-c", COMMAND, *arguments),
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
