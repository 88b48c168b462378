"""The supervisor, with real processes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shopctl.supervisor import process
from shopctl.supervisor.health import Answer, State, check_grpc
from shopctl.supervisor.process import Backoff
from shopctl.supervisor.programs import Program
from shopctl.supervisor.restarts import Event, Notice, Supervisor, describe_exit
from tests.shopctl.support import tiny
from tests.shopctl.support.processes import runs
from tests.support.ports import free_port
from tests.support.wait import DEADLINE, until

TINY = str(Path(tiny.__file__))


def tiny_program(name: str, *options: str, last: bool = False) -> Program:
    port = free_port()
    address = f"127.0.0.1:{port}"
    return Program(
        name=name,
        argv=(sys.executable, TINY, "--port", str(port), *options),
        env=dict(os.environ),
        address=address,
        ports={"gRPC": port},
        health=check_grpc,
        drains=1 + last,
    )


class Watched:
    """A supervisor and everything that it said."""

    def __init__(self, *programs: Program, drain_seconds: float = 5.0) -> None:
        self.lines: list[tuple[str, bytes]] = []
        self.notices: list[Notice] = []
        self.supervisor = Supervisor(
            programs,
            on_lines=lambda name, lines: self.lines.extend((name, line) for line in lines),
            on_notice=self.notices.append,
            drain_seconds=drain_seconds,
            backoff=lambda: Backoff(first=0.05),
        )
        self.children = {child.program.name: child for child in self.supervisor.children}

    def said(self, event: Event) -> list[Notice]:
        return [notice for notice in self.notices if notice.event is event]

    def messages(self, name: str) -> list[str]:
        return [json.loads(line)["msg"] for who, line in self.lines if who == name]

    def pid(self, name: str) -> int:
        pid = self.children[name].pid
        assert pid is not None
        return pid


@asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[None]:
    """Runs a supervisor, and whatever happens leaves no process behind."""
    task = asyncio.create_task(watched.supervisor.run())
    try:
        yield
    finally:
        watched.supervisor.kill()
        await asyncio.wait_for(task, DEADLINE)


@contextmanager
def no_process_left(watched: Watched) -> Iterator[None]:
    pids = [child.pid for child in watched.children.values()]
    yield
    assert not [pid for pid in pids if pid and runs(pid)]


async def test_starts_all_and_waits_for_health() -> None:
    """`serving` is true exactly when every child answers SERVING to a health check."""
    watched = Watched(tiny_program("a"), tiny_program("b"))
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        assert {child.state for child in watched.children.values()} == {State.SERVING}
        for child in watched.children.values():
            assert (await check_grpc(child.program.address, 2.0)).state is State.SERVING


async def test_not_serving_is_not_ready() -> None:
    """A child that answers NOT_SERVING, unlike one that serves, keeps the shop from being ready."""
    watched = Watched(tiny_program("good"), tiny_program("bad", "--not-serving"))
    async with running(watched):
        await until(lambda: watched.messages("bad"), "the child to listen")
        assert not await watched.supervisor.serving(0.3)
        assert watched.children["bad"].state is State.STARTING
        answer = await check_grpc(watched.children["bad"].program.address, 2.0)
        assert answer.state is State.NOT_SERVING


async def test_drains_in_order_and_leaves_nothing() -> None:
    """`stop` lets children finish, the broker last, and they all end by themselves."""
    watched = Watched(tiny_program("last", last=True), tiny_program("first"))
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        with no_process_left(watched):
            watched.supervisor.stop()
            await until(
                lambda: all(child.gone.is_set() for child in watched.children.values()), "the end"
            )
    drained = [name for name, line in watched.lines if b"drained" in line]
    assert drained == ["first", "last"]
    assert not watched.said(Event.KILLED)
    assert not watched.said(Event.DIED)


async def test_restarts_what_dies() -> None:
    """A child that is killed with SIGKILL is started again, counted, and serves again."""
    watched = Watched(tiny_program("a"), tiny_program("b"))
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        first, other = watched.pid("a"), watched.pid("b")
        os.kill(first, signal.SIGKILL)
        await until(lambda: watched.said(Event.DIED), "the death to be noticed")
        assert await watched.supervisor.serving(DEADLINE)
        assert watched.pid("a") != first
        assert watched.pid("b") == other
        assert watched.children["a"].restarts == 1
    (notice,) = watched.said(Event.DIED)
    assert notice.exit_code == -signal.SIGKILL
    assert notice.text == "a was killed by SIGKILL; starting it again in 0.1 s"


async def test_backs_off_from_what_cannot_start() -> None:
    """A child that always ends at once is tried less and less often, and its words are kept."""
    program = Program(
        name="broken",
        argv=(sys.executable, "-c", "print('no such database'); raise SystemExit(7)"),
        env=dict(os.environ),
        address="127.0.0.1:1",
        ports={},
        health=check_grpc,
    )
    watched = Watched(program)
    async with running(watched):
        await until(lambda: len(watched.said(Event.DIED)) >= 3, "three deaths")
    deaths = watched.said(Event.DIED)[:3]
    assert [notice.delay for notice in deaths] == pytest.approx([0.05, 0.1, 0.2])
    assert {notice.exit_code for notice in deaths} == {7}
    assert watched.children["broken"].tail[-1] == b"no such database"


async def test_command_that_does_not_exist() -> None:
    """A program that cannot be run is said in its log and does not end the supervisor."""
    missing = tiny_program("missing")
    program = Program(
        name="missing",
        argv=("/nonexistent/program",),
        env={},
        address=missing.address,
        ports={},
        health=missing.health,
    )
    watched = Watched(program, tiny_program("good"))
    async with running(watched):
        await until(lambda: watched.children["good"].state is State.SERVING, "the good child")
        await until(lambda: watched.said(Event.DIED), "the death to be noticed")
    assert watched.lines[0][1] == b"cannot run /nonexistent/program: No such file or directory"


async def test_kills_what_does_not_drain() -> None:
    """A child that ignores SIGTERM is killed after the drain time, and that is said."""
    watched = Watched(tiny_program("deaf", "--ignore-sigterm"), drain_seconds=0.2)
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        with no_process_left(watched):
            watched.supervisor.stop()
            await until(lambda: watched.children["deaf"].gone.is_set(), "the end")
    assert [notice.text for notice in watched.said(Event.KILLED)] == [
        "deaf did not stop in 0.2 s: killed"
    ]


async def test_kill_interrupts_draining() -> None:
    """`kill` during a drain ends everything at once."""
    watched = Watched(tiny_program("deaf", "--ignore-sigterm"), drain_seconds=600)
    task = asyncio.create_task(watched.supervisor.run())
    assert await watched.supervisor.serving(DEADLINE)
    with no_process_left(watched):
        watched.supervisor.stop()
        await until(lambda: watched.said(Event.DRAINING), "draining")
        watched.supervisor.kill()
        await asyncio.wait_for(task, DEADLINE)


async def test_stop_while_starting() -> None:
    """`stop` right after the start leaves no process behind."""
    watched = Watched(*(tiny_program(f"p{number}") for number in range(3)))
    task = asyncio.create_task(watched.supervisor.run())
    await asyncio.sleep(0)
    watched.supervisor.stop()
    await asyncio.wait_for(task, DEADLINE)
    assert all(child.pid is None for child in watched.children.values())
    assert {child.state for child in watched.children.values()} == {State.STOPPED}


async def test_grandchildren_go_too() -> None:
    """What a child started itself ends when the child dies, and does not hold up the restart."""
    watched = Watched(tiny_program("parent", "--with-child"))
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        grandchild = int(json.loads(watched.lines[0][1])["pid"])
        assert runs(grandchild)
        os.kill(watched.pid("parent"), signal.SIGKILL)
        await until(lambda: not runs(grandchild), "the grandchild to end")
        assert await watched.supervisor.serving(DEADLINE)


async def test_much_output_does_not_block() -> None:
    """A child that writes more than a pipe holds, without a newline, goes on serving."""
    watched = Watched(tiny_program("chatty", "--write", "1000000"))
    async with running(watched):
        assert await watched.supervisor.serving(DEADLINE)
        await until(
            lambda: sum(len(line) for _, line in watched.lines if line.startswith(b"x")) == 10**6,
            "all of the output",
        )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (7, "ended with exit code 7"),
        (-11, "was killed by SIGSEGV"),
        (-99, "was killed by signal 99"),
    ],
)
def test_describe_exit(code: int, text: str) -> None:
    """Exit codes and signals are named."""
    assert describe_exit(code) == text


async def test_what_refuses_from_its_start_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watched program that never serves, and says so, is started again each time."""
    monkeypatch.setattr(process, "REFUSES", 0.2)

    async def refuses(address: str, timeout: float) -> Answer:
        return Answer(State.NOT_SERVING, "no room")

    watched = Watched(replace(tiny_program("a"), health=refuses, watched=True))
    async with running(watched):
        await until(lambda: len(watched.said(Event.DIED)) >= 2, "two ends")
        assert watched.children["a"].restarts >= 2
    assert watched.said(Event.DIED)[0].text.startswith("a refused (no room); starting it again")
