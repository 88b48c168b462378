"""Spans of what happens without a caller who waits: publishing, receiving, and work.

Names and attributes are those of OpenTelemetry's semantic conventions for messaging, where those
have any. A message carries the context of the span that published it: that is the parent of what is
made of it, and linked, so that a flow is one trace and every hand-over of it is named. `WAITED`
says how long something lay before the span began.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.util.types import AttributeValue

from accord import use_trace
from accord_runtime.events.outbox import Event
from accord_runtime.work.table import Work

WAITED: Final = "accord.waited"
"""Seconds between what had to come before (commit, publication, enqueueing) and the span."""

EVENT_ID: Final = "messaging.message.id"

_tracer: Final = trace.get_tracer("accord_runtime")


def publishing(event: Event) -> tuple[Span, Mapping[str, str]]:
    """The span of an event that is published now, and the headers by which it goes on.

    It is ended when the broker has acknowledged it; else it is nothing that has happened.
    """
    with use_trace(event.headers):
        span = _tracer.start_span(
            f"publish {event.subject}",
            kind=SpanKind.PRODUCER,
            attributes={
                **_message("send", event.subject, event.event_id, event.key),
                "accord.event.sequence": event.sequence,
                WAITED: max(0.0, time.time() - event.occurred_at),
            },
        )
    if not span.is_recording():
        return span, {}
    ids = span.get_span_context()
    flags = f"{int(ids.trace_flags):02x}"
    return span, {"traceparent": f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{flags}"}


def received(headers: Mapping[str, str], subject: str, published: datetime, fetched: float) -> None:
    """A message that came at `fetched`, Unix seconds, is kept and acknowledged."""
    with use_trace(headers):
        _tracer.start_span(
            f"receive {subject}",
            kind=SpanKind.CLIENT,
            links=_linked(),
            start_time=int(fetched * 1e9),
            attributes={
                **_message("receive", subject, headers["ce-id"], headers["ce-subject"]),
                WAITED: max(0.0, fetched - published.timestamp()),
            },
        ).end()


def handling(headers: Mapping[str, str], subject: str) -> Span:
    """The span of an event that is handled as soon as it has come; ended when that is written."""
    with use_trace(headers):
        return _tracer.start_span(
            f"process {subject}",
            kind=SpanKind.CONSUMER,
            links=_linked(),
            attributes={
                **_message("process", subject, headers["ce-id"], headers["ce-subject"]),
                WAITED: 0.0,
            },
        )


def current(span: Span) -> AbstractContextManager[Span]:
    """Makes a span current in a block, and nothing else."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


@contextmanager
def working(work: Work) -> Iterator[None]:
    """The span of one attempt at a row of work, which is current in the block."""
    attributes: dict[str, AttributeValue] = {
        "accord.work.queue": work.queue,
        "accord.work.key": work.key,
        "accord.work.attempt": work.attempts + work.deaths + 1,
    }
    if not work.attempts + work.deaths:
        attributes[WAITED] = max(0.0, time.time() - work.created_at)
    kind = SpanKind.CONSUMER if work.queue.startswith("inbox:") else SpanKind.INTERNAL
    span = _tracer.start_span(work.queue, kind=kind, attributes=attributes)
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            span.end()


def processing(work: Work, subject: str, event_id: str) -> None:
    """The work at hand is the handling of an event."""
    span = trace.get_current_span()
    if span.is_recording():
        span.update_name(f"process {subject}")
        span.set_attributes(_message("process", subject, event_id, work.key))
        with use_trace(work.headers):
            for link in _linked():
                span.add_link(link.context)


def at_step(saga: str, step: str, phase: str) -> None:
    """The work at hand is a step of a saga, whose id is the key of the work."""
    span = trace.get_current_span()
    if span.is_recording():
        span.update_name(f"saga {saga}: {step}")
        span.set_attributes({"accord.saga.step": step, "accord.saga.phase": phase})


def _message(operation: str, subject: str, event_id: str, key: str) -> dict[str, AttributeValue]:
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.destination.name": subject,
        EVENT_ID: event_id,
        "accord.event.key": key,
    }


def _linked() -> list[Link]:
    """A link to what is current."""
    current = trace.get_current_span().get_span_context()
    return [Link(current)] if current.is_valid else []
