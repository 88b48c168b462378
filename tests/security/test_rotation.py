"""Leaf, intermediate and root are replaced while orders flow, and no call fails.

Certificates live for seconds. In CI each is replaced once, under some calls; `ROTATION=full` (`make
rotation`) does it three times, with orders of both kinds, 300 calls a second, 50 streams, and a
database that knows services by certificate.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from services import topology
from shopctl.certs import IDENTITIES
from shopctl.certs.authority import Authority
from tests.security.rotation import Going, Load, Newcomers
from tests.security.shop import SecureShop, secure_shop
from tests.security.test_postgres import find_binaries, server, url
from tests.support.mesh_process import SHOPCTL, inherited
from tests.support.wait import until_sync

FULL: Final = os.environ.get("ROTATION") == "full"
ROUNDS: Final = 3 if FULL else 1
ORDERS: Final = 400 if FULL else 100
RATE: Final = 300 if FULL else 30
STREAMS: Final = 50 if FULL else 10
LIFE: Final = timedelta(seconds=12)


Database = tuple[Callable[[str], str], Callable[[], None]]
"""Service -> its URL, and what renews the certificate of the server."""


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


class Renewed(Going):
    """Has a database follow the files of its certificate, as its operator would."""

    def __init__(self, authority: Authority, renew: Callable[[], None]) -> None:
        super().__init__()
        self._file, self._renew = authority.folder / "database" / "tls.crt", renew

    def run(self) -> None:
        """Look every fifth of a second."""
        seen = None
        while not self.stopping.wait(0.2):
            if (now := self._file.stat().st_mtime_ns) != seen:
                self._renew()
                seen = now


@contextmanager
def databases(authority: Authority) -> Iterator[Database | None]:
    """PostgreSQL that knows services by certificate.

    None, and a file for each service: in CI, and where there is no such server.
    """
    binaries = find_binaries()
    if not FULL or binaries is None:
        yield None
        return
    authority.issue(["database"], LIFE)
    with server(binaries, authority, topology.SERVICES) as (port, renew):
        yield lambda name: url(authority, port, name, name), renew


def serials(shop: SecureShop) -> dict[str, str]:
    rows = map(json.loads, shop.say("certs", "show", "--json").splitlines())
    return {row["name"]: row["serial"] for row in rows}


def test_orders_flow_while_certificates_are_replaced(tmp_path: Path) -> None:
    """No RPC fails or is repeated, no message is lost or doubled, and the old ones are gone."""
    home = tmp_path / "home"
    authority = Authority(home / "certs")
    authority.prepare(IDENTITIES, LIFE)
    home.chmod(0o700)
    began = time.monotonic()
    with ExitStack() as stack:
        known = stack.enter_context(databases(authority))
        environment = {} if known is None else {"DATABASE_URL": known[0]("{service}")}
        if known is not None:
            stack.enter_context(Renewed(authority, known[1]))
        shop = stack.enter_context(secure_shop(home, **environment))
        before, kinds = serials(shop), ("choreographed", "orchestrated")[: 2 if FULL else 1]
        repeated: dict[str, int] = {}
        newcomers = Newcomers(shop, known and known[0])
        with newcomers, Load(shop, RATE, STREAMS) as load:
            for kind in kinds:
                with orders(shop, kind) as process:
                    for _ in range(ROUNDS):
                        shop.say("certs", "rotate", "leaf")
                        shop.say("certs", "rotate", "intermediate")
                        shop.say("certs", "rotate", "root")
                    out, errors = process.communicate(timeout=580)
                assert out, errors + shop.mesh.logs()
                report: dict[str, Any] = json.loads(out)
                assert report["agrees"], report["differences"]
                repeated |= report["retries"]
            until_sync(lambda: "the old root" in shop.mesh.output.read_text(), "it to be dropped")
        made = load.calls["aio"] + load.calls["sync"]
        print(
            f"{len(kinds) * ROUNDS} rotations each of leaf, intermediate and root in"
            f" {time.monotonic() - began:.0f} s; {len(kinds) * ORDERS} orders, books agree,"
            f" repeated {repeated};"
            f" calls {dict(load.calls)} ({made / load.seconds:.0f}/s), {load.retries} retries;"
            f" of {STREAMS} streams {dict(load.kept)} kept, {load.messages} messages;"
            f" new connections {dict(newcomers.made)}, failed {newcomers.failed}"
        )
        assert repeated == {}, shop.mesh.logs()
        assert newcomers.failed == []
        assert newcomers.made["services"] > 10
        assert newcomers.made["broker"]
        assert newcomers.made["database"] or known is None
        assert load.calls.keys() == {"aio", "sync"}
        assert load.kept == {"aio": STREAMS // 2, "sync": STREAMS // 2}
        assert load.retries == 0
        after = serials(shop)
        assert all(before[name] != after[name] for name in before)
        # Connections to a broker that comes again are made with what is valid by then.
        shop.mesh.kill("broker")
        assert shop.order("--fulfilment", "choreographed")["status"].endswith("CONFIRMED")
        assert "renewed certificates" in shop.mesh.output.read_text()
