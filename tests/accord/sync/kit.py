"""Real servers with threads, and clients of them, for the test contract."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

import accord
from tests.accord.kit import Handlers, Stub, handlers


@contextmanager
def serving(mesh: accord.Mesh, behaviours: Handlers, **server: Any) -> Iterator[str]:
    """A sync server of the mesh on a loopback port; yields its address."""
    running = mesh.sync.server(**server)
    running.add_generic_rpc_handlers((handlers(behaviours),))
    bound = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        running.stop(None).wait(5)


@contextmanager
def echo(behaviours: Handlers, **mesh: Any) -> Iterator[Stub]:
    """A server and a client, each with a mesh of its own; `mesh` goes to both."""
    callee, caller = accord.Mesh("callee", **mesh), accord.Mesh("caller", **mesh)
    with serving(callee, behaviours) as address:
        try:
            yield Stub(caller.sync.channel(address))
        finally:
            caller.sync.close()


def failure(call: Callable[[], Any]) -> accord.ServiceError:
    """The parsed error of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        found = accord.failure_of(error)
        assert found is not None
        return found
    raise AssertionError(f"the call succeeded: {answer}")


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something has happened; fail if it does not."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.005)


def trailers_of(error: Any) -> dict[str, Any]:
    """The trailers of a failed call."""
    return dict(error.trailing_metadata() or ())


class Hold:
    """Work that goes on until its call has ended, or for a few seconds."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()

    def __call__(self, context: Any) -> None:
        """Work."""
        self.started.set()
        gone = threading.Event()
        if context.add_callback(gone.set):
            gone.wait(5)
        self.ended.set()
