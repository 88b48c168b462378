"""The spans of this service, and the traces in which a key's events were written."""

import re
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import InvalidArgument
from accord.ops.v1 import trace_pb2 as pb
from accord.ops.v1.trace_pb2_grpc import TraceServiceServicer
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import of_key
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, timestamp
from accord_runtime.telemetry.span_store import SpanStore, StoredSpan, of_trace

MAX_TRACES: Final = 100
MAX_EVENTS: Final = 1000
"""Events of a key that are looked at."""

_PLACE: Final = re.compile("[0-9a-f-]{36}/[0-9]{2}")
_KINDS: Final = {
    "CLIENT": pb.SPAN_KIND_CLIENT,
    "SERVER": pb.SPAN_KIND_SERVER,
    "PRODUCER": pb.SPAN_KIND_PRODUCER,
    "CONSUMER": pb.SPAN_KIND_CONSUMER,
}


class TraceServicer(TraceServiceServicer):
    """The RPCs of `accord.ops.v1.TraceService`."""

    def __init__(self, database: Database, spans: SpanStore) -> None:
        self._database = database
        self._spans = spans

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
        if asked.last and not _PLACE.fullmatch(asked.last):
            raise InvalidArgument(("page_token", "is not a token of this list"))
        await self._spans.write(self._database)
        found = await self._database.read(
            lambda tx: of_trace(tx, request.trace_id, after=asked.last or "", most=asked.most)
        )
        spans, token = asked.cut(found, lambda span: span.place)
        response = pb.ListSpansResponse(next_page_token=token)
        response.spans.extend(_message(request.trace_id, span) for span in spans)
        return response


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


def _message(trace_id: str, span: StoredSpan) -> pb.Span:
    return pb.Span(
        trace_id=trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        name=span.name,
        kind=_KINDS.get(span.kind, pb.SPAN_KIND_UNSPECIFIED),
        start=_moment(span.start),
        end=_moment(span.end),
        error=span.error,
        attributes=span.attributes,
        events=[
            pb.SpanEvent(name=name, at=_moment(at), attributes=said)
            for name, at, said in span.events
        ],
        links=[pb.SpanLink(trace_id=trace, span_id=linked) for trace, linked in span.links],
    )


def _moment(nanoseconds: int) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(nanoseconds)
    return found
