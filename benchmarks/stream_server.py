"""A process to be killed: waits for a line with a port, then serves a resumable stream on it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import accord
from tests.accord.kit import Message, serving

PACE = 0.001


async def _main(head: int) -> None:
    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        for sequence in range(request.after + 1, head + 1):
            if sequence % 10 == 0:
                await asyncio.sleep(PACE)
            yield Message(sequence=sequence)

    print("ready", flush=True)
    port = int(await asyncio.to_thread(sys.stdin.readline))
    async with serving(accord.Mesh("callee"), {"Watch": watch}, port=port) as address:
        print(address.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
