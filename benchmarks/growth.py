"""What it costs that a record grows: appending and reading at a million events, beside a thousand.

Two databases of orders are written, a small and a large one, orders of six events each. Then an
order is placed and moved on by the same transactions in both in turn, and two orders processes read
them over gRPC in turn: one order, its events and the end of the record. Medians of pairs of CPU
time, of the writing thread's process and of the serving ones. At last an orders process is started
on a database with many orders that are all under way, as after a crash: seconds until it serves.
SQLite; Linux only.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from accord import Mesh
from accord_runtime.database import Database, Tx, open_database
from accord_runtime.database.migrations import migrate
from accord_runtime.events import outbox
from accord_runtime.events.outbox import Outbox
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import MIGRATIONS
from accord_runtime.saga.state_machine import START
from accord_runtime.work import table
from benchmarks import harness
from services import topology
from services.orders import servicer, store
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shopctl.supervisor import state
from tests.support.mesh_process import running_mesh
from tests.support.ports import free_offset

SMALL: Final = 1_000
OTHERS: Final = ("broker", "edge", *(name for name in topology.SERVICES if name != "orders"))
PRICE: Final = Money(minor_units=499, currency_code="EUR")
WAY: Final = (
    events.OrderCreated,
    events.OrderPaid,
    events.OrderShippingStarted,
    events.OrderShipped,
    events.OrderConfirmed,
)
BATCH: Final = 500


def _placed() -> events.OrderPlaced:
    return events.OrderPlaced(
        order_id=uuid7(),
        customer_id=uuid7(),
        items=[pb.OrderItem(sku="tea", quantity=1, unit_price=PRICE)],
        total=PRICE,
        ship_to=Address(name="Ada", line1="1", city="Berlin", country_code="DE"),
    )


def _order(tx: Tx, box: Outbox, *, whole: bool) -> str:
    order = store.place(tx, box, _placed(), "tok_visa")
    for event in WAY if whole else ():
        store.happened(tx, box, order, event(order_id=order.order_id))
    return order.order_id


async def _opened(home: Path) -> Database:
    database = await open_database(f"sqlite:///{home}/orders.db", "orders")
    await migrate(database, "runtime", MIGRATIONS)
    await migrate(database, "orders", servicer.SERVICE.migrations)
    return database


async def _filled(home: Path, count: int) -> tuple[Database, list[str]]:
    """A database with so many events; and some of its orders, from its whole length."""
    database, box = await _opened(home), Outbox(lambda: None, lambda key: None)
    ids: list[str] = []

    def some(tx: Tx, orders: int) -> list[str]:
        found = [_order(tx, box, whole=True) for _ in range(orders)]
        outbox.number(tx, BATCH * 6)
        return found

    left = count // (len(WAY) + 1)
    while left:
        ids += await database.write(partial(some, orders=min(left, BATCH)))
        left -= min(left, BATCH)
    return database, ids[:: max(1, len(ids) // 100)]


async def _appending(small: Database, large: Database, pairs: int) -> float:
    """CPU of an order's six events at the large database, as a multiple of that at the small."""
    box = Outbox(lambda: None, lambda key: None)

    def some(tx: Tx) -> None:
        for _ in range(20):
            _order(tx, box, whole=True)
        outbox.number(tx, 1000)

    ratios = []
    for _ in range(pairs):
        spent = []
        for database in (small, large):
            before = time.process_time()
            await database.write(some)
            spent.append(time.process_time() - before)
        ratios.append(spent[1] / spent[0])
    return statistics.median(ratios)


@contextmanager
def _serving(home: Path) -> Iterator[tuple[int, str, float]]:
    """Orders alone on a database; yields its process, its address and how long it took to serve.

    Without certificates: what is compared is the database's.
    """
    offset, began = free_offset(), time.monotonic()
    plain = {"MESH_INSECURE": "1"}
    with running_mesh(home, offset, left_out=OTHERS, environment=plain) as mesh:
        took = time.monotonic() - began
        found = state.read_run(mesh.home)
        assert found is not None
        (pid,) = (each.pid for each in found.processes if each.name == "orders" and each.pid)
        yield pid, topology.address("orders", offset), took


