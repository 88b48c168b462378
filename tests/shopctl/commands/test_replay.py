"""`shopctl replay` and `shopctl demo` against the real shop."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import accord
from services import topology
from shop.sandbox.v1.sandbox_pb2 import (
    BEHAVIOR_DECLINE,
    BEHAVIOR_FAIL,
    BEHAVIOR_LOSE_ANSWER,
    PARTY_CARD_PROCESSOR,
    PARTY_CARRIER,
    Behavior,
    Party,
    SetBehaviorRequest,
)
from shop.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from shopctl.errors import ExitCode
from tests.support.mesh_process import SHOPCTL, MeshProcess, inherited, running_mesh
from tests.support.ports import free_offset

DEADLINE = 60.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshProcess]:
    """One shop for all tests of this file: each leaves its past to the next."""
    with running_mesh(tmp_path_factory.mktemp("shop") / "mesh", free_offset()) as mesh:
        yield mesh


def environment(home: Path) -> dict[str, str]:
    kept = inherited()
    return {**kept, "MESH_HOME": str(home)}


def shopctl(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SHOPCTL, *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def report_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == ExitCode.OK, result.stdout + result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


async def set_behavior(
    mesh: MeshProcess, party: Party.ValueType, behavior: Behavior.ValueType, calls: int
) -> None:
    outside = accord.Mesh("test", targets=topology.targets(mesh.offset))
    try:
        await SandboxServiceStub(outside.channel("sandbox")).SetBehavior(
            SetBehaviorRequest(party=party, behavior=behavior, calls=calls)
        )
    finally:
        await outside.close()


@pytest.mark.slow
def test_replays_follow_each_other(mesh: MeshProcess) -> None:
    """The same orders can be replayed again on a shop with a past, and reconcile each time."""
    arguments = ("replay", "--orders", "40", "--declined", "20", "--short-stock", "10", "--json")
    first, second = (report_of(shopctl(mesh.home, *arguments)) for _ in range(2))
    assert first["run"] != second["run"]
    assert first["checks"] == second["checks"]
    by_name = {(check["book"], check["what"]): check["actual"] for check in first["checks"]}
    assert by_name["orders", "confirmed"] == 28
    assert by_name["orders", "failed: card declined"] == 8
    assert by_name["orders", "rejected: out of stock"] == 4
    assert by_name["payments", "captured"] == by_name["card processor", "held"] > 0


def test_choreographed_orders_have_the_same_books(mesh: MeshProcess) -> None:
    """Nothing in any book tells how the orders were seen through."""
    arguments = ("--orders", "20", "--declined", "20", "--short-stock", "10", "--json")
    saga, events = (
        report_of(shopctl(mesh.home, "replay", *arguments, "--fulfilment", fulfilment))
        for fulfilment in ("orchestrated", "choreographed")
    )
    assert events["fulfilment"] == "choreographed"
    assert saga["checks"] == events["checks"]


@pytest.mark.slow
@pytest.mark.parametrize("card", ["tok_flaky", "tok_lost"])
def test_cards_that_misbehave(mesh: MeshProcess, card: str) -> None:
    """Answers that fail or get lost at the card processor cost nobody a cent."""
    report_of(shopctl(mesh.home, "replay", "--orders", "20", "--card", card, "--json"))


@pytest.mark.slow
@pytest.mark.parametrize("behavior", [BEHAVIOR_LOSE_ANSWER, BEHAVIOR_FAIL], ids=Behavior.Name)
async def test_parties_that_misbehave(mesh: MeshProcess, behavior: Behavior.ValueType) -> None:
    """Ten answers that the processor and the carrier lose, or refuse to give, double nothing."""
    for party in (PARTY_CARD_PROCESSOR, PARTY_CARRIER):
        await set_behavior(mesh, party, behavior, calls=10)
    report_of(shopctl(mesh.home, "replay", "--orders", "20", "--json"))


@pytest.mark.slow
def test_demo(mesh: MeshProcess) -> None:
    """The demo shows the life of one order and the reconciliation, without a terminal too."""
    result = shopctl(mesh.home, "demo", "--orders", "4")
    assert result.returncode == ExitCode.OK, result.stdout + result.stderr
    for event in ("OrderPlaced", "OrderCreated", "OrderPaid", "OrderShipped", "OrderConfirmed"):
        assert event in result.stdout
    assert "all books agree: 4 orders" in result.stdout


@pytest.mark.slow
async def test_an_order_that_ends_otherwise_is_named(mesh: MeshProcess) -> None:
    """When a card is declined that should not be, the replay ends with 1 and names the order."""
    await set_behavior(mesh, PARTY_CARD_PROCESSOR, BEHAVIOR_DECLINE, calls=1)
    result = shopctl(mesh.home, "replay", "--orders", "4", "--json")
    assert result.returncode == ExitCode.FAILED, result.stderr
    report = json.loads(result.stdout)
    assert not report["agrees"]
    differing = {check["what"] for check in report["checks"] if not check["agrees"]}
    ends = {"confirmed", "failed: card declined"}
    assert differing == ends | {
        "captured",
        "held",
        "shipped",
        "taken",
        "left",
        "receivable",
        "income",
    }
    of_orders = [row for row in report["differences"] if row["book"] != "inventory"]
    assert len({row["subject"] for row in of_orders}) == 1
    assert of_orders[0]["expected"] == "confirmed"
    assert of_orders[0]["actual"] == "failed: card declined"


@pytest.mark.parametrize("command", ["replay", "demo"])
def test_nothing_runs(command: str, tmp_path: Path) -> None:
    """Without a shop it says so at once and how to start one, and ends with 4."""
    begun = time.monotonic()
    result = shopctl(tmp_path, command, "--port-offset", str(free_offset()))
    assert result.returncode == ExitCode.NOT_RUNNING
    assert "start the shop with: shopctl up" in result.stderr
    assert time.monotonic() - begun < 15, "it waited for a shop that nobody started"


@pytest.mark.slow
def test_time_is_up(mesh: MeshProcess) -> None:
    """When the time is up it says how far it came, and ends with 7."""
    arguments = ("--orders", "4", "--card", "tok_slow", "--timeout", "2")
    result = shopctl(mesh.home, "replay", *arguments)
    assert result.returncode == ExitCode.UNKNOWN_OUTCOME, result.stdout
    assert "of 4 orders were placed" in result.stderr
