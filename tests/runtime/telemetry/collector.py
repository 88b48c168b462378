"""A collector: receives what is exported over OTLP, by gRPC or HTTP."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

_ADD: tuple[Any, ...] = (
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
)
_HTTP: dict[bytes, Any] = {
    b"/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    b"/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    b"/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
}


class Collector(
    trace_service_pb2_grpc.TraceServiceServicer,
    metrics_service_pb2_grpc.MetricsServiceServicer,
    logs_service_pb2_grpc.LogsServiceServicer,
):
    """Keeps what it is sent; its services differ in the types of their messages only."""

    def __init__(self) -> None:
        self.address = ""
        self.spans: list[tuple[str, Any]] = []
        """(service.name, span)"""
        self.metrics: list[tuple[str, Any]] = []
        """(service.name, metric)"""
        self.logs: list[tuple[str, Any]] = []
        """(service.name, record)"""
        self.versions: set[str] = set()
        """The values of service.version."""

    async def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for group in request.resource_spans:
                self.versions.add(_said(group.resource, "service.version"))
                for scope in group.scope_spans:
                    self.spans += ((_service(group.resource), span) for span in scope.spans)
            return trace_service_pb2.ExportTraceServiceResponse()
        if isinstance(request, logs_service_pb2.ExportLogsServiceRequest):
            for batch in request.resource_logs:
                self.versions.add(_said(batch.resource, "service.version"))
                for each in batch.scope_logs:
                    self.logs += ((_service(batch.resource), record) for record in each.log_records)
            return logs_service_pb2.ExportLogsServiceResponse()
        for group in request.resource_metrics:
            for scope in group.scope_metrics:
                self.metrics += ((_service(group.resource), metric) for metric in scope.metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    async def serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].split()[0])
                raw = await reader.readexactly(length)
                if b"content-encoding: gzip" in head:
                    raw = gzip.decompress(raw)
                await self.Export(_HTTP[head.split()[1]].FromString(raw), None)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()


def _service(resource: Any) -> str:
    return _said(resource, "service.name")


def _said(resource: Any, key: str) -> str:
    found = {each.key: str(each.value.string_value) for each in resource.attributes}
    return found.get(key, "")


@asynccontextmanager
async def collecting(*, http: bool = False) -> AsyncIterator[Collector]:
    """A collector on a loopback port."""
    collector: Any = Collector()
    if http:
        async with await asyncio.start_server(collector.serve_http, "127.0.0.1", 0) as listener:
            collector.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            yield collector
        return
    server = grpc.aio.server()
    for add in _ADD:
        add(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    collector.address = f"http://127.0.0.1:{port}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)
