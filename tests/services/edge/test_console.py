"""The edge forwards the console, and says nothing for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from aiohttp import web

from services.edge.console import MAX_FORM, Console

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def behind() -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Who answers, and what has come to it."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        body = await request.read()
        return web.Response(
            body=body, status=303, headers={"location": "/console/", "set-cookie": "a=b"}
        )

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"{host}:{port}", seen
    await runner.cleanup()


async def test_a_request_travels_as_it_is(behind: tuple[str, list[web.Request]]) -> None:
    """Path, query, name of the host, body and answer; whom it is forwarded for, the edge says."""
    address, seen = behind
    console = Console(address)
    transport = httpx.ASGITransport(console, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        headers = {"x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "http", "cookie": "c=d"}
        path = "/console/work%2F..?a=%26b&a"
        answer = await client.post(path, content=b"x=1", headers=headers)
        assert (answer.status_code, answer.content) == (303, b"x=1")
        assert (answer.headers["location"], answer.headers["set-cookie"]) == ("/console/", "a=b")
        (request,) = seen
        assert request.raw_path == path
        told = {name: request.headers.getall(name) for name in ("host", "cookie")}
        assert told == {"host": ["shop.example"], "cookie": ["c=d"]}
        assert request.headers.getall("x-forwarded-for") == ["192.0.2.7"]
        assert request.headers.getall("x-forwarded-proto") == ["https"]
        assert (await client.post("/console/", content=b"x" * (MAX_FORM + 1))).status_code == 413
    await console.close()


async def test_a_console_that_is_away_is_503() -> None:
    """And the edge lives on."""
    console = Console("127.0.0.1:1")
    transport = httpx.ASGITransport(console)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        assert (await client.get("/console/")).status_code == 503
    await console.close()


async def test_a_stream_ends_with_its_reader() -> None:
    """Whoever leaves is not watched for any more."""
    left = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b": here\n\n")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    app = web.Application()
    app.router.add_get("/console/live", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    console = Console("{}:{}".format(*runner.addresses[0][:2]))
    sent: list[dict[str, object]] = []
    gone = asyncio.Event()
    asked: list[dict[str, object]] = [{"type": "http.request", "body": b""}]

    async def receive() -> dict[str, object]:
        if asked:
            return asked.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)
        if len(sent) > 3:
            gone.set()

    scope = {"method": "GET", "scheme": "http", "raw_path": b"/console/live", "client": None}
    rest: dict[str, Any] = {"query_string": b"", "headers": []}
    async with asyncio.timeout(10):
        await console({**scope, **rest}, receive, send)
        await left.wait()
    await console.close()
    await runner.cleanup()
