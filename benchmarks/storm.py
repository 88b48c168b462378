"""Retry storm: how often a failing leaf is called, per call of the edge, below three tiers of four.

No budget has a floor, and the breakers only count. Without a rule for the tree it would be 64.
"""

import asyncio

import grpc
import grpc.aio

from benchmarks import harness
from tests.accord.kit import Message
from tests.accord.tiers import tiers

_AT_ONCE = 20


async def run(calls: int) -> dict[str, object]:
    async with tiers() as storm:

        async def call() -> None:
            try:
                await storm.edge.Retried(Message())
            except grpc.aio.AioRpcError:
                return

        for _ in range(calls // _AT_ONCE):
            await asyncio.gather(*(call() for _ in range(_AT_ONCE)))
        made = calls // _AT_ONCE * _AT_ONCE
        return {"edge calls": made, "leaf calls per edge call": round(storm.leaf_calls / made, 3)}


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--calls", type=int, default=2000, help="calls of the edge")
    given = options.parse_args()
    harness.report("storm", asyncio.run(run(given.calls)), as_json=given.json)


if __name__ == "__main__":
    main()
