"""Tests with threads: the plugin's own fixtures, and pytest-grpc with the mesh's interceptors."""

from typing import Any

import grpc
import pytest

import accord
from accord.contract.live_overrides import parse
from accord.sync.mesh import SyncMesh
from accord.testing import Clock, FaultyServer, drop, fail, hang, no_waiting
from tests.accord.kit import SERVICE, Message, Stub, handlers, path

RETRIED = f"{SERVICE}/Retried"


def test_two_failures_then_an_answer(
    accord_sync: SyncMesh, accord_faulty: FaultyServer, accord_clock: Clock
) -> None:
    """A call that blocks is retried as one that is awaited, and waits for nothing."""
    accord_faulty.script(RETRIED, "UNAVAILABLE", "UNAVAILABLE", Message(text="here"))
    stub = Stub(accord_sync.channel(accord_faulty.address))
    assert stub.Retried(Message()).text == "here"
    assert [attempt.number for attempt in accord_faulty.attempts] == [0, 1, 2]
    assert accord_clock.waits == [0.001, 0.002]


def test_a_dropped_connection_is_made_again(
    accord_mesh: accord.Mesh, accord_sync: SyncMesh, accord_faulty: FaultyServer
) -> None:
    """A call that blocks outlives its connection."""
    # Without a wait all attempts may be made before gRPC has another connection.
    patient = '{"policy": {"retry": {"initial_backoff": "0.5s", "max_backoff": "2s"}}}'
    accord_mesh.control.overrides.set(path("Retried"), parse(RETRIED, patient))
    accord_faulty.script(RETRIED, drop(), Message(text="here"))
    assert Stub(accord_sync.channel(accord_faulty.address)).Retried(Message()).text == "here"
    accord_faulty.assert_attempts(2)


def test_a_future_waits_for_nothing_either(
    accord_sync: SyncMesh, accord_faulty: FaultyServer, accord_clock: Clock
) -> None:
    """A pushback of ten seconds takes none."""
    accord_faulty.script("*", fail("UNAVAILABLE", pushback=1.5), "OK")
    future = Stub(accord_sync.channel(accord_faulty.address)).Retried.future(Message())
    future.result(timeout=10)
    assert accord_clock.waits == [1.5]


def test_a_hedge_is_sent_at_once(accord_sync: SyncMesh, accord_faulty: FaultyServer) -> None:
    """The backup answers for an attempt that hangs."""
    stub = Stub(accord_sync.channel(accord_faulty.address))
    accord_faulty.script("*", "OK")
    for _ in range(20):
        stub.Hedged(Message())
    accord_faulty.script("*", hang(), Message(text="backup"))
    assert stub.Hedged(Message()).text == "backup"
    accord_faulty.assert_attempts(22)


class Servicer:
    """Is down for its first two calls."""

    def __init__(self) -> None:
        self.calls = 0

    def unary(self, request: Any, context: Any) -> Any:
        self.calls += 1
        if self.calls <= 2:
            raise accord.Unavailable("DOWN")
        return Message(text="up")


@pytest.fixture(scope="module")
def grpc_interceptors() -> Any:
    """The server's side of pytest-grpc's server."""
    return accord.Mesh("callee").sync.server_interceptors()


@pytest.fixture(scope="module")
def grpc_servicer() -> Servicer:
    """What pytest-grpc serves."""
    return Servicer()


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    """How it is added."""

    def add(servicer: Servicer, server: grpc.Server) -> None:
        server.add_generic_rpc_handlers((handlers({"Retried": servicer.unary}),))

    return add


def test_pytest_grpc(grpc_channel: grpc.Channel, grpc_servicer: Servicer) -> None:
    """pytest-grpc serves a servicer of one's own: it is called again, and nobody waits."""
    with no_waiting() as clock:
        mesh = accord.Mesh("caller", clock=clock, random=lambda: 0.5)
        channel = grpc.intercept_channel(grpc_channel, *mesh.sync.client_interceptors("callee"))
        assert Stub(channel).Retried(Message()).text == "up"
    assert grpc_servicer.calls == 3
    assert clock.waits == [0.001, 0.002]
