"""The HTTP server under the edge: what clients may hold, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services import http_server as server
from tests.support.ports import free_port


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answers `/` at once, and `/slow` when its body has come."""
    body = await receive()
    while body.get("more_body"):
        body = await receive()
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def serving(app: Any = hello, **options: Any) -> AsyncIterator[str]:
    address, failed = f"127.0.0.1:{free_port()}", asyncio.Event()
    async with server.serving(app, address, failed, **options):
        yield address
    assert not failed.is_set()


async def opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def test_a_request_that_is_not_finished_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing, half a line, or one header a second: the connection ends, others are served."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    async with serving() as address:
        clients = [await opened(address) for _ in range(3)]
        clients[1][1].write(b"GET / HT")
        clients[2][1].write(b"GET / HTTP/1.1\r\nhost: a\r\n")

        async def drip() -> None:
            while True:
                clients[2][1].write(b"x: y\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(20):
            assert [await reader.read() for reader, _ in clients] == [b"", b"", b""]
        dripping.cancel()
        reader, writer = await opened(address)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")


async def test_a_connection_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body may take longer than a head, and a second request may follow on the connection."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    async with serving() as address:
        reader, writer = await opened(address)
        writer.write(b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n1")
        await asyncio.sleep(0.4)
        writer.write(b"2")
        assert b"200 OK" in await reader.readuntil(b"hello")
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"hello")
        writer.close()


async def test_a_head_is_sent_with_its_body() -> None:
    """An answer that is there at once is one write, and not one for each of its parts."""
    async with serving() as address:
        reader, writer = await opened(address)
        for _ in range(20):
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await reader.read(4096)).endswith(b"hello")
        writer.close()


async def test_requests_under_way_end_before_the_server_does() -> None:
    """No more is accepted, what would not end by itself is told to, and answers are complete."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def drain() -> None:
        told.set()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        await told.wait()
        await send({"type": "http.response.body", "body": b"the end"})

    async with serving(stream, drain=drain) as address:
        reader, writer = await opened(address)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await begun.wait()
    assert b"the end" in await reader.read()
    with pytest.raises(ConnectionRefusedError):
        await opened(address)


async def test_a_port_in_use_is_said_with_who_has_it() -> None:
    """One line names the address; on Linux also the process."""
    async with serving() as address:
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            server.listen(address)


async def test_more_connections_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is answered 503 at once."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with serving() as address:
        _, idle = await opened(address)
        reader, writer = await opened(address)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        idle.close()
