"""What a service process exports, as the standard environment variables say."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import accord
from accord_runtime.grpc.ids import uuid7
from accord_runtime.telemetry.setup import _otlp
from shop.customers.v1.customers_pb2 import CreateCustomerRequest
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from tests.runtime.telemetry.collector import Collector, collecting
from tests.support.mesh import settings_of
from tests.support.wait import until

CREATE = "shop.customers.v1.CustomerService/CreateCustomer"
SOON = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "100",
}


@asynccontextmanager
async def little(home: Path, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """A service process that has handled a call; yields its `/metrics` port. It ends in order."""
    settings = settings_of("customers", home)
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.runtime.little_service"),
        env={
            **inherited,
            "MESH_HOME": str(home),
            "MESH_LISTEN": settings.address,
            **SOON,
            **environment,
        },
    )
    try:
        mesh = accord.Mesh("test")
        channel = mesh.channel(settings.address)
        async with asyncio.timeout(30):  # a start takes longer than a call may
            await channel.channel_ready()
        stub = CustomerServiceStub(channel)
        request = CreateCustomerRequest(name="Ada", email="ada@example.com")
        key = accord.idempotency_key(uuid7())
        await stub.CreateCustomer(request, metadata=key)
        await mesh.close()
        yield settings.metrics_port
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def scraped(port: int) -> str | None:
    """What `/metrics` answers; None if nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.decode()


def spans(collector: Collector, name: str) -> list[str]:
    """The services that have exported a span of this name."""
    return [service for service, span in collector.spans if span.name == name]


def metrics(collector: Collector, name: str) -> list[str]:
    """The services that have exported a metric of this name."""
    return [service for service, metric in collector.metrics if metric.name == name]


@pytest.mark.parametrize("protocol", ["", "http/protobuf"])
async def test_otlp(tmp_path: Path, protocol: str) -> None:
    """With an endpoint, spans, metrics and log arrive there, and none of the export itself."""
    async with (
        collecting(http=bool(protocol)) as collector,
        little(
            tmp_path,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_RESOURCE_ATTRIBUTES": "service.version=7",
                "LITTLE": "log",
            },
        ) as port,
    ):
        await until(lambda: spans(collector, CREATE), "the span")
        await until(lambda: metrics(collector, "grpc.server.call.duration"), "the metric")
        assert "grpc_server_call_duration_seconds" in (await scraped(port) or "")
    assert spans(collector, CREATE) == ["customers"]
    assert set(metrics(collector, "accord.server.in_flight")) == {"customers"}
    exported = {span.name for _, span in collector.spans}
    assert not [name for name in exported if "opentelemetry" in name.lower() or "Export" in name]
    (span,) = [span for _, span in collector.spans if span.name == CREATE]
    attributes = {each.key: each.value.string_value for each in span.attributes}
    assert attributes["rpc.system.name"] == "grpc"
    assert attributes["rpc.response.status_code"] == "OK"
    assert collector.versions == {"7"}
    said = {record.body.string_value: record for _, record in collector.logs}
    assert {service for service, _ in collector.logs} == {"customers"}
    assert "draining" in said
    record = said["a customer was created"]
    assert (record.severity_text, record.severity_number) == ("WARNING", 13)
    assert record.trace_id == span.trace_id
    found = {each.key: each.value.string_value for each in record.attributes}
    assert found["colour"] == "red"
    assert found["exception.type"] == "ValueError"
    assert not [text for text in said if "export" in text.lower()]


def test_protocols(caplog: pytest.LogCaptureFixture) -> None:
    """A signal's own protocol wins; of one that is not spoken here, only the log tells."""
    name = "_log_exporter.OTLPLogExporter"
    http = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    assert ".http." in type(_otlp("LOGS", name, http)).__module__
    grpc = {**http, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}
    assert ".grpc." in type(_otlp("LOGS", name, grpc)).__module__
    assert not caplog.records
    assert _otlp("LOGS", name, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}) is None
    assert "http/json" in caplog.text


async def test_one_signal_under_another_name(tmp_path: Path) -> None:
    """OTEL_TRACES_EXPORTER=none exports metrics only; OTEL_SERVICE_NAME names the service."""
    async with collecting() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_SERVICE_NAME": "another",
        }
        async with little(tmp_path, environment) as port:
            await until(lambda: metrics(collector, "grpc.server.call.duration"), "the metric")
            assert await scraped(port) is None
    assert not collector.spans
    assert {service for service, _ in collector.metrics} == {"another"}


async def test_disabled(tmp_path: Path) -> None:
    """OTEL_SDK_DISABLED: nothing is served and nothing is exported."""
    async with collecting() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_SDK_DISABLED": "true",
        }
        async with little(tmp_path, environment) as port:
            assert await scraped(port) is None
    assert not collector.spans
    assert not collector.metrics


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_is_away(tmp_path: Path, protocol: str) -> None:
    """A service whose collector is not there works, and ends in time all the same."""
    away = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    async with little(tmp_path, away) as port:
        assert "grpc_server_call_duration_seconds" in (await scraped(port) or "")
