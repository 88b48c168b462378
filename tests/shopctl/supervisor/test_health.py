"""What one process is asked; whether it serves is asked in `test_supervisor`."""

import asyncio
import os
from pathlib import Path

import pytest

from shopctl.supervisor.health import Answer, State, check_http, proportional_bytes


def test_memory_of_a_process(tmp_path: Path) -> None:
    """PSS where the kernel tells it, otherwise RSS, None for nobody."""
    folder = tmp_path / "7"
    folder.mkdir()
    assert proportional_bytes(7, tmp_path) is None
    (folder / "status").write_text("Name:\tx\nVmRSS:\t  12 kB\n")
    assert proportional_bytes(7, tmp_path) == 12 * 1024
    (folder / "smaps_rollup").write_text("0-1 ---p\nRss: 12 kB\nPss:  10 kB\nPss_Anon: 1 kB\n")
    assert proportional_bytes(7, tmp_path) == 10 * 1024
    own = proportional_bytes(os.getpid())
    assert own is not None
    assert own > 2**20


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", Answer(State.SERVING)),
        (
            b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"detail": "no orders"}',
            Answer(State.NOT_SERVING, "no orders"),
        ),
        (
            b"HTTP/1.1 404 Not Found\r\n\r\n<html>",
            Answer(State.NOT_SERVING, "its health cannot be read"),
        ),
        (b"", Answer(State.NOT_SERVING, "its health cannot be read")),
    ],
)
async def test_the_health_of_an_http_server(answer: bytes, said: Answer) -> None:
    """200 is serving; anything else is not, with what it says as far as it can be read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /healthz HTTP/1.1\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await check_http(f"127.0.0.1:{port}", 2.0) == said
    assert (await check_http(f"127.0.0.1:{port}", 2.0)).state is State.UNREACHABLE
