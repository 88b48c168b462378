"""The connection to the broker, which may be away at any time."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from accord.identity import LAYOUTS
from accord_runtime.settings import Settings

log = logging.getLogger(__name__)

MAX_AGE = 30 * 24 * 3600.0
"""Seconds that the broker keeps events: 30 days. Older ones are in the service's record."""

DUPLICATE_WINDOW = 600.0
"""Seconds in which a message id is recognised; well above any retry of the publisher."""

ANSWER = 2.0
"""Seconds to wait for an answer: a leader that was killed gives none, and in four to nine there is
the next one."""

SAID = 60.0
"""Seconds after which it is said again that something fails in the same way."""

REFUSED = 30.0
"""Seconds for which a refusal counts: who is refused tries again all the time."""

_RETRY = 0.5


def stream_of(service: str) -> StreamConfig:
    """The stream that carries the events of a service: `ORDERS` with `orders.>`."""
    return StreamConfig(
        name=service.upper(),
        subjects=[f"{service}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=MAX_AGE,
        duplicate_window=DUPLICATE_WINDOW,
    )


class _Client(Client):
    """Shows the certificate that there is when it connects, and whenever it connects again."""

    def __init__(self, identity: Path) -> None:
        super().__init__()
        self._identity = identity

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Raises OSError: the files do not fit together, for a moment perhaps."""
        names = next(names for names in LAYOUTS if (self._identity / names[0]).exists())
        certificate, key, roots = (self._identity / name for name in names)
        context = ssl.create_default_context(cafile=roots)
        context.load_cert_chain(certificate, key)
        return context


class Broker:
    """One connection of a process, made when the broker is there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._lock = asyncio.Lock()
        self._up = asyncio.Event()
        self._said: set[str] = set()
        self.problem = "it has not acknowledged them"
        """What went wrong last."""
        self.listeners: set[Callable[[], None]] = set()
        """Told whenever the connection is lost, and when there is one again."""
        self._refusal, self._refused_at = "", -REFUSED

    async def client(self) -> Client:
        """The connection; waits, for as long as it takes, until there is one."""
        async with self._lock:
            while self._client is None or self._client.is_closed:
                try:
                    self._client = await self._connect(
                        name=self._settings.name,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=0.2,
                        connect_timeout=1,
                        ping_interval=5,
                        allow_reconnect=True,
                        error_cb=self._error,
                        disconnected_cb=self._disconnected,
                        reconnected_cb=self._connected,
                    )
                    await self._connected()
                except (OSError, TimeoutError, nats.errors.Error) as error:
                    await self._error(error)
                    await asyncio.sleep(_RETRY)
            return self._client

    async def _connect(self, **options: Any) -> Client:
        settings = self._settings
        if settings.identity is None or not settings.broker_by_certificate:
            return await nats.connect(settings.broker, token=settings.broker_token, **options)
        client = _Client(settings.identity)
        if settings.own_broker:
            # It is the broker, and nobody who listens in its place, before anything is said.
            options |= {"tls_hostname": "broker", "tls_handshake_first": True}
        await client.connect(
            settings.broker, inbox_prefix=f"_INBOX_{settings.name}".encode(), **options
        )
        return client

    @property
    def refusal(self) -> str:
        """What the broker has refused of late, which it tells nobody who waits for an answer."""
        recent = time.monotonic() - self._refused_at < REFUSED
        return f"the broker refuses: {self._refusal}" if recent else ""

    async def jetstream(self) -> JetStreamContext:
        """JetStream; waits like `client`, and for a connection that is lost."""
        while not (client := await self.client()).is_connected:
            self._up.clear()  # The client says so before it tells.
            with suppress(TimeoutError):  # It may be closed, and is made anew then.
                async with asyncio.timeout(_RETRY):
                    await self._up.wait()
        return client.jetstream(timeout=ANSWER)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None and not self._client.is_closed:
            with suppress(ConnectionError):  # nats-py 2.16 raises it if the server has just gone.
                await self._client.close()

    async def noting(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something of which the failure is to be told as the broker's `problem`."""
        try:
            await work
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            raise

    async def ensure_stream(self, jetstream: JetStreamContext, service: str) -> StreamInfo:
        """Make the stream of a service, unless it is there, and see to its copies.

        Returns what the broker says of it.
        """
        config = stream_of(service)
        assert config.name is not None
        try:
            info = await jetstream.stream_info(config.name)
        except NotFoundError:
            info = await jetstream.add_stream(config)
        await self.ensure_copies(jetstream, info)
        return info

    async def ensure_copies(self, jetstream: JetStreamContext, info: StreamInfo) -> None:
        """Raise the copies of a stream to what the settings say; lowering them is by hand.

        A cluster that is too small for them keeps those that it has, and that is said.
        """
        name, has, wanted = info.config.name, info.config.num_replicas, self._settings.nats_replicas
        if (has or 1) >= wanted:
            return
        if self._settings.own_broker:  # where nobody may update a stream
            self._warn(f"no {wanted} copies of stream {name}: the mesh's own broker is one server")
            return
        try:
            await jetstream.update_stream(replace(info.config, num_replicas=wanted))
            log.info("stream %s has %d copies from now on", name, wanted)
        except APIError as error:
            self._warn(f"no {wanted} copies of stream {name}: {error.description}")

    async def _connected(self) -> None:
        assert self._client is not None
        url = self._client.connected_url
        log.info("connected to the broker at %s:%s", url and url.hostname, url and url.port)
        self._said.clear()
        self._up.set()
        self._tell()

    async def _disconnected(self) -> None:
        log.info("the connection to the broker is lost")
        self._up.clear()
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    async def _error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            text = str(error).removeprefix("nats: ")
            # Live policy of another's, which an operator asked for and was refused: no work waits.
            if 'publish to "$kv.' not in text.lower():
                self._refusal, self._refused_at = text, time.monotonic()
            if text not in self._said:
                self._said.add(text)
                log.error("the broker refuses: %s", text)
            return
        self.problem = str(error) or type(error).__name__
        self._warn(f"the broker is away ({self.problem}); events wait in the outbox")

    def _warn(self, text: str) -> None:
        """Once, until there is a connection again."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)


async def persistently(what: str, attempt: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Repeat something that ends only when the broker fails or the task is cancelled."""
    said, said_at = "", 0.0
    while True:
        try:
            await abortable(attempt())
        except asyncio.CancelledError:
            raise
        except Exception as error:
            text, now = f"{type(error).__name__}: {error}", time.monotonic()
            if text != said or now - said_at >= SAID:
                log.warning("%s: %s; trying again", what, text)
                said, said_at = text, now
        await asyncio.sleep(_RETRY)


async def abortable(work: Coroutine[Any, Any, None]) -> None:
    """Await something so that a cancellation surely ends it.

    Up to Python 3.11 `asyncio.wait_for`, which the broker's client uses in every
    request, can lose a cancellation that meets a result (python/cpython#81839).
    So the cancellation is repeated until it has been heard.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
        raise
    task.result()
