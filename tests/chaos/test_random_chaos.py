"""Thousands of orders while anything may happen to anybody, drawn by a seed that is printed.

Processes are killed and frozen, the broker and the database among them; the card processor and the
carrier are slow, fail, hang and lose answers; and the shop has a backlog so small that it refuses
orders all the time. In the end every order has ended and all books agree, to the cent.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from services import topology
from shop.sandbox.v1 import sandbox_pb2 as pb
from tests.chaos.scale import FULL
from tests.support.mesh_process import SHOPCTL, MeshProcess, running_mesh
from tests.support.ports import free_offset
from tests.support.postgres import running_postgres

ORDERS: Final = int(os.environ.get("CHAOS_ORDERS") or (10_000 if FULL else 80))
SEED: Final = int(os.environ.get("CHAOS_SEED") or time.time() // 3600)
PAUSE: Final = (0.5, 4.0)
"""Seconds from one trouble to the next."""
MOST: Final = max(20, ORDERS // 10)
"""Troubles; what is left of the orders then ends in peace."""
FROZEN: Final = (0.5, 8.0)
"""Seconds for which a process is frozen."""
BACKLOG: Final = 12
"""Pieces of work beyond which a service takes no more orders."""
WAYS: Final = [
    (database, fulfilment)
    for database in ("sqlite", "postgresql")
    for fulfilment in ("orchestrated", "choreographed")
    if FULL or (database, fulfilment) == ("postgresql", "choreographed")
]
EVERYBODY: Final = (*topology.SERVICES, topology.BROKER)

DISTURBED: Final = (
    pb.BEHAVIOR_DELAY,
    pb.BEHAVIOR_FAIL,
    pb.BEHAVIOR_HANG,
    pb.BEHAVIOR_LOSE_ANSWER,
)


class Troubles:
    """Makes trouble in a thread of its own, until it is told to end; then all is well again."""

    def __init__(self, mesh: MeshProcess, database_folder: str) -> None:
        """`database_folder`: of the PostgreSQL server; "" if there is none."""
        self._mesh = mesh
        self._database = database_folder
        self._random = random.Random(SEED)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.made = Counter[str]()
        """What has happened, and how often."""

    def __enter__(self) -> "Troubles":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        kinds: list[Callable[[], str]] = [self._kill, self._kill, self._freeze, self._disturb]
        if self._database:
            kinds.append(self._kill_database)
        while self.made.total() < MOST and not self._over.wait(self._random.uniform(*PAUSE)):
            self.made[self._random.choice(kinds)()] += 1

    def _kill(self) -> str:
        name = self._random.choice(EVERYBODY)
        self._signal(name, signal.SIGKILL)
        return f"kill {name}"

    def _freeze(self) -> str:
        name = self._random.choice(EVERYBODY)
        pid = self._signal(name, signal.SIGSTOP)
        self._over.wait(self._random.uniform(*FROZEN))
        if pid is not None:
            with suppress(ProcessLookupError):  # the supervisor may have ended it
                os.kill(pid, signal.SIGCONT)
        return f"freeze {name}"

    def _signal(self, name: str, number: signal.Signals) -> int | None:
        pid = self._mesh.records()[name].pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def _disturb(self) -> str:
        party = self._random.choice((pb.PARTY_CARD_PROCESSOR, pb.PARTY_CARRIER))
        behavior = self._random.choice(DISTURBED)
        calls = self._random.randint(1, 10)
        request = pb.SetBehaviorRequest(
            party=party, behavior=behavior, calls=calls, delay=Duration(seconds=1)
        )
        address = topology.address("sandbox", self._mesh.offset)
        with grpc.insecure_channel(address) as channel, suppress(grpc.RpcError):
            channel.unary_unary(
                "/shop.sandbox.v1.SandboxService/SetBehavior",
                request_serializer=pb.SetBehaviorRequest.SerializeToString,
                response_deserializer=pb.SetBehaviorResponse.FromString,
            )(request, timeout=2)
        return f"{pb.Party.Name(party)} {pb.Behavior.Name(behavior)}"

    def _kill_database(self) -> str:
        """One of its backends dies: the server ends all the others, recovers and goes on."""
        server = Path(self._database, "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        with suppress(ProcessLookupError):  # it may have ended meanwhile
            os.kill(int(self._random.choice(children)), signal.SIGKILL)
        return "kill database"


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str | None, str]]:
    """URL and folder: of a server for all, or none for a file per service."""
    if request.param == "sqlite":
        yield None, ""
    else:
        with running_postgres() as url:
            yield url, url.partition("host=")[2].partition("&")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("database", "fulfilment"), WAYS, indirect=["database"])
def test_whatever_happens(
    database: tuple[str | None, str], fulfilment: str, tmp_path: Path
) -> None:
    """All orders end, nothing is lost or doubled, and the books of all agree."""
    url, folder = database
    backlog = {"MAX_BACKLOG": str(BACKLOG)}
    with running_mesh(tmp_path / "mesh", free_offset(), url, environment=backlog) as mesh:
        command = [*SHOPCTL, "replay", "--json", "--home", str(mesh.home)]
        options = {"orders": ORDERS, "timeout": 300 + 2 * ORDERS, "fulfilment": fulfilment}
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with (
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as replay,
            Troubles(mesh, folder) as troubles,
        ):
            report, said = replay.communicate()
        told = f"CHAOS_SEED={SEED}: {dict(troubles.made)}"
        print(f"\n{ORDERS} orders, {told}\n{report}")
        assert replay.returncode == 0, f"{told}\n{report}\n{said[-2000:]}\n{mesh.logs()}"
        mesh.wait_until_serving()
        assert troubles.made, "nothing was done to it"
