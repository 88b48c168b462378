"""Leaf, intermediate and root are replaced while orders flow, and no call fails.

Certificates live for seconds. In CI each is replaced once; `ROTATION=full` (`make rotation`) does
it three times, with orders of both kinds.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from services import topology
from shopctl.certs import IDENTITIES
from shopctl.certs.authority import Authority
from shopctl.identity import _watched, credentials
from tests.security.shop import SecureShop, secure_shop
from tests.support.mesh_process import SHOPCTL, inherited
from tests.support.wait import until_sync

FULL: Final = os.environ.get("ROTATION") == "full"
ROUNDS: Final = 3 if FULL else 1
ORDERS: Final = 400 if FULL else 100
LIFE: Final = timedelta(seconds=8)


@contextmanager
def orders(shop: SecureShop, fulfilment: str) -> Iterator[subprocess.Popen[str]]:
    """Orders, one after the other, with all books compared in the end."""
    words = ("replay", "--json", "--orders", str(ORDERS), "--concurrency", "4", "--timeout", "550")
    process = subprocess.Popen(
        [*SHOPCTL, *words, "--fulfilment", fulfilment],
        env={**inherited(), "MESH_HOME": str(shop.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()


class Newcomers:
    """Connections that are made all the time, each with the certificates of its moment."""

    def __init__(self, shop: SecureShop) -> None:
        self.made = 0
        self.failed: list[str] = []
        self._addresses = {n: topology.address(n, shop.mesh.offset) for n in topology.SERVICES}
        self._operator = _watched(shop.home / "certs" / "operator")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Newcomers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for name, address in self._addresses.items():
                options = [
                    ("grpc.ssl_target_name_override", name),
                    ("grpc.use_local_subchannel_pool", 1),
                ]
                with grpc.secure_channel(address, credentials(self._operator), options) as channel:
                    check = channel.unary_unary(
                        "/grpc.health.v1.Health/Check",
                        HealthCheckRequest.SerializeToString,
                        HealthCheckResponse.FromString,
                    )
                    try:
                        check(HealthCheckRequest(), timeout=10)
                        self.made += 1
                    except grpc.RpcError as error:
                        self.failed.append(f"{name}: {error}")
            self._stopping.wait(0.1)


def serials(shop: SecureShop) -> dict[str, str]:
    rows = map(json.loads, shop.say("certs", "show", "--json").splitlines())
    return {row["name"]: row["serial"] for row in rows}


def test_orders_flow_while_certificates_are_replaced(tmp_path: Path) -> None:
    """No RPC fails or is repeated, no message is lost or doubled, and the old ones are gone."""
    home = tmp_path / "home"
    Authority(home / "certs").prepare(IDENTITIES, LIFE)
    home.chmod(0o700)
    with secure_shop(home) as shop:
        before, kinds = serials(shop), ("choreographed", "orchestrated")[: 2 if FULL else 1]
        with Newcomers(shop) as newcomers:
            for kind in kinds:
                with orders(shop, kind) as process:
                    for _ in range(ROUNDS):
                        shop.say("certs", "rotate", "intermediate")
                        shop.say("certs", "rotate", "root")
                    out, errors = process.communicate(timeout=580)
                assert out, errors + shop.mesh.logs()
                report: dict[str, Any] = json.loads(out)
                assert report["agrees"], report["differences"]
                assert report["retries"] == {}, shop.mesh.logs()
            until_sync(lambda: "the old root" in shop.mesh.output.read_text(), "it to be dropped")
        assert newcomers.failed == []
        assert newcomers.made > 10
        after = serials(shop)
        assert all(before[name] != after[name] for name in before)
        # Connections to a broker that comes again are made with what is valid by then.
        shop.mesh.kill("broker")
        assert shop.order("--fulfilment", "choreographed")["status"].endswith("CONFIRMED")
        assert "renewed certificates" in shop.mesh.output.read_text()
