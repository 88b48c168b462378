"""Sends deliveries by HTTP.

What may be called is decided when a socket is made for an address, after all names were looked up:
what a name stood for before does not count. Redirects are answers like any other. Of an answer only
its status is read.
"""

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from services.notifications.webhooks.addresses import Destinations, ForbiddenAddressError

TIMEOUT: Final = 10.0
"""Seconds for one delivery: looking the name up, connecting, sending and the status."""

PER_HOST: Final = 8
"""Connections to one host and port."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a delivery."""

    status: int
    """Of the answer; 0 if there was none."""
    error: str
    """Why it was not delivered; empty if it was."""
    took: float
    """Seconds."""
    retry_after: float | None = None
    """Seconds after which the receiver wants to be asked again, if it says so."""


class Sender:
    """Sends deliveries, `PER_HOST` to each host at a time.

    Args:
        destinations: what may be called.
        resolver: looks names up; by default the system's.
    """

    def __init__(
        self, destinations: Destinations, resolver: AbstractResolver | None = None
    ) -> None:
        self._destinations = destinations
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=PER_HOST,
                resolver=resolver,
                socket_factory=self._socket,
                ssl=ssl.create_default_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=16 * 1024,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(
        self, url: str, body: bytes, message_id: str, timestamp: int, signature: str
    ) -> Answer:
        """Send a delivery. Whatever the receiver does is an answer, no exception."""
        headers = {
            "content-type": "application/json",
            "user-agent": "accord-shop-webhooks/1",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        began = time.monotonic()
        status, error, after = 0, "", None
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                status, after = response.status, response.headers.get("retry-after", "")
                error = "" if 200 <= status < 300 else f"the receiver answered {status}"
        except TimeoutError:
            error = f"no answer in {TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            error = _in_words(failure)
        seconds = float(after) if after and after.isascii() and after.isdecimal() else None
        return Answer(status, error, time.monotonic() - began, seconds)

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        self._destinations.check(str(address[0]))
        return socket.socket(family, kind, protocol)


def _in_words(failure: Exception) -> str:
    cause = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else failure
    if isinstance(cause, ForbiddenAddressError):
        return str(cause)
    text = "".join(char for char in f"{type(failure).__name__}: {cause}" if char.isprintable())
    return text[:200]
