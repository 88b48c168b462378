"""A collector: receives what is exported over OTLP/gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

_ADD: tuple[Any, ...] = (
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
)


class Collector(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """Keeps what it is sent; its two services differ in the types of their messages only."""

    def __init__(self) -> None:
        self.address = ""
        self.spans: list[tuple[str, Any]] = []
        """(service.name, span)"""
        self.metrics: list[tuple[str, Any]] = []
        """(service.name, metric)"""

    async def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for group in request.resource_spans:
                for scope in group.scope_spans:
                    self.spans += ((_service(group.resource), span) for span in scope.spans)
            return trace_service_pb2.ExportTraceServiceResponse()
        for group in request.resource_metrics:
            for scope in group.scope_metrics:
                self.metrics += ((_service(group.resource), metric) for metric in scope.metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _service(resource: Any) -> str:
    return next(
        str(attribute.value.string_value)
        for attribute in resource.attributes
        if attribute.key == "service.name"
    )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a loopback port."""
    collector: Any = Collector()
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
