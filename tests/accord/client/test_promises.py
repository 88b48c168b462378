"""The numbers that the pages promise of a caller's side, as they are written there."""

import time
from collections.abc import AsyncIterator
from typing import Any

import accord
from accord.client import service_config
from accord.client.method_state import Target
from accord.policies.budget import BudgetPolicy
from tests.accord.client.kit import DOWN, Flaky
from tests.accord.drivers import Driver
from tests.accord.kit import Message, collect, failure


def test_who_is_left_out_and_for_how_long() -> None:
    """A look every 0.5 s; 85 % of five calls; for 30 s; another while fewer than 30 % are."""
    balancing: Any = service_config.default()["loadBalancingConfig"]
    assert balancing[0] == {
        "outlier_detection_experimental": {
            "interval": "0.5s",
            "baseEjectionTime": "30.0s",
            "maxEjectionPercent": 30,
            "failurePercentageEjection": {
                "threshold": 85,
                "enforcementPercentage": 100,
                "minimumHosts": 2,
                "requestVolume": 5,
            },
            "childPolicy": [{"round_robin": {}}],
        }
    }


def test_another_backend_is_waited_for_by_20_ms() -> None:
    """Twenty looks, one a millisecond, and the attempt is made in any case."""
    target = Target("echo", BudgetPolicy(), time.monotonic)
    target.turns = 6
    assert list(target.waits(5)) == [0.001] * 20


async def test_a_stream_has_two_seconds_beyond_its_life(driver: Driver) -> None:
    """The server ends it in order, after 0.15 s: its caller has granted 2.15 s."""
    left: list[float] = []

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        left.append(context.time_remaining())
        yield Message(sequence=1)

    async with driver.served({"WatchBriefly": handler}) as (stub, _):
        await collect(stub.WatchBriefly(Message()))
    assert 1.15 < left[0] < 2.5  # gRPC rounds up what it sends


async def test_a_wait_that_outlasts_the_call_is_not_begun(driver: Driver) -> None:
    """Who is told to come back in 0.8 s, and has half a second, has the error at once."""
    flaky = Flaky(accord.Unavailable("DOWN", 0.8), DOWN)
    async with driver.served({"Retried": flaky.unary}) as (stub, _):
        error = await failure(stub.Retried(Message(), timeout=0.5))
    assert (error.reason, flaky.calls) == ("DOWN", 1)
