"""Calls that are repeated until they are answered, and several at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from shopctl.errors import CommandError, ExitCode
from shopctl.replay.clients import RETRY, RefusedError, Retries, for_each
from shopctl.replay.progress import Tally

RETRIABLE = {grpc.StatusCode[code.name] for code in RETRY.codes}


def error(code: grpc.StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), "no", "")


def quick(tally: Tally, longest: float = 0.002) -> Retries:
    policy = replace(RETRY, initial_backoff=0.001, max_backoff=longest)
    return Retries(tally, policy, random=lambda: 0.5)


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
    await quick(Tally(1), longest=0.004).call("Method", attempt)
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

    async def read() -> list[int]:
        return [message async for message in stream()]

    assert await quick(Tally(1)).call("Method", read) == [1, 2, 3]


async def test_never_more_than_the_limit() -> None:
    """All items are worked on, begun in their order, and never more than the limit at a time."""
    running = most = 0
    begun: list[int] = []

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        begun.append(item)
        await asyncio.sleep(0)
        running -= 1

    await for_each(range(50), 7, work)
    assert begun == list(range(50))
    assert most == 7


async def test_the_first_error_ends_it() -> None:
    """An error cancels what runs and is raised as it is, not in a group."""
    cancelled = []

    async def work(item: int) -> None:
        if item == 3:
            raise CommandError("refused")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(CommandError, match="refused"):
        await for_each(range(10), 4, work)
    assert sorted(cancelled) == [0, 1, 2]
