"""The same calls from outside: REST at the edge, each by a token of the customer that it is for."""

import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from google.protobuf.json_format import MessageToDict

from accord_runtime.grpc.ids import uuid7
from shopctl import issuer
from shopctl.load.calls import WATCH, Stage
from shopctl.load.runner import Answered, Call

TIMEOUT: Final = 10.0
"""Seconds of a request. The contracts' own, which the edge keeps to, are shorter."""


class _Tokens:
    """Bearer tokens of customers, made anew before they end."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._made: dict[str, tuple[float, str]] = {}

    def headers(self, customer_id: str) -> dict[str, str]:
        until, token = self._made.get(customer_id, (0.0, ""))
        if until < time.monotonic():
            token = issuer.issue(self._home, customer_id, ["customer"])
            self._made[customer_id] = time.monotonic() + issuer.LIFE / 2, token
        return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def over_edge(url: str, home: Path, stage: Stage) -> AsyncIterator[Mapping[str, Call]]:
    """Kind of call -> how it is made at the edge of a shop.

    Raises CommandError: there is no key to sign tokens by.
    """
    tokens = _Tokens(home)
    for customer in stage.customers:
        tokens.headers(customer.customer_id)
    connector, limit = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(TIMEOUT)
    async with aiohttp.ClientSession(url, connector=connector, timeout=limit) as session:

        async def answer(verb: str, path: str, **options: Any) -> dict[str, Any]:
            async with session.request(verb, path, **options) as response:
                found: dict[str, Any] = await response.json(content_type=None)
                _check(response, found)
                return found

        async def place(_: Answered) -> None:
            order = stage.order()
            headers = {**tokens.headers(order.customer_id), "idempotency-key": uuid7()}
            found = await answer("POST", "/v1/orders", json=MessageToDict(order), headers=headers)
            stage.orders.append((found["order"]["orderId"], order.customer_id))

        async def get(_: Answered) -> None:
            order_id, customer_id = random.choice(stage.orders)
            await answer("GET", f"/v1/orders/{order_id}", headers=tokens.headers(customer_id))

        async def stock(_: Answered) -> None:
            await answer("GET", f"/v1/products/{random.choice(stage.products).sku}")

        async def watch(answered: Answered) -> None:
            order_id, customer_id = stage.orders[-1]
            path, headers = f"/v1/orders/{order_id}/updates", tokens.headers(customer_id)
            limit = aiohttp.ClientTimeout(WATCH)
            async with session.get(path, headers=headers, timeout=limit) as response:
                _check(response, {})
                async for line in response.content:
                    if line.startswith(b"data:"):
                        answered()

        yield {"place": place, "get": get, "stock": stock, "watch": watch}


class _Failed(Exception):
    """An answer that says that it went wrong, and by which code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _check(response: aiohttp.ClientResponse, found: Mapping[str, Any]) -> None:
    if response.status != 200:
        raise _Failed(found.get("code", f"HTTP_{response.status}"))
