"""What the bare parts of an order cost: the least that `order_cpu` could print in this language.

As many calls over `grpc.aio`, commits to SQLite, events over JetStream and mails as one order of
the first six services takes, 16 at once, by gRPC, sqlite3, nats-py and smtplib alone: without TLS,
policy, tracing, validation and everything that a shop does, and each in a loop of its own, so that
all of its code is in the caches. CPU of both sides. Linux only.
"""

import asyncio
import os
import smtplib
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop

from benchmarks import harness
from services.sandbox.mail import serve_mail
from shopctl.supervisor.health import listens
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.wait import until

PER_ORDER: Final = {"call": 11, "commit": 14, "publish": 10, "take": 12, "mail": 1}
"""Of an order that is confirmed: its own two calls, nine between services and to the outside; the
commits that are left when sixteen orders share them; publications and deliveries with their
acknowledgement. `make chaos ARGS='-k every_point'` names them all."""

AT_ONCE: Final = 16
BODY: Final = os.urandom(200)
HEADERS: Final = dict.fromkeys(("ce-id", "ce-type", "ce-subject", "traceparent"), "x" * 36)

Do = Callable[[int], Awaitable[object]]


async def cost(do: Do, times: int, *others: int) -> float:
    """Milliseconds of CPU, of this process and of others, each time; some are not counted."""
    numbers = iter(range(times // 5 + times))

    async def some(most: int) -> None:
        left = iter(range(most))

        async def one() -> None:
            for _ in left:
                await do(next(numbers))

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    await some(times // 5)
    clocks = (os.getpid(), *others)
    before = sum(map(harness.cpu_seconds, clocks))
    await some(times)
    return (sum(map(harness.cpu_seconds, clocks)) - before) / times * 1e3


async def call(times: int) -> float:
    """A unary call, of which both sides are in this process."""
    server = grpc.aio.server()

    async def echo(request: bytes, context: object) -> bytes:
        return request

    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x.X", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        bare: Any = channel  # serializers may be left out, which the stubs do not know
        method = bare.unary_unary("/x.X/Echo")
        found = await cost(lambda _: method(BODY, timeout=10), times)
    await server.stop(None)
    return found


async def commit(times: int, folder: Path) -> float:
    """Three rows in a transaction, in a thread."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)

    def begin() -> sqlite3.Connection:
        made = sqlite3.connect(folder / "some.db", isolation_level=None)
        for sql in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL",
                    "CREATE TABLE work (id TEXT PRIMARY KEY, payload BLOB)"):  # fmt: skip
            made.execute(sql)
        return made

    connection = await loop.run_in_executor(thread, begin)

    def write(number: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for row in range(3):
            connection.execute("INSERT INTO work VALUES (?, ?)", (f"{number} {row}", BODY))
        connection.execute("COMMIT")

    found = await cost(lambda number: loop.run_in_executor(thread, write, number), times)
    await loop.run_in_executor(thread, connection.close)
    return found


async def events(times: int) -> tuple[float, float]:
    """An event that is published and acknowledged; one that is delivered, and acknowledged."""
    alone = asyncio.Lock()  # messages go to whoever waits, whoever has asked for them
    async with nats_server() as server, server.jetstream() as jetstream:
        await jetstream.add_stream(name="ORDERS", subjects=["orders.>"])
        pull = await jetstream.pull_subscribe("orders.>", "payments", stream="ORDERS")

        async def publish(number: int) -> None:
            await jetstream.publish(f"orders.{number}", BODY, headers=HEADERS)

        async def take(number: int) -> None:
            if number % 4 == 0:
                async with alone:
                    messages = await pull.fetch(4, timeout=10)
                for message in messages:
                    await message.ack()

        published = await cost(publish, times, server.pid)
        return published, await cost(take, times // 2, server.pid)


async def mail(times: int, folder: Path) -> float:
    """A mail on a connection of its own, made, sent and kept."""
    port = free_port()
    serving = asyncio.create_task(serve_mail(folder / "mails", "127.0.0.1", port))
    await until(lambda: listens(f"127.0.0.1:{port}"), "the mail server")

    def send(number: int) -> None:
        message = EmailMessage()
        message["Message-ID"], message["Subject"] = f"<{number}@shop>", "Your order"
        message.set_content("It is on its way.\n" * 5)
        with smtplib.SMTP("127.0.0.1", port, "shop", 10) as server:
            server.send_message(message, "orders@shop.internal", ["ada@example.com"])

    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(4)
    found = await cost(lambda number: loop.run_in_executor(threads, send, number), times)
    serving.cancel()
    return found


async def run(times: int) -> Mapping[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = {"call": await call(times), "commit": await commit(times, folder)}
        each["publish"], each["take"] = await events(times)
        each["mail"] = await mail(times // 10, folder)
    return {
        "cpu_ms": {part: round(cpu, 3) for part, cpu in each.items()},
        "per_order": PER_ORDER,
        "cpu_ms_per_order": round(sum(each[part] * n for part, n in PER_ORDER.items()), 1),
    }


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--times", type=int, default=3000, help="of each part; a tenth of mails")
    given = options.parse_args()
    harness.report("order_parts", uvloop.run(run(given.times)), as_json=given.json)


if __name__ == "__main__":
    main()
