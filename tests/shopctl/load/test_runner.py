"""Calls are made when they are due, whatever becomes of those before."""

import asyncio
from collections.abc import Iterator

import grpc.aio
import pytest

from shopctl.load import runner
from shopctl.load.report import as_json, lines, progress
from shopctl.load.result import OK
from shopctl.load.runner import CUT_OFF, Answered, Runner
from shopctl.load.schedule import Arrival, arrivals

NONE = grpc.aio.Metadata()


def evenly(count: int, gap: float, kind: str = "a") -> Iterator[Arrival]:
    return (Arrival(number * gap, kind) for number in range(count))


async def test_a_stall_is_seen_by_every_call_that_it_delays() -> None:
    """Calls that wait for one that hangs are late from when they were due: nothing is omitted."""
    stalled = asyncio.Lock()

    async def call(_: Answered) -> None:
        async with stalled:
            if not done:
                done.append(1)
                await asyncio.sleep(0.5)

    done: list[int] = []
    result = await Runner({"a": call}, 100).run(evenly(50, 0.01))
    found = result.kinds["a"].milliseconds()
    assert result.sent == 50
    assert found["max"] > 480
    assert found["p50"] > 150  # half of them were due in the first half of the stall


async def test_a_blocked_process_is_said() -> None:
    """Where the loop itself stands still calls are made late, and that counts in their latency."""

    async def call(_: Answered) -> None:
        if not blocked:
            blocked.append(1)
            import time

            time.sleep(0.3)  # noqa: ASYNC251 - this is what is tested

    blocked: list[int] = []
    result = await Runner({"a": call}, 100).run(evenly(20, 0.01))
    assert result.late >= 15
    assert result.worst > 0.2
    assert result.kinds["a"].milliseconds()["p50"] > 100
    assert any("does not keep up" in line for line in lines(result, 100))


async def test_calls_beyond_the_bound_are_dropped_and_counted() -> None:
    """A bound that is hit is said, and no call waits for another to end."""
    end = asyncio.Event()

    async def call(_: Answered) -> None:
        await end.wait()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, NONE, NONE, "", "")

    run = Runner({"a": call}, 3)
    asyncio.get_running_loop().call_later(0.3, end.set)
    result = await run.run(evenly(10, 0.001))
    assert (result.sent, result.dropped) == (3, 7)
    assert result.kinds["a"].codes == {"UNAVAILABLE": 3}
    text = "\n".join(lines(result, 3))
    assert "7 calls dropped" in text
    assert "UNAVAILABLE 3" in text
    assert as_json(result, 1000.0)["dropped"] == 7


async def test_a_stop_ends_it_with_what_was_measured() -> None:
    """No more calls are made; open ones are waited for, and what only goes on is ended."""
    begun = asyncio.Event()

    async def slow(_: Answered) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    async def stream(answered: Answered) -> None:
        answered()
        await asyncio.Event().wait()

    run = Runner({"a": slow, "b": stream}, 100)
    schedule = (Arrival(n * 0.01, "ab"[n % 2]) for n in range(10_000))
    task = asyncio.create_task(run.run(schedule))
    await begun.wait()
    await asyncio.sleep(0.1)
    assert "open" in progress(run, 0.1)
    run.stop()
    async with asyncio.timeout(5):
        result = await task
    assert result.interrupted
    assert 1 < result.sent < 1000
    assert result.total().codes == {OK: result.sent}
    assert as_json(result, 100.0)["interrupted"]


async def test_who_gets_no_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some grace, or at once when it is told twice to stop."""

    async def silent(_: Answered) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(runner, "GRACE", 0.1)
    result = await Runner({"a": silent}, 10).run(evenly(3, 0.0))
    assert result.kinds["a"].codes == {CUT_OFF: 3}

    monkeypatch.setattr(runner, "GRACE", 60.0)
    run = Runner({"a": silent}, 10)
    asyncio.get_running_loop().call_later(0.1, run.stop)
    asyncio.get_running_loop().call_later(0.2, run.stop)
    async with asyncio.timeout(5):
        result = await run.run(arrivals(100, 60, {"a": 1}, 1))
    assert set(result.kinds["a"].codes) == {CUT_OFF}
