"""Context and shared state, where many threads are at work."""

import gc
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import accord
from accord.sync.threads import FEW, SWITCH, USUAL, share
from tests.accord.kit import Message, Stub, path
from tests.accord.sync.kit import eventually, failure, serving


def test_deadline_and_depth_travel() -> None:
    """A nested call inherits deadline and depth; in another thread only by `carry`; see `detach`.

    Measured in the leaf, which tells what it was given.
    """
    middle = accord.Mesh("middle")

    def leaf(request: Any, context: Any) -> Any:
        current = accord.current()
        assert current is not None
        return Message(text=f"{current.depth} {context.time_remaining()}")

    def relay(request: Any, context: Any) -> Any:
        stub, found = Stub(middle.sync.channel(leaf_at)), []

        def call() -> None:
            found.append(stub.Unary(Message()).text)

        if request.text == "detach":
            with accord.detach():
                call()
        elif request.text == "here":
            call()
        else:
            target = accord.carry(call) if request.text == "carry" else call
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        return Message(text=found[0])

    with (
        serving(accord.Mesh("leaf"), {"Unary": leaf}) as leaf_at,
        serving(middle, {"Forward": relay}) as middle_at,
        grpc.insecure_channel(middle_at) as channel,
    ):
        seen = {
            text: Stub(channel).Forward(Message(text=text), timeout=0.8).text.split()
            for text in ("here", "carry", "thread", "detach")
        }
        middle.sync.close()
    assert {text: depth for text, (depth, _) in seen.items()} == {
        "here": "1",
        "carry": "1",
        "thread": "0",
        "detach": "1",
    }
    assert float(seen["here"][1]) < 0.8
    assert float(seen["carry"][1]) < 0.8
    assert float(seen["thread"][1]) > 1.5


def test_nothing_is_lost_between_threads() -> None:
    """Counters, budget, breaker, limiter and routes are exact after a storm from many threads."""
    calls, workers = 40, 16
    caller = accord.Mesh("caller")
    callee = accord.Mesh("callee")

    def unary(request: Any, context: Any) -> Any:
        if request.text == "refuse":
            raise accord.NotFound()
        return request

    with serving(callee, {"Unary": unary, "Cached": unary, "Put": unary}) as address:
        stub = Stub(caller.sync.channel(address))

        def storm(worker: int) -> None:
            for index in range(calls):
                stub.Unary(Message(text="ok"))
                failure(lambda: stub.Unary(Message(text="refuse")))
                stub.Cached(Message(text=str(index % 3)))
                if index % 10 == 0:
                    stub.Put(Message())
                stub.Unary.future(Message()).result()

        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(storm, range(workers)))
        snapshot = caller.snapshot()
        found = {route.method: route for route in snapshot.routes}
        assert found[path("Unary")].calls == workers * calls * 3
        cached = found[path("Cached")]
        assert cached.calls == cached.cache_hits + cached.cache_misses == workers * calls
        assert found[path("Put")].calls == workers * calls / 10
        assert snapshot.targets[0].budget.calls <= sum(route.calls for route in snapshot.routes)
        served = callee.control.limiter.snapshot()
        assert (served.in_flight, served.queued, served.refused) == (0, 0, 0)
        caller.sync.close()


class Yielding:
    """Garbage that lets other threads run when it is collected, as gRPC's own objects do."""

    def __init__(self) -> None:
        self.myself = self

    def __del__(self) -> None:
        time.sleep(0)


@pytest.fixture
def collecting() -> Iterator[None]:
    """Garbage is collected all the time."""
    usual = gc.get_threshold()
    gc.set_threshold(100)
    yield
    gc.set_threshold(*usual)


@pytest.mark.usefixtures("collecting")
def test_one_mesh_for_both() -> None:
    """Threads use routes of a mesh while its snapshot is taken and answers are dropped."""
    mesh = accord.Mesh("both")
    stop = threading.Event()
    problems: list[BaseException] = []

    def look() -> None:
        try:
            while not stop.is_set():
                for _ in range(10):
                    Yielding()
                mesh.snapshot()
                mesh._methods.written(path("Put"))
        except Exception as error:  # a table that changed while it was read
            problems.append(error)

    watcher = threading.Thread(target=look)
    watcher.start()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: mesh._methods.find(f"target-{n}", path("Unary")), range(3000)))
    stop.set()
    watcher.join()
    assert problems == []


def test_no_threads_grow() -> None:
    """Futures that are retried and streams that are watched need no threads of their own."""

    def down(request: Any, context: Any) -> Any:
        raise accord.Unavailable("DOWN", retry_after=0.05)

    mesh = accord.Mesh("caller")
    earlier = threading.active_count()  # of tests before, for a while
    with serving(accord.Mesh("callee"), {"Retried": down}, max_workers=8) as address:
        stub = Stub(mesh.sync.channel(address))
        futures = [stub.Retried.future(Message()) for _ in range(40)]
        most = 0
        while not all(call.done() for call in futures):
            most = max(most, sum("accord-server" not in t.name for t in threading.enumerate()))
            time.sleep(0.005)
        assert most < earlier + 12  # gRPC's own for the channel and the server, and the timers
        mesh.sync.close()
    eventually(lambda: all("accord-" not in t.name for t in threading.enumerate()), 5)


def test_health_of_grpc_is_served() -> None:
    """The health service of gRPC, whose Watch sends by itself, works and holds no thread."""
    mesh = accord.Mesh("callee")
    with (
        serving(mesh, {"Unary": lambda request, context: request}, max_workers=4) as address,
        grpc.insecure_channel(address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(6):
            watches.append(health.Watch(health_pb2.HealthCheckRequest(), timeout=5))
            assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVING
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=2).status == 1
        for watch in watches:
            watch.cancel()


def test_few_calls_share_the_interpreter_in_smaller_parts() -> None:
    """Where a limit is stated, gRPC's thread has its turn soon, unless a crowd waits for one."""
    mesh = accord.Mesh("callee")
    share(FEW + 1)
    try:
        with (
            serving(mesh, {"Limited": lambda request, context: request}) as address,
            grpc.insecure_channel(address) as channel,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            health.Check(health_pb2.HealthCheckRequest())  # has no limit
            assert sys.getswitchinterval() == USUAL
            Stub(channel).Limited(Message())
            assert sys.getswitchinterval() == SWITCH < USUAL
        share(FEW + 1)
        assert sys.getswitchinterval() == USUAL
    finally:
        sys.setswitchinterval(USUAL)
