"""The routes, as the real Envoy reads and obeys them."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from accord_checks.declarations import Rpc
from accord_checks.export import envoy
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import support
from tests.support.ports import free_port

MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
HTTP2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def exported(name: str) -> Any:
    """The RouteConfiguration that is exported for a contracts."""
    (routes,) = json.loads(envoy.export(support.all_contracts()[name]))["resources"]
    return routes


def bootstrap(
    routes: Any, source: dict[str, Any], *, port: int = 0, upstream: int = 1
) -> dict[str, Any]:
    """A configuration of Envoy in which every cluster is one server.

    `source` says where the routes come from: an inline `route_config`, which `--mode validate`
    reads to the last field, or `rds`, as users have it.
    """
    names = {route["route"]["cluster"] for route in routes["virtual_hosts"][0]["routes"]}
    return {
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {
            "listeners": [{"address": _address(port), "filter_chains": [_chain(source)]}],
            "clusters": [_cluster(name, upstream) for name in sorted(names)],
        },
    }


def inline(routes: Any) -> dict[str, Any]:
    """The routes as part of the listener."""
    return {"route_config": {key: value for key, value in routes.items() if key != "@type"}}


def watched(file: Path) -> dict[str, Any]:
    """The routes as a file that Envoy watches."""
    path = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    return {"rds": {"route_config_name": envoy.NAME, "config_source": path}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _chain(source: dict[str, Any]) -> dict[str, Any]:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}
    manager = {
        "@type": MANAGER,
        "stat_prefix": "contracts",
        "codec_type": "HTTP2",
        "http_filters": [router],
        **source,
    }
    return {"filters": [{"name": "http", "typed_config": manager}]}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    http2 = {"@type": HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": name,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
    }


def validated(folder: Path, configuration: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What Envoy says of a configuration."""
    file = folder / "envoy.json"
    file.write_text(json.dumps(configuration))
    return subprocess.run(
        (support.SCRIPTS / "envoy", "--mode", "validate", "-c", file),
        capture_output=True,
        text=True,
        check=False,
    )


@asynccontextmanager
async def _proxied(
    folder: Path, methods: Iterable[Rpc], server: support.Flaky
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of a plain client to the server, through a real Envoy."""
    routes = folder / "routes.json"
    routes.write_text(envoy.export(ResolvedContracts(support.foreign_image())))
    async with server.serving() as upstream:
        port = free_port()
        file = folder / "envoy.json"
        configuration = bootstrap(
            exported("foreign"), watched(routes), port=port, upstream=upstream
        )
        file.write_text(json.dumps(configuration))
        process = await asyncio.create_subprocess_exec(
            *(support.SCRIPTS / "envoy", "-c", file, "--concurrency", "1", "-l", "error"),
            *("--disable-hot-restart",),
        )
        try:
            # The client must not repeat anything itself.
            options = [("grpc.enable_retries", 0)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                async with asyncio.timeout(30):
                    await channel.channel_ready()
                yield channel
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


@pytest.mark.parametrize("name", ["shop", "foreign", "large"])
def test_envoy_accepts(tmp_path: Path, name: str) -> None:
    """`envoy --mode validate` takes the routes of all contracts that we have."""
    routes = exported(name)
    done = validated(tmp_path, bootstrap(routes, inline(routes)))
    assert done.returncode == 0, done.stderr


def test_envoy_refuses_nonsense(tmp_path: Path) -> None:
    """The validation can fail: a word that is not Envoy's, and a wrong duration, are refused."""
    for key, value in (("tiemout", "1s"), ("timeout", "soon")):
        routes = exported("shop")
        routes["virtual_hosts"][0]["routes"][0]["route"][key] = value
        assert validated(tmp_path, bootstrap(routes, inline(routes))).returncode != 0


async def test_envoy_retries_as_the_contract_says(tmp_path: Path) -> None:
    """Envoy repeats what is safe on the listed codes, by name and by number, and nothing else."""
    failures = {
        "Get": (grpc.StatusCode.UNAVAILABLE, 3),
        "Charge": (grpc.StatusCode.UNAVAILABLE, 3),
        "Race": (grpc.StatusCode.ABORTED, 5),
        "Append": (grpc.StatusCode.UNAVAILABLE, 1),
    }
    methods = [support.flaky()[name] for name in failures]
    server = support.Flaky(methods)
    for method in methods:
        server.behaviours[method.policy.method] = support.failing(failures[method.short][0])
    async with _proxied(tmp_path, methods, server) as channel:
        for method in methods:
            code, attempts = failures[method.short]
            assert await support.outcome(channel, method.policy.method) == code.name
            assert server.attempts[method.policy.method] == attempts
        get = methods[0].policy.method
        server.attempts.clear()
        server.behaviours[get] = support.failing(grpc.StatusCode.UNAVAILABLE, 2)
        assert await support.outcome(channel, get) == "OK"
        assert server.attempts[get] == 3


async def test_envoy_ends_what_takes_too_long(tmp_path: Path) -> None:
    """A call ends after its timeout, a stream after its lifetime, an attempt after its own time."""
    methods = [support.flaky()[name] for name in ("Hang", "Linger", "Falter", "Stall")]
    server = support.Flaky(methods)
    for method in methods:
        server.behaviours[method.policy.method] = support.hanging
    stall = methods[3].policy.method
    server.behaviours[stall] = lambda attempt, context: (
        support.hanging(attempt, context) if attempt == 1 else None
    )
    async with _proxied(tmp_path, methods, server) as channel:
        outcomes = await asyncio.gather(
            *(
                support.outcome(
                    channel, method.policy.method, streamed=method.policy.server_streaming
                )
                for method in methods
            )
        )
    # UNAVAILABLE is Envoy's own word for an attempt that took too long.
    assert outcomes == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "OK"]
    assert server.attempts[stall] == 2
    assert server.attempts[methods[2].policy.method] == 1


async def test_envoy_routes_only_what_is_in_the_contract(tmp_path: Path) -> None:
    """An RPC that no contract knows is not passed on."""
    server = support.Flaky(support.flaky().values())
    async with _proxied(tmp_path, (), server) as channel:
        outcome = await support.outcome(channel, "/flaky.v1.FlakyService/Secret")
    assert outcome == "UNIMPLEMENTED"
    assert not server.attempts


def test_configuration_of_the_documentation_is_valid(tmp_path: Path) -> None:
    """What docs/exports.md shows is taken by Envoy as it stands, and uses the exported name."""
    page = (support.ROOT / "docs" / "exports.md").read_text()
    shown = page.split("```yaml\n")[1].split("```")[0]
    assert f"route_config_name: {envoy.NAME}\n" in shown
    (tmp_path / "routes.json").write_text(envoy.export(support.all_contracts()["shop"]))
    (tmp_path / "envoy.yaml").write_text(shown)
    done = subprocess.run(
        (support.SCRIPTS / "envoy", "--mode", "validate", "-c", "envoy.yaml"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
