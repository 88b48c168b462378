"""A process that carries sagas through; run by test_versions.py, which kills it.

Arguments: database URL, service, its own name, the versions that it knows ("1" or "1,2"), and
seconds after which it parks what nobody serves. The last step of a saga waits for a result "go".
"""

import asyncio
import sys

from accord_runtime.database import Database, Tx, open_database
from accord_runtime.saga import Definition, Kind, Sagas, Step
from accord_runtime.work import unserved
from accord_runtime.work.executor import Executor
from accord_runtime.work.table import Effect
from tests.runtime.work.support import result
from tests.support.wait import until

NAMES = {1: ("take", "end"), 2: ("take", "wrap", "end")}
"""Version -> its steps."""


def definition(database: Database, version: int, process: str) -> Definition:
    """A version, each of whose steps writes which process has done it."""

    def step(name: str) -> Step:
        async def act(saga: str, key: str) -> Effect:
            if name == "end":
                await until(lambda: database.read(_go), "go")
            return result(f"{saga} {name}", process)

        return Step(name, Kind.RETRIABLE, act)

    return Definition("test", version, list(map(step, NAMES[version])), _never, _never)


def _go(tx: Tx) -> bool:
    return tx.one("SELECT 1 FROM results WHERE id = 'go'") is not None


def _never(*_: object) -> None:
    raise AssertionError


async def main(url: str, service: str, name: str, versions: str, patience: str) -> None:
    """Work until killed."""
    setattr(unserved, "UNSERVED", float(patience))  # noqa: B010
    database = await open_database(url, service)
    executor = Executor(database, name)
    sagas = Sagas(database, executor)
    for version in map(int, versions.split(",")):
        sagas.register(definition(database, version, name))
    await executor.take_back()
    print("working", flush=True)
    await executor.serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
