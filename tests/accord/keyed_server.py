"""A server that charges by key, in a process to be killed.

`python -m tests.accord.keyed_server aio file.db 0` serves Charge on a port. A request "before" or
"after" kills the process the first time: before its transaction has committed, or behind it. What a
charge has done is a row of the table `charges`, and a file `file.db.died` says that it was killed.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import accord
from accord.stores import DbApiStore, SqliteStore
from tests.accord.kit import Message, handlers, serving

CHARGES: Final = "CREATE TABLE IF NOT EXISTS charges (what TEXT)"


def store_at(url: str) -> DbApiStore[Any]:
    """The store at a path or at the URL of a PostgreSQL server, with the table of the effects."""
    if url.startswith("postgres"):
        import psycopg

        store: DbApiStore[Any] = DbApiStore(lambda: psycopg.connect(url))
    else:
        store = SqliteStore(url)

    def make(connection: Any) -> Any:
        connection.cursor().execute(CHARGES)
        return Message()

    store.commit(make)
    return store


def charge(store: DbApiStore[Any], text: str, die: Path | None = None) -> Any:
    """The handler's work: an effect and its answer, a refusal, a bug, or the end of the process."""
    dies = die is not None and text in ("before", "after") and not die.exists()

    def work(connection: Any) -> Any:
        connection.cursor().execute(f"INSERT INTO charges VALUES ('{text}')")
        if dies and text == "before":
            end()
        if text == "refused":
            raise accord.FailedPrecondition("NO_MONEY")
        if text == "away":
            raise accord.Unavailable("AWAY")
        return Message(text=text)

    def end() -> None:
        assert die is not None
        die.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    answer = store.commit(work)
    if dies:
        end()
    return answer


async def _main(driver: str, url: str, port: int) -> None:
    store, died = store_at(url), Path(f"{url}.died")
    mesh = accord.Mesh("callee", idempotency=store)

    async def handle(request: Any, context: Any) -> Any:
        return await asyncio.to_thread(charge, store, request.text, died)

    def block(request: Any, context: Any) -> Any:
        return charge(store, request.text, died)

    if driver == "aio":
        async with serving(mesh, {"Charge": handle}, port=port) as address:
            print(address.rpartition(":")[2], flush=True)
            await asyncio.Event().wait()
    server = mesh.sync.server()
    server.add_generic_rpc_handlers((handlers({"Charge": block}),))
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
