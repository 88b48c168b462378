"""A subscriber: an HTTP server that notes what it is sent, and answers as a test wants it to."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from standardwebhooks import Webhook

from tests.support.ports import free_port

OUTBOUND: Final[dict[str, Any]] = {"outbound_networks": "127.0.0.0/8", "outbound_http": True}
"""Settings with which receivers on this machine may be called, and without TLS."""


@dataclass(frozen=True)
class Request:
    """What came in."""

    headers: dict[str, str]
    body: bytes
    raw: web.Request

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def told(self) -> tuple[str, int]:
        """Which event it is about: order and number."""
        return self.content["data"]["order_id"], self.content["sequence"]

    def verify(self, secret: str) -> Any:
        """The body, if somebody else's verifier accepts its signature."""
        return Webhook(secret).verify(self.body, self.headers)


Answer = Callable[[Request], Awaitable[web.StreamResponse]]


def says(status: int, **headers: str) -> Answer:
    """An answer without a body."""

    async def answer(request: Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


class Receiver:
    """What was received, and what is answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.answer: Answer = says(200)
        self.at_once = 0
        self.most_at_once = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Request(headers, await request.read(), request)
        self.requests.append(received)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.answer(received)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on loopback, until the block is left."""
    port = free_port()
    receiver = Receiver(f"http{'s' if tls else ''}://127.0.0.1:{port}/hook")
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield receiver
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
