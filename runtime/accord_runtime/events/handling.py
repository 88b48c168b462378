"""From an event as it came to what its handler wants to be written."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.trace import Span

from accord import event_policy
from accord_runtime.database import Tx
from accord_runtime.events.message import occurred, problem
from accord_runtime.events.outbox import MAX_BYTES
from accord_runtime.events.versions import TooNew, Upcasters
from accord_runtime.telemetry import flow_spans
from accord_runtime.work import table
from accord_runtime.work.executor import Permanent
from accord_runtime.work.table import Effect

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """An event of another service."""

    event_id: str
    """UUIDv7, the same at every delivery."""
    key: str
    """What orders it."""
    sequence: int
    """Number among the events of its key, from 1."""
    payload: M
    """The event."""
    occurred_at: float = 0.0
    """When it was committed, Unix seconds."""


EventHandler = Callable[[Received[Any]], Awaitable[Effect | None]]


class Handling:
    """What one service does with the events of another; see `Inbox`."""

    def __init__(
        self,
        service: str,
        handlers: Mapping[type[Message], EventHandler],
        upcasters: Upcasters,
        wanted: Callable[[Any], bool] | None,
    ) -> None:
        self._service = service
        self._upcasters = upcasters
        self._wanted = wanted
        self._handlers: dict[str, tuple[type[Message], EventHandler]] = {}
        self.kinds: dict[str, str] = {}
        """Full name of an event -> the subject of its kind."""
        for message, handler in handlers.items():
            upcasters.check(message)
            policy = event_policy(message)
            assert policy is not None  # checked
            self._handlers[message.DESCRIPTOR.full_name] = (message, handler)
            self.kinds[message.DESCRIPTOR.full_name] = policy.subject

    def problem(self, headers: Mapping[str, str]) -> str:
        """Why it is no event that has a handler; empty if it is one."""
        return problem(headers, self.kinds, self._service)

    def wants(self, kind: str, payload: bytes) -> bool:
        """Whether an event is taken at all."""
        if self._wanted is None:
            return True
        try:
            return self._wanted(self._handlers[kind][0].FromString(payload))
        except DecodeError:
            return True  # Its handler says what is wrong with it.

    async def effect(
        self, headers: Mapping[str, str], payload: bytes, flow_at: float
    ) -> Effect | None:
        """What its handler wants to be written. Raises what that raises.

        `flow_at`: when it happened, if it does not say so.

        Raises:
            Permanent: it cannot be read.
        """
        if len(payload) > MAX_BYTES:
            raise Permanent(f"an event has {MAX_BYTES} bytes at most, not {len(payload)}")
        message, handler = self._handlers[headers["ce-type"]]
        key, version = headers["ce-subject"], int(headers.get("ce-dataversion", "1"))
        try:
            event = self._upcasters.read(message, version, payload)
        except (TooNew, ValueError) as error:
            raise Permanent(str(error)) from error
        except DecodeError as error:
            raise Permanent(f"not a {headers['ce-type']}: {error}") from error
        sequence, occurred_at = int(headers["ce-sequence"]), occurred(headers) or flow_at
        return await handler(Received(headers["ce-id"], key, sequence, event, occurred_at))

    async def ready(
        self, headers: Mapping[str, str], payload: bytes, seconds: float
    ) -> "Ready | None":
        """An event for which its handler has said, within so many seconds, what to write.

        None: it is to become work, which says what is wrong, or tries again.
        """
        if self.problem(headers):
            return None
        flow_at = occurred(headers) or time.time()
        span = flow_spans.handling(headers, self.kinds[headers["ce-type"]])
        with suppress(Exception), flow_spans.current(span):
            async with asyncio.timeout(seconds):
                effect = await self.effect(headers, payload, flow_at)
            return Ready(headers["ce-id"], span, flow_at, effect)
        return None


@dataclass(frozen=True, slots=True)
class Ready:
    """An event that its handler has seen, and what is to be written."""

    event_id: str
    span: Span
    flow_at: float
    effect: Effect | None

    def write(self, tx: Tx) -> None:
        """Write it, as the work of its flow."""
        if self.effect is not None:
            flow = table.current_flow.set(self.flow_at)
            try:
                with flow_spans.current(self.span):
                    self.effect(tx)
            finally:
                table.current_flow.reset(flow)
        tx.after_commit(self.span.end)
