"""A resumable stream whose server is killed over and over: what arrives, and how late.

SIGKILL in mid-stream; a process that has only to bind the port waits to take over.
"""

import asyncio
import sys
import time
from typing import Any

import accord
from benchmarks import harness
from tests.accord.kit import Message, Stub


async def _spare(head: int) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.stream_server", str(head)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _serve(process: Any, port: int) -> int:
    process.stdin.write(f"{port}\n".encode())
    return int(await process.stdout.readline())


async def run(kills: int, messages: int) -> dict[str, object]:
    resumed, killed, longest = 0, 0, 0.0
    received: list[int] = []

    def on_resume(method: str, attempt: int, error: Any) -> None:
        nonlocal resumed
        resumed += 1

    process = await _spare(messages)
    spare = asyncio.ensure_future(_spare(messages))
    port = await _serve(process, 0)
    mesh = accord.Mesh("caller", on_resume=on_resume)
    every, last = messages // (kills + 1), time.monotonic()
    try:
        async for message in Stub(mesh.channel(f"127.0.0.1:{port}")).Watch(Message()):
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            received.append(message.sequence)
            if killed < kills and len(received) >= every * (killed + 1):
                process.kill()
                await process.wait()
                killed += 1
                process = await spare
                spare = asyncio.ensure_future(_spare(messages))
                await _serve(process, port)
        await mesh.close()
    finally:
        for one in (process, await spare):
            one.kill()
            await one.wait()
    return {
        "messages": messages,
        "kills": killed,
        "received": len(received),
        "identical": received == list(range(1, messages + 1)),
        "opened again": resumed,
        "longest gap, s": round(longest, 2),
    }


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--messages", type=int, default=10_000)
    given = options.parse_args()
    figures = asyncio.run(run(given.kills, given.messages))
    harness.report("kills", figures, as_json=given.json)


if __name__ == "__main__":
    main()
