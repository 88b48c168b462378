"""Processes that are forked from one that has imported what they need; real ones."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shopctl.supervisor import forks
from shopctl.supervisor.forks import Forked, ForkServer
from tests.shopctl.support import forked
from tests.shopctl.support.processes import runs, shown
from tests.support.wait import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux only")

MODULE = forked.__name__


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    """One that has imported `colorsys`, and could not import what is not there."""
    found = ForkServer(("no.such.module", "colorsys"), {"PATH": os.environ["PATH"], "ALL": "know"})
    yield found
    await found.close()


async def start(server: ForkServer, then: str) -> tuple[Forked, dict[str, Any]]:
    """A forked process, and what it says of itself."""
    env = {"THEN": then, "SECRET": "canary", "IMPORTED": "colorsys"}
    with tempfile.NamedTemporaryFile() as output:
        process = await server.start(MODULE, env, output.fileno())
        await until(lambda: os.fstat(output.fileno()).st_size, "it has said how it finds itself")
        return process, json.loads(os.pread(output.fileno(), 65536, 0).splitlines()[0])


async def test_it_runs_as_if_started_by_itself(server: ForkServer) -> None:
    """Its environment, arguments, name, group and title are its own; imports are there already."""
    process, said = await start(server, "wait")
    assert said == {
        "env": {"THEN": "wait", "SECRET": "canary", "IMPORTED": "colorsys"},
        "argv": [forked.__file__],
        "name": "__main__",
        "group": process.pid,
        "imported": True,
    }
    title = shown(process.pid, "cmdline").rstrip(b"\0").decode()
    assert title == f"{sys.executable} -m {MODULE}"


async def test_others_cannot_read_what_it_knows(server: ForkServer) -> None:
    """What only one process is told is in no environment that the system shows."""
    process, _ = await start(server, "wait")
    assert server.pid is not None
    for pid in (process.pid, server.pid):
        assert b"canary" not in shown(pid, "environ")


@pytest.mark.parametrize(("then", "code"), [("0", 0), ("7", 7), ("a reason", 1)])
async def test_how_it_ended_is_told(server: ForkServer, then: str, code: int) -> None:
    """The exit code is that of a process of its own."""
    process, _ = await start(server, then)
    assert await process.wait() == code


async def test_a_signal_is_told(server: ForkServer) -> None:
    """SIGTERM, which it does not handle, ends it, and only it."""
    one, _ = await start(server, "wait")
    other, _ = await start(server, "wait")
    os.kill(one.pid, signal.SIGTERM)
    assert await one.wait() == -signal.SIGTERM
    assert runs(other.pid)


async def test_many_at_once(server: ForkServer) -> None:
    """Starts and ends that cross each other are not mistaken for one another."""
    codes = [number % 50 for number in range(100)]
    started = await asyncio.gather(*(start(server, str(code)) for code in codes))
    assert await asyncio.gather(*(process.wait() for process, _ in started)) == codes


async def test_they_end_with_what_they_are_forked_from(server: ForkServer) -> None:
    """`kill -9` of the server ends what it forked, which is told; the next start has a new one."""
    process, _ = await start(server, "wait")
    before = server.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await until(lambda: not runs(process.pid), "the kernel ends it")
    await start(server, "0")
    assert server.pid not in (None, before)


async def test_one_that_nobody_waits_for_is_ended(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork that comes too late is an error, and leaves no process behind."""
    await start(server, "0")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.setattr(forks, "ANSWER_SECONDS", 0.1)
    with pytest.raises(TimeoutError):
        await start(server, "wait")
    os.kill(server.pid, signal.SIGCONT)
    children = f"task/{server.pid}/children"
    await until(lambda: not shown(server.pid or 0, children), "it is ended")
    monkeypatch.undo()
    process, _ = await start(server, "3")
    assert await process.wait() == 3
