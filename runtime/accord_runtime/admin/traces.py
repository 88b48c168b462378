"""The last spans of this process, and the traces in which a key's events were written."""

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import InvalidArgument
from accord.ops.v1 import trace_pb2 as pb
from accord.ops.v1.trace_pb2_grpc import TraceServiceServicer
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import of_key
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, timestamp
from accord_runtime.telemetry.recent_spans import KeptSpan, RecentSpans

MAX_TRACES: Final = 100
MAX_EVENTS: Final = 1000
"""Events of a key that are looked at."""

_KINDS: Final = {"CLIENT": pb.SPAN_KIND_CLIENT, "SERVER": pb.SPAN_KIND_SERVER}


class TraceServicer(TraceServiceServicer):
    """The RPCs of `accord.ops.v1.TraceService`."""

    def __init__(self, database: Database, recent: RecentSpans) -> None:
        self._database = database
        self._recent = recent

    async def FindTraces(
        self, request: pb.FindTracesRequest, context: Context
    ) -> pb.FindTracesResponse:
        """Finds the traces of a key."""
        traces = await self._database.read(lambda tx: _traces(tx, request.key))
        return pb.FindTracesResponse(traces=traces)

    async def ListSpans(
        self, request: pb.ListSpansRequest, context: Context
    ) -> pb.ListSpansResponse:
        """Lists the spans of a trace."""
        asked = Page(request, trace_id=request.trace_id)
        after = asked.last or "0"
        if not after.isdecimal() or len(after) > 18:
            raise InvalidArgument(("page_token", "is not a token of this list"))
        found = self._recent.of(int(request.trace_id, 16), after=int(after), most=asked.most)
        spans, token = asked.cut(found, lambda span: str(span.number))
        return pb.ListSpansResponse(spans=map(_message, spans), next_page_token=token)


def _traces(tx: Tx, key: str) -> list[pb.FoundTrace]:
    found: dict[str, pb.FoundTrace] = {}
    for event in of_key(tx, key, most=MAX_EVENTS):
        trace_id = event.headers.get("traceparent", "").partition("-")[2].partition("-")[0]
        if trace_id not in found:
            if len(found) >= MAX_TRACES:
                break
            found[trace_id] = pb.FoundTrace(trace_id=trace_id, at=timestamp(event.occurred_at))
        found[trace_id].event_types.append(event.type)
    return list(found.values())


def _message(span: KeptSpan) -> pb.Span:
    return pb.Span(
        trace_id=f"{span.trace_id:032x}",
        span_id=f"{span.span_id:016x}",
        parent_span_id=f"{span.parent_id:016x}" if span.parent_id else "",
        name=span.name,
        kind=_KINDS.get(span.kind, pb.SPAN_KIND_UNSPECIFIED),
        start=_moment(span.start),
        end=_moment(span.end),
        error=span.error,
        attributes={name: _text(value) for name, value in span.attributes.items()},
        events=[
            pb.SpanEvent(
                name=name,
                at=_moment(at),
                attributes={key: _text(value) for key, value in attributes.items()},
            )
            for name, at, attributes in span.events
        ],
    )


def _moment(nanoseconds: int) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(nanoseconds)
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6f}" if isinstance(value, float) else str(value)
