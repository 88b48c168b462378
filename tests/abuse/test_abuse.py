"""Whoever behaves well is answered while somebody else does not, and nothing of it stays.

Short here; `make abuse` runs each attack for `ABUSE` seconds and prints what it has measured.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio
import psutil  # type: ignore[import-untyped]
import pytest

from tests.abuse.attacks import ATTACKS
from tests.abuse.server import TIDY
from tests.accord.kit import Message, Stub

SECONDS: Final = float(os.environ.get("ABUSE", "3"))
"""How long an attack goes on."""

RATE: Final = 20
"""Calls of the one who behaves, each second. Every other is a stream."""

PATIENCE: Final = 5.0
"""Seconds in which it wants its answer."""

ANSWERED: Final = 0.95
"""The part of its calls that is answered during an attack; afterwards all are."""

AFTERWARDS: Final = 3.0
"""Seconds after the attack until everything is as before."""

MEMORY: Final = 1.2
"""What a further attack may leave behind, by what those before it have. They cost what gRPC and
malloc keep of as many calls at once as one connection may have open; see docs/abuse.md."""

FURTHER: Final = 3
"""Attacks after which memory must have reached its level. What leaks grows with each of them."""

BURST: Final = {"aio": 3000, "sync": 1000}
"""Calls at once that lose nothing. Threads are as many as streams and calls may be."""


@contextmanager
def serving(*kind: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server, see `tests.abuse.server`; yields its address and process."""
    command = [sys.executable, "-m", "tests.abuse.server", *kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), psutil.Process(process.pid)
        finally:
            process.kill()


@dataclass
class Honest:
    """A client that behaves well, on a channel of its own."""

    stub: Stub
    lost: list[str] = field(default_factory=list)
    """Names of the codes of its calls that were not answered."""
    calls: int = 0

    async def call(self, *, streamed: bool) -> None:
        """One call, or the beginning of a stream."""
        self.calls += 1
        try:
            if streamed:
                stream = self.stub.ServerStream(Message(), timeout=PATIENCE)
                assert (await stream.read()).text
                stream.cancel()
            else:
                await self.stub.Unary(Message(text="a"), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            self.lost.append(error.code().name)

    async def goes_on(self, over: asyncio.Event) -> None:
        """Call at its rate until something is over."""
        async with asyncio.TaskGroup() as calls:
            while not over.is_set():
                calls.create_task(self.call(streamed=self.calls % 2 == 0))
                await asyncio.sleep(1 / RATE)


async def used(stub: Stub, process: psutil.Process) -> int:
    """Bytes that a server uses, without those that it only has at hand."""
    await stub.Unary(Message(text=TIDY), timeout=60)
    return int(process.memory_info().rss)


async def attacked(attack: str, address: str) -> str:
    """Do it, and return what was done."""
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.abuse.attacks", attack, address, f"{SECONDS:g}"),
        stdout=subprocess.PIPE,
    )
    done, _ = await attacker.communicate()
    assert attacker.returncode == 0
    return done.decode().strip()


@pytest.mark.alone
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_attack(kind: str, attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At least 95 % of an honest client's calls are answered, and all of them afterwards."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with serving(kind) as (address, process):
        async with grpc.aio.insecure_channel(address, options) as channel:
            burst = Honest(Stub(channel))
            async with asyncio.TaskGroup() as calls:
                for _ in range(BURST[kind]):
                    calls.create_task(burst.call(streamed=False))
            assert burst.lost == []
            before = await used(burst.stub, process)
        async with grpc.aio.insecure_channel(address, options) as channel:
            honest, over = Honest(Stub(channel)), asyncio.Event()
            going_on = asyncio.create_task(honest.goes_on(over))
            done = await attacked(attack, address)
            over.set()
            await going_on
            await asyncio.sleep(AFTERWARDS)
            levels = [await used(honest.stub, process)]
            for _ in range(FURTHER):
                await attacked(attack, address)
                await asyncio.sleep(AFTERWARDS)
                levels.append(await used(honest.stub, process))
                if levels[-1] <= MEMORY * levels[-2]:
                    break
            after, over = Honest(Stub(channel)), asyncio.Event()
            asyncio.get_running_loop().call_later(2, over.set)
            await after.goes_on(over)
            levels[-1] = await used(after.stub, process)
    with capsys.disabled():
        print(
            f"\n{kind} {attack}: {done}; {len(honest.lost)} of {honest.calls} calls lost during "
            f"it, {len(after.lost)} of {after.calls} after it; memory {before / 2**20:.0f} MiB, "
            f"{', '.join(f'{level / 2**20:.0f}' for level in levels)} MiB after attacks"
        )
    assert len(honest.lost) <= (1 - ANSWERED) * honest.calls, honest.lost
    assert after.lost == []
    assert levels[-1] <= MEMORY * levels[-2]
