"""A process that serves Watch on a port, to be killed: `python -m tests.accord.watch_server 0`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import accord
from tests.accord.kit import Message, serving

HEAD = 200


async def _watch(request: Any, context: Any) -> AsyncIterator[Any]:
    for sequence in range(request.after + 1, HEAD + 1):
        await asyncio.sleep(0.002)
        yield Message(sequence=sequence)


async def _main(port: int) -> None:
    async with serving(accord.Mesh("callee"), {"Watch": _watch}, port=port) as address:
        print(address.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
