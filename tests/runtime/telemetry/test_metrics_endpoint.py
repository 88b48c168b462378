"""The HTTP server of `/metrics`."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from accord_runtime.telemetry import metrics_endpoint
from accord_runtime.telemetry.metrics_endpoint import ScrapeServer
from tests.support.wait import until


class Source:
    """What is collected, and from how many threads at once."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.release.set()
        self.begun = 0
        self.most = 0
        self._now = 0

    def collect(self) -> bytes:
        self.begun += 1
        self._now += 1
        self.most = max(self.most, self._now)
        self.release.wait(5)
        self._now -= 1
        return b"up 1\n"


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
async def server(source: Source) -> AsyncIterator[ScrapeServer]:
    """A server of `source`."""
    server = ScrapeServer(source.collect)
    yield server
    await server.close()


@pytest.fixture
async def port(server: ScrapeServer) -> int:
    """Its port."""
    return await server.start("127.0.0.1", 0)


async def ask(port: int, request: bytes) -> str:
    """The answer to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return (await reader.read()).decode()
    except ConnectionResetError:
        return ""
    finally:
        writer.close()


async def test_metrics(port: int) -> None:
    """GET /metrics is answered, with or without a query."""
    for path in (b"/metrics", b"/metrics?name[]=up"):
        answer = await ask(port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith("HTTP/1.1 200 OK\r\n")
        assert answer.endswith("\r\n\r\nup 1\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"GET /metrics/../secret HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"nonsense\r\n\r\n", "404"),
        (b"GET /" + b"x" * 10_000 + b"\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\n" + b"h: v\r\n" * 5000, "400"),
    ],
)
async def test_nothing_else(port: int, source: Source, request_: bytes, status: str) -> None:
    """Everything else is refused, and nothing is collected for it."""
    answer = await ask(port, request_)
    # One that is refused while it is still being sent may be reset before it reads why.
    assert not answer or answer.startswith(f"HTTP/1.1 {status} ")
    assert source.begun == 0


async def test_it_is_bounded(server: ScrapeServer, port: int, source: Source) -> None:
    """One collection at a time, a bounded number of clients, and the loop is never held up."""
    source.release.clear()
    request = b"GET /metrics HTTP/1.1\r\n\r\n"
    waiting = [
        asyncio.create_task(ask(port, request)) for _ in range(metrics_endpoint.MAX_CONNECTIONS)
    ]
    await until(lambda: server.connections == metrics_endpoint.MAX_CONNECTIONS, "the clients")
    await until(lambda: source.begun, "the collection")
    assert await ask(port, request) == ""
    source.release.set()
    assert all(answer.startswith("HTTP/1.1 200 ") for answer in await asyncio.gather(*waiting))
    assert source.most == 1


async def test_a_silent_client_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nothing does not hold its place for ever."""
    monkeypatch.setattr(metrics_endpoint, "TIMEOUT", 0.05)
    assert await ask(port, b"") == ""
