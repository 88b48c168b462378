"""Calls that are repeated until they are answered."""

import time
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from shopctl.exit_codes import ExitCode
from shopctl.replay.patience import RETRIABLE, Patience, RefusedError
from shopctl.replay.tally import Tally


def error(code: grpc.StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), "no", "")


def quick(tally: Tally) -> Patience:
    return Patience(tally, first_pause=0.001, longest_pause=0.002)


async def test_rides_out_what_passes() -> None:
    """Every code that says nothing about the request is ridden out, and counted."""
    tally = Tally(1)
    failures = [error(code) for code in RETRIABLE]

    async def attempt() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert await quick(tally).call("Method", attempt) == "answer"
    assert tally.retries == {code.name: 1 for code in RETRIABLE}


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in {*RETRIABLE, grpc.StatusCode.OK}]
)
async def test_does_not_repeat_a_refusal(code: grpc.StatusCode) -> None:
    """An error about the request itself ends the command at once and is explained."""
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise error(code)

    with pytest.raises(RefusedError, match=f"Method: {code.name}") as refused:
        await quick(Tally(1)).call("Method", attempt)
    assert refused.value.code is ExitCode.REFUSED
    assert attempts == 1


async def test_pauses_grow_to_a_bound() -> None:
    """Ten repetitions with pauses of 1, 2, 4, 4 ... ms take at least half of their sum."""
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 10:
            raise error(grpc.StatusCode.UNAVAILABLE)

    begun = time.monotonic()
    await Patience(Tally(1), first_pause=0.001, longest_pause=0.004).call("Method", attempt)
    assert time.monotonic() - begun >= (1 + 2 + 8 * 4) / 2 / 1000


async def test_a_broken_stream_is_read_anew() -> None:
    """A stream that ends by itself gives every message once, however often it breaks."""
    openings = 0

    async def stream() -> AsyncIterator[int]:
        nonlocal openings
        openings += 1
        yield 1
        yield 2
        if openings < 3:
            raise error(grpc.StatusCode.UNAVAILABLE)
        yield 3

    assert await quick(Tally(1)).all("Method", stream) == [1, 2, 3]
