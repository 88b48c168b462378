"""What goes on in a shop while its certificates are replaced: calls, streams, new connections."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Self

import grpc
import psycopg
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

import accord
from accord.identity import Identity
from accord.ops.v1.mesh_pb2 import WatchStateRequest
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from services import topology
from shopctl.identity import _watched, credentials
from tests.security.peer import Peer
from tests.security.shop import SecureShop

AT_ONCE: Final = 16
"""Calls of each kind that wait for an answer: a busy machine makes fewer."""


class Going:
    """Something that a thread does until the end of the block."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self.run)

    def run(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._thread.join()


class Newcomers(Going):
    """Connections that are made all the time, each with the certificates of its moment."""

    def __init__(self, shop: SecureShop, database: Callable[[str], str] | None = None) -> None:
        """`database`: service -> its URL, where that knows services by certificate."""
        super().__init__()
        self.made: Counter[str] = Counter()
        self.failed: list[str] = []
        self._shop = shop
        self._database = database
        self._addresses = {n: topology.address(n, shop.mesh.offset) for n in topology.SERVICES}
        self._operator = _watched(shop.home / "certs" / "operator")

    def run(self) -> None:
        """One after the other."""
        while not self.stopping.wait(0.1):
            for name, address in self._addresses.items():
                self._note("services", name, partial(self._check, address, name))
            self._note("broker", "payments", lambda: asyncio.run(self._connect()))
            if self._database is not None:
                self._note("database", "orders", partial(self._session, self._database("orders")))

    def _note(self, kind: str, name: str, work: Callable[[], object]) -> None:
        try:
            work()
            self.made[kind] += 1
        except Exception as error:  # whatever it is, it is counted
            # Or the pair was read while it is swapped: who connects tries again.
            if "key values mismatch" not in str(error).replace("_", " ").lower():
                self.failed.append(f"{kind}: {name}: {error}")

    def _session(self, url: str) -> None:
        psycopg.connect(url).close()

    async def _connect(self) -> None:
        await (await Peer(self._shop, "payments").connect()).close()

    def _check(self, address: str, name: str) -> None:
        options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(address, credentials(self._operator), options) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                HealthCheckRequest.SerializeToString,
                HealthCheckResponse.FromString,
            )
            check(HealthCheckRequest(), timeout=10)


class Load(Going):
    """The operator's calls at a rate and open streams: half by `grpc.aio`, half with threads."""

    def __init__(self, shop: SecureShop, rate: int, streams: int) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        """By kind of gRPC, and by what was wrong with them."""
        self.kept: Counter[str] = Counter()
        """Streams that were open to the end, and those that were not by what ended them."""
        self.retries = self.messages = 0
        self.seconds = 0.0
        self._rate = rate
        self._streams = streams
        self._folder = shop.home / "certs" / "operator"
        self._targets = {n: topology.address(n, shop.mesh.offset) for n in topology.SERVICES}

    def run(self) -> None:
        """In a loop of its own."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        threads = ThreadPoolExecutor(self._streams + AT_ONCE + 1)
        asyncio.get_running_loop().set_default_executor(threads)
        identity = Identity.from_folder(self._folder)
        mesh = accord.Mesh("operator", identity=identity, targets=self._targets)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._call("aio", mesh.channel))
            group.create_task(self._call("sync", mesh.sync.channel))
            names = [*self._targets]
            reading = [
                asyncio.create_task(self._read(mesh.channel(names[n % len(names)])))
                for n in range(self._streams // 2)
            ]
            following = [
                asyncio.create_task(
                    asyncio.to_thread(self._follow, mesh.sync.channel(names[n % len(names)]))
                )
                for n in range(self._streams // 2)
            ]
            await asyncio.to_thread(self.stopping.wait)
            self.seconds = time.monotonic() - began
        self.retries = sum(route.retries for route in mesh.snapshot().routes)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading)
        await mesh.close()
        await asyncio.gather(*following)
        identity.close()

    async def _call(self, kind: str, channel: Callable[[str], Any]) -> None:
        began, made, free = time.monotonic(), 0, asyncio.Semaphore(AT_ONCE)
        # What costs little: this is about connections, and the shop needs its time for orders.
        stubs: list[Any] = [HealthStub(channel(name)) for name in self._targets]  # has no types

        async def one(stub: Any) -> None:
            try:
                if kind == "aio":
                    await stub.Check(HealthCheckRequest(), timeout=10)
                else:
                    await asyncio.to_thread(stub.Check, HealthCheckRequest(), timeout=10)
                self.calls[kind] += 1
            except Exception as error:  # whatever it is, it is counted
                self.calls[f"{kind}: {error!r}"[:300]] += 1
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            while not self.stopping.is_set():
                await free.acquire()
                group.create_task(one(stubs[made % len(stubs)]))
                made += 1
                await asyncio.sleep(began + 2 * made / self._rate - time.monotonic())

    async def _read(self, channel: grpc.aio.Channel) -> None:
        try:
            async for _ in MeshServiceStub(channel).WatchState(_state()):
                self.messages += 1
        except asyncio.CancelledError:
            if self.stopping.is_set():
                self.kept["aio"] += 1
                return
        except Exception as error:  # as above
            self.kept[repr(error)[:300]] += 1

    def _follow(self, channel: grpc.Channel) -> None:
        try:
            untyped: Any = channel  # the stub knows that of grpc.aio only
            stub: Any = MeshServiceStub(untyped)
            for _ in stub.WatchState(_state()):
                self.messages += 1
        except Exception as error:  # that its channel was closed, when all is over
            self.kept["sync" if self.stopping.is_set() else repr(error)[:300]] += 1


def _state() -> WatchStateRequest:
    return WatchStateRequest(interval=Duration(seconds=2))
