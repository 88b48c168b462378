"""A stream of answers on its way to one reader, in whatever protocol."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from google.protobuf.message import Message

from accord._log import log
from accord.edge.auth import Caller, refused
from accord.edge.calls import Endpoint, Metadata
from accord.edge.fanout import Event, Hub
from accord.edge.http import Request
from accord.edge.limits import EdgeLimits
from accord.errors import DeadlineExceeded, failure_of

FIRST: Final = 2.0
"""Seconds that the answer waits for the first message, or the error in its place."""


class Writer(Protocol):
    """How a stream is written."""

    form: str
    """What is written alike has the same form."""
    keepalive: bytes

    async def begin(self, request: Request, *, empty: bool) -> bool:
        """Send what comes before the first message; `empty`: there is none. Whether to go on."""

    def event(self, event: Event) -> bytes:
        """A message."""

    def end(self, error: BaseException | None) -> bytes:
        """What comes after the last message."""


async def stream(
    endpoint: Endpoint,
    hub: Hub,
    request: Request,
    message: Message,
    caller: Caller | None,
    metadata: Callable[[], Metadata],
    seconds: float | None,
    limits: EdgeLimits,
    writer: Writer,
) -> None:
    """Call, and write what comes until it ends, the client goes, or its time or token is over.

    Raises what the call fails with before its first message. `metadata` is asked whenever the call
    is opened; `seconds`: that the client gives it.
    """
    route, loop = endpoint.route, asyncio.get_running_loop()
    resume, key, token = route.policy.resume, None, 0
    if resume is not None:
        token = int(getattr(message, resume.request_field))
        message.ClearField(resume.request_field)
        user = None if caller is None else (caller.subject, caller.roles)
        key = (route.method, message.SerializeToString(deterministic=True), user)

    def call(behind: int) -> object:
        if resume is not None:
            setattr(message, resume.request_field, behind)
        return endpoint.call(message, metadata=metadata())

    over: list[tuple[float, Callable[[], BaseException]]] = []
    if seconds is not None:
        over.append((loop.time() + seconds, DeadlineExceeded))
    if caller is not None:
        left = caller.expires - time.time()
        over.append((loop.time() + left, lambda: refused("TOKEN_EXPIRED", "has expired")))
    ends, why = min(over, key=lambda each: each[0], default=(float("inf"), DeadlineExceeded))
    field = resume.response_field if resume is not None else ""
    with hub.reading(key, call, token, field) as reader, request.watched(0):
        found = await reader.read(min(FIRST, ends - loop.time()))
        if not await writer.begin(request, empty=found is None):
            return
        error: BaseException | None = None

        async def write(chunk: bytes, *, more: bool) -> None:
            async with asyncio.timeout(limits.write_timeout):
                await request.write(chunk, more=more)

        try:
            while found is not None:
                chunk = b"".join([_rendered(writer, each) for each in found]) or writer.keepalive
                if chunk:
                    await write(chunk, more=True)
                if loop.time() >= ends:
                    raise why()
                found = await reader.read(min(limits.keepalive, ends - loop.time()))
        except TimeoutError:
            log(logging.INFO, "the reader of a stream takes nothing", method=route.method)
            return
        except Exception as problem:
            error = problem
            if failure_of(problem) is None:
                log(logging.ERROR, "a stream failed", error=problem, method=route.method)
        with suppress(TimeoutError):
            await write(writer.end(error), more=False)


def _rendered(writer: Writer, event: Event) -> bytes:
    found = event.rendered.get(writer.form)
    if found is None:
        found = event.rendered[writer.form] = writer.event(event)
    return found
