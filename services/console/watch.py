"""What every service says of itself, watched once for all viewers, and only while there are any."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc

import accord
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub

INTERVAL: Final = 2.0
"""Seconds between two states of a service."""

AGAIN: Final = 1.0
"""Seconds until a service that has gone is asked again."""

LINGER: Final = 3.0
"""Seconds for which it goes on when the last viewer has left, perhaps for another page."""


@dataclass(slots=True)
class Seen:
    """One service, as it was when it last said something."""

    at: float = 0.0
    """POSIX seconds; 0: it has not said anything yet."""
    problem: str = ""
    """Why it says nothing any more; empty while it does."""
    away_since: float = 0.0
    """POSIX seconds; 0: it is not."""
    window: float = 0.0
    """Seconds that the figures of edges are of."""
    state: pb.GetStateResponse = field(default_factory=pb.GetStateResponse)
    edges: dict[tuple[int, str, str], pb.Edge] = field(default_factory=dict)
    """By direction, peer and method."""
    events: dict[tuple[int, str], pb.EventEdge] = field(default_factory=dict)
    """By direction and source."""

    def take(self, said: pb.WatchStateResponse, *, first: bool) -> None:
        """Take what it says: all of it at first, then what has changed."""
        if first:
            self.state = said.state
            self.edges.clear()
            self.events.clear()
        else:
            for name in said.changed:
                self.state.ClearField(name)  # type: ignore[arg-type]  # one of its fields
            self.state.MergeFrom(said.state)
        self.edges |= {(each.direction, each.peer, each.method): each for each in said.edges}
        self.events |= {(each.direction, each.source): each for each in said.event_edges}
        self.window = said.window.ToNanoseconds() / 1e9
        self.at, self.problem, self.away_since = time.time(), "", 0.0


class MeshWatch:
    """Watches services by `MeshService.WatchState`. Belongs to one event loop."""

    def __init__(self, mesh: accord.Mesh, names: Iterable[str]) -> None:
        """`names`: targets of the mesh."""
        self._mesh = mesh
        self.seen = {name: Seen() for name in names}
        self.version = 0
        """Another number whenever something has changed."""
        self._viewers = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def viewer(self) -> AsyncIterator[None]:
        """For as long as somebody looks."""
        self._viewers += 1
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._follow(name), name=f"watch {name}") for name in self.seen
            ]
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._ending = asyncio.get_running_loop().call_later(LINGER, self._stop)

    @property
    def watching(self) -> bool:
        """Whether it costs services anything."""
        return bool(self._tasks)

    async def close(self) -> None:
        """Stop, whoever looks."""
        if self._ending is not None:
            self._ending.cancel()
        tasks = self._stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self) -> list["asyncio.Task[None]"]:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        return tasks

    async def _follow(self, name: str) -> None:
        seen = self.seen[name]
        request = pb.WatchStateRequest()
        request.interval.FromNanoseconds(int(INTERVAL * 1e9))
        while True:
            try:
                first = True
                async for said in MeshServiceStub(self._mesh.channel(name)).WatchState(request):
                    seen.take(said, first=first)
                    self.version += bool(first or said.changed or said.edges or said.event_edges)
                    first = False
                seen.problem = "it has ended the watch"
            except grpc.RpcError as error:
                seen.problem = said_of(error)
            seen.away_since = seen.away_since or time.time()
            self.version += 1
            await asyncio.sleep(AGAIN)


def said_of(error: grpc.RpcError) -> str:
    """What a call has failed with, for people."""
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: "")() or ""
    return f"{code.name if code else 'failed'}: {details}".removesuffix(": ")
