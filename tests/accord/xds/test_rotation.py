"""Leaf, intermediate and root are replaced under calls and open streams, by both kinds of gRPC.

Connections live for seconds, as certificates do, so that each replacement is met by handshakes.
`ROTATION=full` (`make rotation`) has 300 calls a second, 50 streams and three rounds.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, Final

import accord
from accord.identity import Identity
from accord.ops.v1 import mesh_pb2
from tests.accord.drivers import Driver
from tests.accord.identity.authority import Authority, Leaf
from tests.accord.kit import Message, Stub, eventually, handlers, path
from tests.accord.xds.kit import CALLER, ID, joined

FULL: Final = os.environ.get("ROTATION") == "full"
ROUNDS: Final = 3 if FULL else 1
RATE: Final = 300 if FULL else 50
STREAMS: Final = 50 if FULL else 10
AT_ONCE: Final = 64
PACE: Final = 0.2
"""Seconds between two messages of a stream."""
AGE: Final = 1.0
"""Seconds that a connection takes new calls ..."""
GRACE: Final = 5.0
"""... and that those on it have left then: streams are cut, and no call is."""
LIFE: Final = 10.0
"""Seconds of a certificate; each is replaced as soon as it is used."""


class Certificates:
    """Those of the server and of the client, as they are replaced."""

    def __init__(self, folder: Path) -> None:
        self.server, self.client = folder / "server", folder / "client"
        self.shown: list[str] = []
        """Serials of the client's, in order."""
        self.served = ""
        """The server's of now."""
        self._root = Authority()
        self._signer = self._root.intermediate()
        self._issue()

    def _issue(self, *also_trusted: Authority) -> None:
        ours, theirs = (
            self._signer.issue(name, ends=LIFE).trusting(*also_trusted)
            for name in (f"{ID}orders", CALLER)
        )
        ours.write(self.server)
        theirs.write(self.client)
        self.served = ours.serial
        self.shown.append(theirs.serial)

    def replacements(self) -> Iterator[str]:
        """One round; each step is done when its name comes."""
        self._issue()
        yield "leaf"
        self._signer = self._root.intermediate()
        self._issue()
        yield "intermediate"
        old, new = self._root, Authority()
        self._issue(new)
        yield "new root trusted"
        self._root, self._signer = new, new.intermediate()
        self._issue(old)
        yield "root"
        self._issue()
        yield "old root dropped"


@dataclass
class Seen:
    """What came of calls and streams."""

    calls: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """Of calls that have failed, and of streams that have ended."""
    serials: set[str] = field(default_factory=set)
    """Of the client's certificates, as the server has seen them."""
    opened: int = 0
    """Streams that have reached the server; those beyond the first of each have resumed."""
    wrong: list[tuple[int, int]] = field(default_factory=list)
    """Positions that came instead of others: lost or doubled messages."""
    messages: int = 0

    shown: set[bytes] = field(default_factory=set)

    def note(self, context: Any) -> None:
        """Whose call this is."""
        pem = context.auth_context()["x509_pem_cert"][0]
        if pem not in self.shown:
            self.shown.add(pem)
            self.serials.add(Leaf(pem, b"", b"").serial)


async def call(stub: Stub, seen: Seen, ended: Event) -> None:
    """Calls at the rate, as long as those before have answers: a busy machine makes fewer."""
    began, due, free = time.monotonic(), 0, asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        try:
            await stub.Unary(Message(), timeout=20)
            seen.calls += 1
        except Exception as error:  # whatever it is, it is counted
            seen.codes[repr(error)[:300]] += 1
        finally:
            free.release()

    async with asyncio.TaskGroup() as group:
        while not ended.is_set():
            await free.acquire()
            group.create_task(one())
            due += 1
            await asyncio.sleep(began + due / RATE - time.monotonic())


async def read(stub: Stub, seen: Seen, ended: Event) -> None:
    """Read a stream until all has ended, and compare each position with the one before."""
    position, stream = 0, stub.Watch(Message())
    try:
        async for message in stream:
            seen.messages += 1
            if message.sequence != position + 1:
                seen.wrong.append((position, message.sequence))
            position = message.sequence
    except Exception as error:  # as above
        seen.codes[repr(error)[:300]] += 1
    if not ended.is_set():
        seen.codes["a stream has ended early"] += 1


async def test_certificates_are_replaced_under_load(driver: Driver, tmp_path: Path) -> None:
    """No call fails and no stream ends, loses or doubles a message; each certificate is used."""
    certificates, seen, ended = Certificates(tmp_path), Seen(), Event()

    def answer(request: Any, context: Any) -> Any:
        seen.note(context)
        return Message()

    def follow(request: Any, context: Any) -> Iterator[Any]:
        seen.opened += 1
        for position in count(request.after + 1):
            yield Message(sequence=position)
            if ended.wait(PACE):
                return

    async def unary(request: Any, context: Any) -> Any:
        return answer(request, context)

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        seen.opened += 1
        for position in count(request.after + 1):
            yield Message(sequence=position)
            await asyncio.sleep(PACE)
            if ended.is_set():
                return

    known = Identity.from_folder(certificates.server)

    def used() -> bool:
        return known.bundle.serial == certificates.served and certificates.shown[-1] in seen.serials

    age, grace = int(AGE * 1000), int(GRACE * 1000)
    callee = accord.Mesh("orders", identity=known)
    # A busy machine makes calls late; what it sheds would say nothing of certificates.
    dark = mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_CONCURRENCY_LIMIT])
    callee.control.overrides.set(path("Unary"), dark)
    server = driver.server(
        callee,
        options=(("grpc.max_connection_age_ms", age), ("grpc.max_connection_age_grace_ms", grace)),
    )
    port = server.add_secure_port("127.0.0.1:0", known.server_credentials())
    aio = {"Unary": unary, "Watch": watch}
    threads = {"Unary": answer, "Watch": follow}
    server.add_generic_rpc_handlers((handlers(aio if driver.aio else threads),))
    await driver.start(server)
    identity = Identity.from_folder(certificates.client)
    mesh = accord.Mesh("caller", identity=identity, targets={"orders": f"127.0.0.1:{port}"})
    await joined(mesh, "orders")
    stub, done = driver.stub(mesh, "orders"), list[str]()
    began = time.monotonic()
    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        group.create_task(call(stub, seen, ended))
        for _ in range(STREAMS):
            group.create_task(read(stub, seen, ended))
        await eventually(lambda: seen.opened >= STREAMS)
        for _ in range(ROUNDS):
            for name in certificates.replacements():
                done.append(name)
                await eventually(used)
        await eventually(lambda: seen.opened >= 2 * STREAMS)
        ended.set()
    took = time.monotonic() - began
    await mesh.close()
    await driver.stop(server)
    print(
        f"{driver.way}: {seen.calls} calls ({seen.calls / took:.0f}/s), failed {dict(seen.codes)};"
        f" {STREAMS} streams resumed {seen.opened - STREAMS} times, {seen.messages} messages,"
        f" lost or doubled {seen.wrong}; {len(done)} replacements in {took:.0f} s,"
        f" {len(seen.serials)} of {len(certificates.shown)} client certificates seen"
    )
    assert (seen.codes, seen.wrong) == ({}, [])
    assert seen.serials == set(certificates.shown)
    assert not FULL or seen.calls >= RATE * took * 0.9
