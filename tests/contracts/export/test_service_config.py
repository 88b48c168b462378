"""The service config, as Node's own gRPC obeys it."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
import pytest

from accord.policies.types import Code
from accord_checks.declarations import Rpc
from accord_checks.export import service_config
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.contracts.export import support


def _config(contracts: ResolvedContracts) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service_config.export(contracts))
    return found


def _call(method: Rpc) -> dict[str, Any]:
    return {"method": method.policy.method, "stream": method.policy.server_streaming}


async def _codes(port: int, config: Mapping[str, Any], methods: Iterable[Rpc]) -> list[str]:
    """What came of a call of each, under Node."""
    given = {
        "target": f"127.0.0.1:{port}",
        "config": config,
        "calls": [_call(method) for method in methods],
    }
    return [result["code"] for result in await support.node("calls.cjs", given)]


@pytest.fixture
def config() -> dict[str, Any]:
    """What is exported for the service that fails on command."""
    return _config(ResolvedContracts(support.foreign_image()))


async def test_node_retries_until_it_succeeds(config: dict[str, Any]) -> None:
    """An RPC that fails twice succeeds at its third attempt, unary and streamed."""
    methods = [support.flaky()[name] for name in ("Get", "Charge", "Watch")]
    server = support.Flaky(methods)
    for method in methods:
        server.behaviours[method.policy.method] = support.failing(grpc.StatusCode.UNAVAILABLE, 2)
    # Six failures at once are what the throttle is there for; it has a test of its own.
    config["retryThrottling"] = {"maxTokens": 1000, "tokenRatio": 0.1}
    async with server.serving() as port:
        codes = await _codes(port, config, methods)
    assert codes == ["OK", "OK", "OK"]
    assert server.attempts == {method.policy.method: 3 for method in methods}


async def test_node_obeys_code_and_safety(config: dict[str, Any]) -> None:
    """Node repeats on the codes that the contract lists, and never what is not safe."""
    names = {"Get": 1, "Race": 5, "Append": 1}
    methods = [support.flaky()[name] for name in names]
    server = support.Flaky(methods)
    failures = (grpc.StatusCode.ABORTED, grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE)
    for method, code in zip(methods, failures, strict=True):
        server.behaviours[method.policy.method] = support.failing(code)
    config["retryThrottling"] = {"maxTokens": 1000, "tokenRatio": 0.1}
    async with server.serving() as port:
        codes = await _codes(port, config, methods)
    assert codes == [code.name for code in failures]
    assert {name: server.attempts[f"/flaky.v1.FlakyService/{name}"] for name in names} == names


async def test_node_stops_after_timeout(config: dict[str, Any]) -> None:
    """A call without a deadline of its own ends after the contract's, which the server is told."""
    method = support.flaky()["Hang"]
    server = support.Flaky([method])
    told: list[float | None] = []

    def hang(attempt: int, context: support.Context) -> Any:
        told.append(context.time_remaining())
        return support.hanging(attempt, context)

    server.behaviours[method.policy.method] = hang
    async with server.serving() as port:
        assert await _codes(port, config, [method]) == ["DEADLINE_EXCEEDED"]
    assert len(told) == 1
    assert told[0] is not None
    assert 0 < told[0] <= 1


async def test_throttle_holds_in_an_outage(config: dict[str, Any]) -> None:
    """When everything fails, a channel soon makes one attempt a call only."""
    method = support.flaky()["Get"]
    server = support.Flaky([method])
    server.behaviours[method.policy.method] = support.failing(grpc.StatusCode.UNAVAILABLE)
    async with server.serving() as port:
        codes = await _codes(port, config, [method] * 50)
    assert codes == ["UNAVAILABLE"] * 50
    # Five failures empty the throttle by half; what was sent by then may still be repeated.
    assert server.attempts[method.policy.method] < 60


async def test_every_rpc_of_the_shop_is_attempted_as_it_says() -> None:
    """Every RPC of the shop that fails is attempted as often as its contract allows, by Node."""
    contracts = ResolvedContracts(support.shop_image())
    methods = [method for method in contracts.rpcs() if not method.policy.client_streaming]
    server = support.Flaky(methods)
    config = _config(contracts)
    config["retryThrottling"] = {"maxTokens": 1000, "tokenRatio": 0.1}
    for entry in config["methodConfig"]:
        if "retryPolicy" in entry:  # what is waited for is not what is proven here
            entry["retryPolicy"] |= {"initialBackoff": "0.001s", "maxBackoff": "0.002s"}
    for method in methods:
        server.behaviours[method.policy.method] = support.failing(grpc.StatusCode.UNAVAILABLE)
    async with server.serving() as port:
        codes = await _codes(port, config, methods)
    assert set(codes) == {"UNAVAILABLE"}
    expected = {
        method.policy.method: method.retry.max_attempts
        if method.retry and Code.UNAVAILABLE in method.retry.codes
        else 1
        for method in methods
    }
    assert server.attempts == expected
    assert {1, 3} <= set(expected.values())


async def test_c_core_takes_it_without_timeouts() -> None:
    """Without timeouts, the C-core (here: Python's) takes the config of every contract we have."""
    for name, contracts in support.all_contracts().items():
        config = json.loads(service_config.export(contracts, timeouts=False))
        assert not any("timeout" in entry for entry in config["methodConfig"]), name
        methods = [method for method in contracts.rpcs() if not method.policy.client_streaming]
        server = support.Flaky(methods)
        retried = next((method for method in methods if method.retry), methods[0])
        attempts = retried.retry.max_attempts if retried.retry else 1
        server.behaviours[retried.policy.method] = support.failing(
            grpc.StatusCode.UNAVAILABLE, attempts - 1
        )
        options = [("grpc.service_config", json.dumps(config))]
        async with (
            server.serving() as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
        ):
            # A config that the core refuses fails every call.
            assert await support.outcome(channel, retried.policy.method) == "OK", name
        assert server.attempts[retried.policy.method] == attempts


def test_entry_says_what_the_contract_says() -> None:
    """An entry holds name, timeout and retry of its RPC, under gRPC's names."""
    entries = _config(ResolvedContracts(support.foreign_image()))["methodConfig"]
    race = next(entry for entry in entries if entry["name"][0]["method"] == "Race")
    assert race == {
        "name": [{"service": "flaky.v1.FlakyService", "method": "Race"}],
        "timeout": "5s",
        "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "0.005s",
            "maxBackoff": "0.02s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["DEADLINE_EXCEEDED", "ABORTED"],
        },
    }
    upload = next(entry for entry in entries if entry["name"][0]["method"] == "Upload")
    assert "retryPolicy" not in upload
