"""Half-open: a thousand callers at once when a circuit may be tried again; how many get through."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

import accord
from accord.contract import method_policy
from benchmarks import harness
from tests.accord.kit import Message, Stub, eventually, path, serving


async def run(repetitions: int, callers: int) -> dict[str, object]:
    """The method's contract says two probes."""
    shift, broken, arrived = 0.0, True, 0
    gate = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        nonlocal arrived
        if broken:
            raise accord.Unavailable("DOWN")
        arrived += 1
        await gate.wait()
        return request

    policy = method_policy(path("Fragile")).breaker
    assert policy is not None
    seen: Counter[int] = Counter()
    # The time stands still: a probe that takes longer than the circuit is open lets others pass.
    mesh = accord.Mesh("caller", clock=lambda: shift)
    async with serving(accord.Mesh("callee"), {"Fragile": handler}) as address:
        stub = Stub(mesh.channel(address))

        async def call() -> bool:
            try:
                await stub.Fragile(Message())
            except grpc.aio.AioRpcError:
                return False
            return True

        for _ in range(repetitions):
            broken, arrived = True, 0
            gate.clear()
            for _ in range(policy.consecutive_failures):
                await call()
            assert not await call()  # open
            broken = False
            shift += policy.max_open
            calls = [asyncio.ensure_future(call()) for _ in range(callers)]
            await _ended(calls, callers - policy.probes)
            gate.set()
            answered = sum(await asyncio.gather(*calls))
            assert answered == arrived
            seen[arrived] += 1
        await mesh.close()
    return {
        "callers at once": callers,
        "probes in the contract": policy.probes,
        "repetitions": repetitions,
        "probes that got through: how often": dict(seen),
    }


async def _ended(calls: Sequence["asyncio.Future[bool]"], number: int) -> None:
    await eventually(lambda: sum(call.done() for call in calls) >= number, 30)


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--repetitions", type=int, default=200)
    options.add_argument("--callers", type=int, default=1000)
    given = options.parse_args()
    figures = asyncio.run(run(given.repetitions, given.callers))
    harness.report("probes", figures, as_json=given.json)


if __name__ == "__main__":
    main()
