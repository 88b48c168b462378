"""Nothing is lost, charged twice or shipped twice, whatever is killed meanwhile."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from tests.chaos.scale import FULL
from tests.support.mesh_process import SHOPCTL, MeshProcess, running_mesh
from tests.support.ports import free_offset
from tests.support.postgres import running_postgres

VICTIMS: Final = (
    "orders",
    "payments",
    "broker",
    "inventory",
    "orders",
    "shipping",
    "sandbox",
    "customers",
    "orders",
    "notifications",
    "accounting",
    "analytics",
    "inventory",
    "payments",
)
"""Who is killed, in this order: everybody, and those who decide about an order more than once."""

ORDERS: Final = 500 if FULL else 3 * (len(VICTIMS) + 2)
"""Enough for each kill to hit some that are under way; more of them find rarer mistakes."""

TIMEOUT: Final = 120 + ORDERS

PROGRESS: Final = re.compile(r"placing orders (\d+)/(\d+)")


WAYS: Final = [
    (database, fulfilment)
    for database in ("sqlite", "postgresql")
    for fulfilment in ("orchestrated", "choreographed")
    if FULL or (database, fulfilment) == ("sqlite", "orchestrated")
]
"""Database, way of an order; CI has the others where anything may happen (`test_random_chaos`)."""


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Both databases: a file per service, and one server for all."""
    if request.param == "sqlite":
        yield None
    else:
        with running_postgres() as url:
            yield url


@pytest.mark.slow
@pytest.mark.parametrize(("database_url", "fulfilment"), WAYS, indirect=["database_url"])
def test_replay_reconciles_under_kills(
    database_url: str | None, fulfilment: str, tmp_path: Path
) -> None:
    """Real orders, of either way, reconcile to the cent while every process is killed."""
    with running_mesh(tmp_path / "mesh", free_offset(), database_url) as mesh:
        command = [*SHOPCTL, "replay", "--json", "--home", str(mesh.home)]
        command += ["--fulfilment", fulfilment]
        options = {"orders": ORDERS, "timeout": TIMEOUT}
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as replay:
            assert replay.stderr is not None
            said: list[str] = []
            killed = kill_along_the_way(mesh, replay.stderr, said)
            report, _ = replay.communicate()
        story = "".join(said)
        assert replay.returncode == 0, f"{report}\n{story}\n{mesh.logs()}"
        assert [name for name, _ in killed] == list(VICTIMS), story
        mesh.wait_until_serving()
        records = mesh.records().items()
        restarts = {name: record.restarts for name, record in records if record.restarts}
        assert restarts == Counter(VICTIMS)
        assert len({pid for _, pid in killed}) == len(VICTIMS), "a process was killed twice"
        assert json.loads(report)["retries"], "nobody noticed that anything was killed"


def kill_along_the_way(
    mesh: MeshProcess, progress: IO[str], said: list[str]
) -> list[tuple[str, int]]:
    """Kills one victim each time another share of the orders has ended; returns name and pid.

    It goes by progress and not by time, so that every kill hits orders that are under way. What
    the replay says is added to `said`.
    """
    killed: list[tuple[str, int]] = []
    for line in progress:
        said.append(line)
        match = PROGRESS.match(line)
        if match is None:
            continue
        done, total = map(int, match.groups())
        due = min(done * (len(VICTIMS) + 2) // total, len(VICTIMS)) if done < total else 0
        for name in VICTIMS[len(killed) : due]:
            killed.append((name, mesh.kill(name)))
            said.append(f"--- kill -9 {name}\n")
    return killed
