"""Many who watch one order by server-sent events: memory of the gateway, and its CPU while idle."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import uvloop

from benchmarks import harness
from benchmarks.edge import ORDER, gateway, tokens_of
from tests.accord.edge.kit import Issuer

USERS: Final = 10
"""Who watch it: each has so many streams, and one call behind them."""


async def run(watchers: int, seconds: float) -> dict[str, object]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, upstream = await stack.enter_async_context(harness.server("benchmarks.edge_server"))
        issuer = Issuer(folder / "jwks.json")
        pid, port = await stack.enter_async_context(gateway(folder, issuer, upstream))
        tokens = tokens_of(issuer, USERS)
        for token in tokens:  # what is made once
            stack.push_async_callback(_closed, await opened(port, token))
        before = _memory(pid)
        for number in range(watchers):
            stack.push_async_callback(_closed, await opened(port, tokens[number % USERS]))
        await asyncio.sleep(1)
        grown, spent = _memory(pid) - before, harness.cpu_seconds(pid)
        await asyncio.sleep(seconds)
        return {
            "watchers": watchers,
            "memory, MB": round(grown / 2**20, 1),
            "idle, % of a core": round((harness.cpu_seconds(pid) - spent) / seconds * 100, 2),
        }


async def opened(port: int, token: str) -> asyncio.StreamWriter:
    """A stream, of which the first event is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    head = f"GET /v1/orders/{ORDER}/updates HTTP/1.1\r\nhost: shop\r\nauthorization: {token}"
    writer.write(f"{head}\r\naccept: text/event-stream\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"\ndata: "), 10)
    return writer


async def _closed(writer: Any) -> None:
    writer.transport.abort()


def _memory(pid: int) -> int:
    found: int = psutil.Process(pid).memory_full_info().pss
    return found


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--watchers", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=45.0, help="of idleness")
    given = options.parse_args()
    figures = uvloop.run(run(given.watchers, given.seconds))
    harness.report("watchers", figures, as_json=given.json)


if __name__ == "__main__":
    main()
