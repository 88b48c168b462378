"""How many files of the library a call passes through when all is well."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import grpc
import grpc.aio

import accord
from tests.accord.kit import Message, Stub, handlers
from tests.accord.server_kit import bare

ROOT = Path(accord.__file__).parent

CLIENT: Final = 9
"""Files that a unary call enters on the client; `policies` do not count, each is a leaf."""

SYNC_CLIENT: Final = 10
"""The same over threads, where an answer is a call object of its own."""

SERVER: Final = 9
"""Files that it enters on the server."""


@contextmanager
def entered() -> Iterator[set[str]]:
    """The files of the library in which this thread calls a function meanwhile."""
    files: set[str] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            files.add(file.relative_to(ROOT).as_posix())

    sys.setprofile(look)
    try:
        yield files
    finally:
        sys.setprofile(None)


def _counted(files: set[str]) -> list[str]:
    return sorted(file for file in files if not file.startswith("policies/"))


async def _files_of(call: Callable[[], Awaitable[Any]]) -> list[str]:
    """The files of a call when all is well: not the first one, nor one that waits for its turn."""
    found = []
    for _ in range(8):
        with entered() as files:
            await call()
        found.append(_counted(files))
    return min(found, key=len)


@asynccontextmanager
async def _bare_server() -> AsyncIterator[str]:
    """A server without the library; yields its address."""

    async def handler(request: Any, context: Any) -> Any:
        return request

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers({"Unary": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_client() -> None:
    """A unary call can be followed through few files: those of the library on the client only."""
    mesh = accord.Mesh("caller")
    async with _bare_server() as address:
        unary = Stub(mesh.channel(address)).Unary
        files = await _files_of(lambda: unary(Message(text="a")))
        await mesh.close()
    assert len(files) <= CLIENT, files
    assert "client/call.py" in files


def test_sync_client() -> None:
    """The same over threads: those of the server are not looked at."""
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handlers({"Unary": lambda request, context: request}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    mesh = accord.Mesh("caller")
    unary = Stub(mesh.sync.channel(f"127.0.0.1:{port}")).Unary
    for _ in range(3):
        unary(Message(text="a"))
    with entered() as files:
        unary(Message(text="a"))
    mesh.sync.close()
    server.stop(None).wait(5)
    assert len(_counted(files)) <= SYNC_CLIENT, files


async def test_server() -> None:
    """A call that is admitted and answered: those of the library on the server only."""

    async def handler(request: Any, context: Any) -> Any:
        return request

    async with bare({"Unary": handler}) as served:
        unary = served.stub.Unary
        # Within the contract's timeout, as every client that knows the contract calls it.
        files = await _files_of(lambda: unary(Message(text="a"), timeout=1))
    assert len(files) <= SERVER, files
    assert "server/stage_order.py" in files
