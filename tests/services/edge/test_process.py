"""The edge as a process beside those of the shop: how it starts, what it survives, how it ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services import topology
from tests.support.edge import EdgeCaller, problem
from tests.support.mesh_process import SHOPCTL, MeshProcess, running_mesh
from tests.support.ports import free_offset, free_port
from tests.support.wait import DEADLINE, until_sync

OTHERS = ("analytics", "accounting", "notifications", "payments", "shipping", "sandbox")
"""Not started: without payments orders stay open, and so do streams of their updates."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    """A shop without certificates, and with its edge."""
    home = tmp_path_factory.mktemp("edge") / "home"
    with running_mesh(home, free_offset(), left_out=OTHERS) as mesh:
        put = ("product", "put", "tea", "--price", "4.50", "--stock", "100", "--home", str(home))
        subprocess.run([*SHOPCTL, *put], check=True, timeout=60)
        yield mesh


@pytest.fixture
def outside(mesh: MeshProcess) -> EdgeCaller:
    return EdgeCaller(mesh.home, mesh.offset)


def edge(mesh: MeshProcess, log: Path, **settings: str) -> "subprocess.Popen[bytes]":
    """Another edge of the same shop."""
    given = {"MESH_HOME": str(mesh.home), "MESH_PORT_OFFSET": str(mesh.offset), **settings}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "services.edge"],
            env={**os.environ, "LOG_FORMAT": "text", **given},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def test_a_bearer_token_is_wanted_without_certificates_too(outside: EdgeCaller) -> None:
    """Who goes without TLS inside does not let everybody in from outside."""
    assert problem(outside.get("/v1/orders"))[0] == 401
    customer = outside.customer(outside.new_customer())
    assert customer.get("/v1/orders").status_code == 200


def test_a_service_that_is_killed_takes_no_other_with_it(
    mesh: MeshProcess, outside: EdgeCaller
) -> None:
    """Its routes are 503 with Retry-After meanwhile, others are served, then all is well again."""
    operator = outside.operator()
    mesh.kill("orders")
    refused: list[Any] = []

    def away() -> bool:
        refused.append(operator.get("/v1/orders"))
        return bool(refused[-1].status_code == 503)

    until_sync(away, "orders to be away")
    assert problem(refused[-1])[0] == 503
    assert int(refused[-1].headers["retry-after"]) >= 1
    assert outside.get("/v1/products").status_code == 200
    mesh.wait_until_serving()
    until_sync(lambda: operator.get("/v1/orders").status_code == 200, "orders to be back")
    until_sync(lambda: outside.get("/healthz").status_code == 200, "the edge to be well")


def test_health_ends_with_what_it_needs(mesh: MeshProcess, outside: EdgeCaller) -> None:
    """While a service stands still the edge does not claim to serve; then it does again."""
    until_sync(lambda: outside.get("/healthz").status_code == 200, "the edge to be well")
    pid = mesh.records()["inventory"].pid or 0
    os.kill(pid, signal.SIGSTOP)
    try:
        until_sync(lambda: outside.get("/healthz").status_code == 503, "the edge to notice")
        assert outside.get("/healthz").json()["detail"].startswith("inventory: ")
        assert outside.get("/livez").status_code == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    until_sync(lambda: outside.get("/healthz").status_code == 200, "the edge to be well")


def test_a_port_that_is_taken_is_said_in_one_line(mesh: MeshProcess, tmp_path: Path) -> None:
    """A second edge at the same address names who holds it and ends with 1."""
    process = edge(mesh, tmp_path / "log")
    assert process.wait(DEADLINE) == 1
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert f"cannot listen on {topology.address(topology.EDGE, mesh.offset)}" in last
    if sys.platform == "linux":
        assert f"process {mesh.records()['edge'].pid} " in last


def test_without_keys_it_does_not_start(mesh: MeshProcess, tmp_path: Path) -> None:
    """One line names the file that is not there, or is no key set, and what to do."""
    (tmp_path / "wrong.json").write_text('{"keys": []}')
    for name in ("missing.json", "wrong.json"):
        process = edge(mesh, tmp_path / "log", MESH_EDGE_JWKS=str(tmp_path / name))
        assert process.wait(DEADLINE) == 1
        last = (tmp_path / "log").read_text().splitlines()[-1]
        assert "no keys to verify bearer tokens by" in last
        assert "MESH_EDGE_JWKS names those of others" in last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_drains(
    mesh: MeshProcess, outside: EdgeCaller, tmp_path: Path, number: signal.Signals
) -> None:
    """Streams that are open end by themselves, for their readers to come again; it exits with 0."""
    port = free_port()
    process = edge(mesh, tmp_path / "log", MESH_LISTEN=f"127.0.0.1:{port}")
    operator = outside.operator()
    customer = outside.new_customer()
    order = operator.order(customer, "tea").json()["order"]["orderId"]
    operator.http.base_url = f"http://127.0.0.1:{port}"
    until_sync(lambda: _serves(operator), "the other edge")
    seen: list[str] = []

    def watch() -> None:
        seen.extend(number for number, _ in operator.events(f"/v1/orders/{order}/updates"))
        seen.append("end")

    watching = threading.Thread(target=watch)
    watching.start()
    until_sync(lambda: seen, "the stream")
    process.send_signal(number)
    assert process.wait(DEADLINE) == 0
    watching.join(DEADLINE)
    assert seen[-1] == "end"
    assert "draining" in (tmp_path / "log").read_text()


def _serves(caller: EdgeCaller) -> bool:
    try:
        return caller.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