async def _reading(
    served: list[tuple[int, str, float]], ids: list[list[str]], end: int, pairs: int
) -> Mapping[str, float]:
    """CPU of the large record's server a call, as a multiple of the small one's, by RPC."""
    mesh = Mesh("benchmark")
    stubs = [OrderServiceStub(mesh.channel(address)) for _, address, _ in served]
    ends = [SMALL // 6 * 6, end]

    async def order(number: int, which: int) -> None:
        wanted = ids[which][number % len(ids[which])]
        await stubs[which].GetOrder(pb.GetOrderRequest(order_id=wanted, at_sequence=6))

    async def updates(number: int, which: int) -> None:
        wanted = ids[which][number % len(ids[which])]
        async for _ in stubs[which].StreamOrderUpdates(
            pb.StreamOrderUpdatesRequest(order_id=wanted)
        ):
            pass

    async def record(number: int, which: int) -> None:
        after = ends[which] - 100
        async for _ in stubs[which].ReadEvents(pb.ReadEventsRequest(after_position=after)):
            pass

    async def listed(number: int, which: int) -> None:
        await stubs[which].ListOrders(pb.ListOrdersRequest(page_size=50))

    found = {}
    for name, call in (
        ("GetOrder at", order),
        ("StreamOrderUpdates", updates),
        ("ReadEvents, last 100", record),
        ("ListOrders", listed),
    ):
        ratios = []
        for pair in range(pairs):
            spent = []
            for which, (pid, _, _) in enumerate(served):
                before = harness.cpu_seconds(pid)
                for number in range(20):
                    await call(pair * 20 + number, which)
                spent.append(harness.cpu_seconds(pid) - before)
            ratios.append(spent[1] / spent[0])
        found[name] = statistics.median(ratios[1:])
    await mesh.close()
    return found


async def _open_orders(home: Path, count: int) -> None:
    """A database with so many orders under way: their stock is to be reserved."""
    database, box = await _opened(home), Outbox(lambda: None, lambda key: None)

    def some(tx: Tx) -> None:
        now = time.time()
        for _ in range(BATCH):
            order_id = _order(tx, box, whole=False)
            saga = {"id": order_id, "definition": "order", "version": 1}
            begun = {"phase": START.phase, "step": START.step, "cancelled": 0, "history": "[]"}
            tx.insert("saga", {**saga, **begun, "created_at": now, "updated_at": now})
            # In the hands of the process that has died.
            table.enqueue(tx, "saga", order_id, now=now, owner="orders", lease=20.0)
        outbox.number(tx, BATCH)

    for _ in range(count // BATCH):
        await database.write(some)
    await database.close()


async def _prepare(
    folder: Path, large: int, pairs: int, open_orders: int
) -> tuple[float, list[list[str]]]:
    small, small_ids = await _filled(folder / "small", SMALL)
    big, big_ids = await _filled(folder / "large", large)
    appending = await _appending(small, big, pairs)
    await small.close()
    await big.close()
    await _open_orders(folder / "open", open_orders)
    return appending, [small_ids, big_ids]


def main() -> None:
    options = harness.parser(__doc__)
    options.add_argument("--events", type=int, default=1_000_000, help="of the large record")
    options.add_argument("--open-orders", type=int, default=100_000)
    options.add_argument("--pairs", type=int, default=40)
    given = options.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).absolute()
        for home in ("small", "large", "open"):
            folder.joinpath(home).mkdir(mode=0o700)
        appending, ids = asyncio.run(_prepare(folder, given.events, given.pairs, given.open_orders))
        figures["append, six events"] = f"{appending:.2f} x"
        with _serving(folder / "small") as small, _serving(folder / "large") as large:
            end = given.events // 6 * 6
            reading = asyncio.run(_reading([small, large], ids, end, given.pairs))
            figures |= {rpc: f"{ratio:.2f} x" for rpc, ratio in reading.items()}
        with _serving(folder / "open") as (_, _, took):
            figures[f"start with {given.open_orders:,} open orders"] = f"{took:.1f} s"
    harness.report("growth", figures, as_json=given.json)


if __name__ == "__main__":
    main()
