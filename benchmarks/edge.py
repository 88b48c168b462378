"""REST from outside, through the shop's own gateway and through Envoy with the exported bootstrap.

Both stand before the same server, and are called in turn over one connection of HTTP/1.1 each, one
call at a time, by many users: CPU of the gateway's process per call, and the time until its answer.
"""

import asyncio
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from operator import truediv
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import envoy, harness
from tests.accord.edge.kit import AUDIENCE, ISSUER, Issuer
from tests.contracts.export import support
from tests.contracts.export.gateways.kit import exported
from tests.support.ports import free_port

ORDER: Final = "0b3a7c1e-55f5-4b27-9a3d-0d3c9a1f2b44"

SCOPES: Final = "orders:read orders:write"

USERS: Final = 50
"""Who call in turn: each has a rate of his own."""

OTHERS: Final = tuple(f"--target={name}=127.0.0.1:1" for name in ("customers", "inventory"))
"""Services that are not called."""

CALLS: Final = {
    "GET": (f"GET /v1/orders/{ORDER}", b""),
    "POST": (f"POST /v1/orders/{ORDER}:cancel", b'{"reason": "it is too late"}'),
}


@asynccontextmanager
async def gateway(folder: Path, issuer: Issuer, upstream: str) -> AsyncIterator[tuple[int, int]]:
    """The process of the edge before a server of orders; its id and its port."""
    port = free_port()
    given = {
        "MESH_HOME": str(folder / "home"),
        "MESH_INSECURE": "1",
        "MESH_LISTEN": f"127.0.0.1:{port}",
        "MESH_METRICS": f"127.0.0.1:{free_port()}",
        "MESH_TARGETS": f"orders={upstream}",
        "MESH_EDGE_JWKS": str(issuer.file),
        "MESH_EDGE_ISSUER": ISSUER,
        "MESH_EDGE_AUDIENCE": AUDIENCE,
    }
    command = (sys.executable, "-m", "services.edge")
    async with envoy.listening(port, *command, environment={**os.environ, **given}) as pid:
        yield pid, port


def tokens_of(issuer: Issuer, users: int) -> list[str]:
    """The header of each user, good for an hour."""
    ends = time.time() + 3600
    given = [issuer.bearer(SCOPES, sub=f"u{each}", exp=ends) for each in range(users)]
    return [each["authorization"] for each in given]


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def call(self, request: bytes) -> float:
        """Seconds until the answer is there."""
        began = time.perf_counter()
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split()[0])
        body = await self._reader.readexactly(size)
        took = time.perf_counter() - began
        assert head.startswith(b"http/1.1 200"), body.decode()
        return took


def requests(what: str, tokens: list[str]) -> "itertools.cycle[bytes]":
    """A request of each user."""
    line, body = CALLS[what]
    sent = ""
    if body:
        kind = "content-type: application/json\r\nidempotency-key: one"
        sent = f"{kind}\r\ncontent-length: {len(body)}\r\n"
    return itertools.cycle(
        f"{line} HTTP/1.1\r\nhost: shop\r\nauthorization: {token}\r\n{sent}\r\n".encode() + body
        for token in tokens
    )


async def run(rounds: int, calls: int) -> dict[str, object]:
    figures: dict[str, object] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, upstream = await stack.enter_async_context(harness.server("benchmarks.edge_server"))
        issuer = Issuer(folder / "jwks.json")
        pid, port = await stack.enter_async_context(gateway(folder, issuer, upstream))
        other = free_port()
        where = ("--host=127.0.0.1", f"--port={other}", f"--target=orders={upstream}", *OTHERS)
        shop = support.shop_image()
        file = await asyncio.to_thread(exported, folder, shop, issuer, *where)
        its = await stack.enter_async_context(envoy.running(other, "-c", str(file)))
        sides = {"accord": (pid, Client(port)), "envoy": (its, Client(other))}
        for _, client in sides.values():
            await client.open()
        tokens = tokens_of(issuer, USERS)
        for what in CALLS:
            figures[what] = await compared(sides, requests(what, tokens), rounds, calls)
    return figures


async def compared(
    sides: Mapping[str, tuple[int, Client]],
    sent: "itertools.cycle[bytes]",
    rounds: int,
    calls: int,
) -> dict[str, object]:
    """Medians over rounds, in each of which both have had the same calls."""
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    p50: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in random.sample(list(sides), len(sides)):
            pid, client = sides[name]
            before = harness.cpu_seconds(pid)
            took = [await client.call(next(sent)) for _ in range(calls)]
            if number:  # the first one warms up
                cpu[name].append((harness.cpu_seconds(pid) - before) / calls * 1e3)
                p50[name].append(statistics.median(took) * 1e3)
        await asyncio.sleep(calls / 100 / USERS)  # as its users may
    return {
        "CPU of the gateway per call, ms": _medians(cpu),
        "p50, ms": _medians(p50),
        "p50 against Envoy, quartiles": [
            round(each, 2)
            for each in statistics.quantiles(map(truediv, p50["accord"], p50["envoy"]), n=4)
        ],
    }


def _medians(of: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(each), 3) for name, each in of.items()}


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--calls", type=int, default=200, help="per side and round")
    given = options.parse_args()
    figures = uvloop.run(run(given.rounds, given.calls))
    harness.report("edge", figures, as_json=given.json)


if __name__ == "__main__":
    main()
