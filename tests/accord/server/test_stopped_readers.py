"""Readers that stop hold nothing for longer than the contract allows, whichever kind of gRPC."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.aio import server_call as aio_call
from accord.contract import MethodPolicy, method_policy
from accord.server import timeouts
from accord.server.state import Limits
from accord.server.timeouts import TimedCall, TimeLimits, time_limits
from accord.sync import server_call as sync_call
from tests.accord.kit import Message, Stub, handlers, path
from tests.support.http2 import Connection
from tests.support.wait import until_sync

Serve = Callable[[accord.Mesh, str], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def in_threads(mesh: accord.Mesh, method: str) -> Iterator[str]:
    """A server with threads, one of whose methods sends without end."""

    def endless(request: Any, context: Any) -> Iterator[Any]:
        while True:
            yield Message(text="x" * 1000)
            time.sleep(0.001)

    server = mesh.sync.server(lame_duck=0)
    server.add_generic_rpc_handlers((handlers({method: endless}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(20)


@contextlib.contextmanager
def in_an_event_loop(mesh: accord.Mesh, method: str) -> Iterator[str]:
    """The same with an event loop, in a thread of its own."""

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield Message(text="x" * 1000)
            await asyncio.sleep(0)

    async def serve() -> None:
        server = mesh.server()
        server.add_generic_rpc_handlers((handlers({method: endless}),))
        address.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        serving.set()
        await asyncio.to_thread(stop.wait)
        await server.stop(None)

    address: list[str] = []
    serving, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert serving.wait(20)
    try:
        yield address[0]
    finally:
        stop.set()
        thread.join(20)


BOTH = pytest.mark.parametrize("serve", [in_an_event_loop, in_threads])


def held(mesh: accord.Mesh) -> int:
    """Streams that hold a place."""
    return mesh.control.shares.taken


@BOTH
@pytest.mark.parametrize(
    ("method", "window"), [("Quiet", 0), ("Quiet", 40_000), ("WatchBriefly", 0)]
)
def test_a_time_limit_does_not_wait_for_the_reader(serve: Serve, method: str, window: int) -> None:
    """Idle and lifetime act though a write is blocked: the stream is reset, its place is free."""
    mesh = accord.Mesh("callee")
    with serve(mesh, method) as address, Connection(address, window=window) as connection:
        for stream in range(1, 41, 2):
            connection.open(stream, path(method).encode())
        until_sync(lambda: len(connection.ended) == 20, "all are reset")
        until_sync(lambda: held(mesh) == 0, "all places are free")
        assert connection.open_


@BOTH
def test_a_slow_reader(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the contract limits nothing but work, one response may wait for so long and no longer.

    Who begins to read again learns of it; its status is not lost.
    """
    monkeypatch.setattr(timeouts, "SLOW_READER", 0.3)
    for driver in (aio_call, sync_call):
        monkeypatch.setattr(driver, "ANSWER_TIME", 60.0)
    mesh = accord.Mesh("callee")
    with serve(mesh, "Watch") as address, Connection(address, window=10_000) as connection:
        connection.open(1, path("Watch").encode())
        until_sync(lambda: held(mesh) == 1, "it has a place")
        time.sleep(1)
        connection.read_on(1, 10_000_000)
        assert connection.wait(1, 20) == grpc.StatusCode.ABORTED.value[0]
        until_sync(lambda: held(mesh) == 0, "its place is free")


@BOTH
def test_a_share_for_each_connection(serve: Serve) -> None:
    """Streams of one connection leave places for others."""
    mesh = accord.Mesh("callee", limits=Limits(streams=20))
    with serve(mesh, "ServerStream") as address, Connection(address, window=0) as greedy:
        for stream in range(1, 81, 2):
            greedy.open(stream, path("ServerStream").encode())
        until_sync(lambda: len(greedy.ended) == 26, "the others are refused")
        assert set(greedy.ended.values()) == {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}
        with grpc.insecure_channel(address) as channel:
            call = Stub(channel).ServerStream(Message(), timeout=60)
            assert next(call).text
            call.cancel()
        assert held(mesh) >= 14


def test_when_a_reader_is_slow() -> None:
    """It is looked for in time, and reading something does not excuse it."""
    now = 0.0
    call = TimedCall(method_policy(path("Watch")), TimeLimits(1000, 500, 30), lambda: now)
    assert call._due(now) == 30
    now = 29
    call.writing()
    now = 30
    assert call._look(now) is None
    assert call._due(now) == 59
    now = 58
    call.touch()
    now = 59
    error = call._look(now)
    assert isinstance(error, accord.Aborted)
    assert error.reason == "SLOW_CONSUMER"


def test_where_readers_may_not_be_slow() -> None:
    """Where the contract says something of streams, resuming or limits."""
    for name in ("Watch", "Quiet", "ServerStream"):
        limits = time_limits(method_policy(path(name)))
        assert limits is not None
        assert limits.write == timeouts.SLOW_READER
    assert time_limits(MethodPolicy("/a.B/C", server_streaming=True)) is None
