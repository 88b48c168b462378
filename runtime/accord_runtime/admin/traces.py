"""The spans of this service, and the traces in which a key's events were written."""

import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from accord.errors import InvalidArgument
from accord.ops.v1 import trace_pb2 as pb
from accord.ops.v1.trace_pb2_grpc import TraceServiceServicer
from accord_runtime.admin.work import seconds
from accord_runtime.database import Database, Tx
from accord_runtime.events.outbox import of_key
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, timestamp
from accord_runtime.telemetry.span_store import SpanStore, StoredSpan, latest, of_trace

MAX_TRACES: Final = 100
EXAMINED: Final = 500
"""Traces that a page of flows looks at."""
MAX_EVENTS: Final = 1000
"""Events of a key that are looked at."""

_PLACE: Final = re.compile("[0-9a-f-]{36}/[0-9]{2}")
_KEYS: Final = ("accord.event.key", "accord.work.key")
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

    async def ListFlows(
        self, request: pb.ListFlowsRequest, context: Context
    ) -> pb.ListFlowsResponse:
        """Lists flows, the latest first."""
        shortest, age = request.min_duration.ToNanoseconds(), seconds(request.max_age)
        filters = {"name": request.name, "failed": str(request.failed)}
        asked = Page(request, **filters, min_duration=str(shortest), max_age=str(age))
        await self._spans.write(self._database)
        since = time.time() - age if age else 0.0
        wanted = request.name or request.failed or shortest
        most = EXAMINED if wanted else min(EXAMINED, asked.most)
        read = partial(latest, before=asked.last or "", since=since, most=most)
        found = await self._database.read(read)
        answer = pb.ListFlowsResponse()
        for number, (row_id, trace_id, spans) in enumerate(found, 1):
            flow = _flow(trace_id, spans)
            took = flow.end.ToNanoseconds() - flow.start.ToNanoseconds()
            named = any(request.name in span.name for span in spans)
            if named and took >= shortest and (flow.errors or not request.failed):
                answer.flows.append(flow)
            if len(answer.flows) == asked.size or number == most:
                if number < len(found) or number == most:
                    answer.next_page_token = asked.token(row_id)
                break
        return answer

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


def _flow(trace_id: str, spans: Sequence[StoredSpan]) -> pb.Flow:
    first = min(spans, key=lambda span: span.start)
    failed = [span for span in spans if span.error]
    keys = (span.attributes.get(name) for span in spans for name in _KEYS)
    return pb.Flow(
        trace_id=trace_id,
        name=first.name,
        kind=_KINDS.get(first.kind, pb.SPAN_KIND_UNSPECIFIED),
        start=_moment(first.start),
        end=_moment(max(span.end for span in spans)),
        spans=len(spans),
        errors=len(failed),
        failed=failed[0].name if failed else "",
        key=next(filter(None, keys), ""),
    )


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
