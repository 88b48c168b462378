"""One of several backends is killed, frozen or ten times slower: what its callers notice of it.

200 calls a second of 20 ms, by round robin over real processes. A call that is retried has 3
attempts of 150 ms; one that is hedged has a backup as well; one that is neither has a second.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc.aio

import accord
from accord.ops.v1 import mesh_pb2
from accord.v1 import policy_pb2
from benchmarks import harness
from tests.accord.kit import Message, Stub, path

RATE: Final = 200.0
FAULTS: Final = {
    "killed": (2, signal.SIGKILL),
    "frozen": (2, signal.SIGSTOP),
    "slow": (3, signal.SIGUSR1),
}
"""Number of backends, and what is sent to one of them."""

CALLS: Final = {"not retried": "Unary", "retried": "Retried", "hedged": "Hedged"}


def _policy(calls: str) -> policy_pb2.MethodPolicy:
    policy = policy_pb2.MethodPolicy(breaker=policy_pb2.Breaker())
    policy.timeout.seconds = 1 if calls == "not retried" else 3
    if calls != "not retried":
        policy.attempt_timeout.FromMilliseconds(150)
        policy.retry.max_attempts = 5
        policy.retry.initial_backoff.FromMilliseconds(50)
        policy.retry.max_backoff.FromMilliseconds(500)
        policy.retry.codes.extend(
            (policy_pb2.STATUS_CODE_UNAVAILABLE, policy_pb2.STATUS_CODE_DEADLINE_EXCEEDED)
        )
    if calls == "hedged":
        policy.hedge.percentile = 95
    return policy


async def run(fault: str, calls: str, *, seconds: float, before: float) -> dict[str, Any]:
    """What the callers notice of a fault, which begins `before` seconds after them."""
    backends, harm = FAULTS[fault]
    mesh = accord.Mesh("caller")
    mesh.control.overrides.set(path(CALLS[calls]), mesh_pb2.Override(policy=_policy(calls)))
    failed: Counter[str] = Counter()
    last = 0.0
    took: tuple[list[float], list[float]] = ([], [])
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(harness.server("benchmarks.backend_server"))
            for _ in range(backends)
        ]
        stack.push_async_callback(mesh.close)
        stub = Stub(mesh.channel(f"ipv4:{','.join(address for _, address in servers)}"))
        call = getattr(stub, CALLS[calls])
        await asyncio.gather(*(call(Message(), timeout=5) for _ in range(20)))

        async def one(since: float) -> None:
            nonlocal last
            begun = time.monotonic()
            try:
                await call(Message())
            except grpc.aio.AioRpcError as error:
                failed[error.code().name] += 1
                last = begun - start - before
            took[since >= before].append(time.monotonic() - begun)

        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(RATE * (before + seconds))):
                since = number / RATE
                await asyncio.sleep(start + since - time.monotonic())
                if number == int(RATE * before):
                    os.kill(servers[0][0], harm)
                group.create_task(one(since))
    (route,) = mesh.snapshot().routes
    usual, now = (harness.percentile(times, 99) * 1000 for times in took)
    return {
        "calls": len(took[1]),
        "failed": sum(failed.values()),
        "codes": dict(failed),
        "last sent after, s": round(last, 2),
        "p99, ms": round(now, 1),
        "p99 before, ms": round(usual, 1),
        "opened": route.breaker.opened if route.breaker is not None else 0,
    }


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="how long a fault lasts")
    options.add_argument("--before", type=float, default=10.0, help="seconds before it")
    options.add_argument("--fault", choices=FAULTS, action="append")
    options.add_argument("--calls", choices=CALLS, action="append")
    given = options.parse_args()
    figures = {
        f"{fault}, {calls}": asyncio.run(
            run(fault, calls, seconds=given.seconds, before=given.before)
        )
        for fault in given.fault or FAULTS
        for calls in given.calls or CALLS
    }
    harness.report("backends", figures, as_json=given.json)


if __name__ == "__main__":
    main()
