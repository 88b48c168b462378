"""Forwards the console to whoever is outside; it is a process of its own, which authorises."""

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from yarl import URL

if TYPE_CHECKING:
    import aiohttp

MAX_FORM: Final = 64 * 1024
"""Bytes of a request that are forwarded."""

_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
     b"proxy-authorization", b"content-length", b"date", b"x-forwarded-for", b"x-forwarded-proto"}
)  # fmt: skip
"""Headers that are of one connection, or that only this process may say."""


class Console:
    """An ASGI application that has another process answer. Belongs to one event loop."""

    def __init__(self, address: str) -> None:
        """`address`: `host:port` of the console."""
        self._base = f"http://{address}"
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """ASGI."""
        body = await _body(receive)
        if body is None:
            await _answer(send, 413, b"the form is too large")
            return
        import aiohttp  # by the first who looks: most edges forward nothing

        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=2.0)
            self._http = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        forwarding = asyncio.ensure_future(self._forward(self._http, scope, body, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((forwarding, gone), return_when=asyncio.FIRST_COMPLETED)
            if forwarding.done():
                await forwarding
        finally:
            gone.cancel()
            forwarding.cancel()
            await asyncio.gather(forwarding, gone, return_exceptions=True)

    async def close(self) -> None:
        """End what is under way."""
        if self._http is not None:
            await self._http.close()

    async def _forward(
        self, http: "aiohttp.ClientSession", scope: MutableMapping[str, Any], body: bytes, send: Any
    ) -> None:
        import aiohttp

        headers = [(n.decode(), v.decode("latin-1")) for n, v in scope["headers"]
                   if n.lower() not in _CONNECTION]  # fmt: skip
        headers += [
            ("x-forwarded-for", (scope.get("client") or ("",))[0]),
            ("x-forwarded-proto", scope["scheme"]),
        ]
        path = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        # As it came: what is encoded is not to be decoded and encoded anew.
        url = URL(f"{self._base}{path}{query and '?' + query}", encoded=True)
        begun = False
        try:
            async with http.request(
                scope["method"], url, headers=headers, data=body or None, allow_redirects=False
            ) as found:
                said = [(n, v) for n, v in found.raw_headers if n.lower() not in _CONNECTION]
                start = {"type": "http.response.start", "status": found.status, "headers": said}
                await send(start)
                begun = True
                async for chunk in found.content.iter_any():
                    more = {"type": "http.response.body", "body": chunk, "more_body": True}
                    await send(more)
                await send({"type": "http.response.body", "body": b""})
        except (OSError, aiohttp.ClientError):
            if not begun:
                await _answer(send, 503, b"the console does not answer")


async def _body(receive: Any) -> bytes | None:
    """What a request has; None: too much."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_FORM:
            return None
    return body


async def _gone(receive: Any) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Any, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
