"""Bad input, for every RPC of the shop: told what is wrong with it, and nothing has changed."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.contract import Key
from accord_runtime.grpc.ids import uuid7
from accord_runtime.grpc.validation import violations
from services.orders import store
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.orders.v1 import orders_pb2 as orders
from tests.services.bad_input.caller import Answer, Metadata
from tests.services.bad_input.contract import RPCS, Rpc
from tests.services.bad_input.everywhere import (
    MAY_BE_EMPTY,
    UNDECODABLE,
    BadRequest,
    bad_requests,
    oversized,
)
from tests.services.bad_input.fuzz import requests_of
from tests.services.bad_input.refused import REFUSED, Row
from tests.services.bad_input.world import USED_KEY, World, running_world
from tests.services.bad_input.wrong import GOOD, ID, WRONG
from tests.support.http2 import ask
from tests.support.shop import euros, order_request, running_shop

Code = grpc.StatusCode

COMMON: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "IDEMPOTENCY_KEY_REUSED"})
"""Reasons that a contract need not list."""

INTERNALS: Final = re.compile(
    r"Traceback|\.py\b|line \d+|<class|object at|0x[0-9a-f]{6}|site-packages"
    r"|\w(Error|Exception)\b|sqlite|psycopg|protobuf|SELECT|INSERT"
)
"""What no caller is to see."""

NEVER: Final = frozenset(
    {Code.INTERNAL, Code.UNKNOWN, Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""Codes that say that something is wrong with the service, not with the request."""

OF_EACH_KIND: Final = [
    RPCS["shop.orders.v1.OrderService/" + name]
    for name in ("GetOrder", "ReadEvents", "BulkUpdateOrders", "TrackOrders")
]
"""For what is gRPC's own affair: one RPC of each kind stands for all."""

EXAMPLES: Final = 80
"""Random calls of each RPC."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A furnished shop, in which no test of this module may change a thing."""
    with running_world(tmp_path_factory.mktemp("shop")) as world:
        yield world


@pytest.fixture(scope="module")
def rough_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A furnished shop with a broker, in which anything may be done."""
    with running_world(tmp_path_factory.mktemp("shop"), broker=True) as world:
        yield world


@contextmanager
def unchanged(world: World, *but: str) -> Iterator[None]:
    """Nothing that the services keep is changed in this block but in these tables; no crash."""
    before = world.state()
    yield
    after = world.state()
    assert {table for table in after if after[table] != before[table]} == set(but)
    assert world.complaints == []


def keyed(rpc: Rpc) -> Metadata:
    """Metadata that an RPC cannot do without."""
    return (("idempotency-key", uuid7()),) if rpc.keyed else ()


def check_details(answer: Answer) -> None:
    """A failure says who refused and why, to people and machines, and nothing of the inside."""
    check_reason(answer)
    for text in (answer.error.message, *(each.description for each in answer.error.violations)):
        assert not INTERNALS.search(text), text


def check_reason(answer: Answer) -> None:
    """A failure says who refused and why; its texts may repeat what was sent."""
    assert answer.detailed
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", answer.error.reason)
    assert answer.error.message
    assert all(violation.description for violation in answer.error.violations)


def test_every_rpc_has_a_row() -> None:
    """An RPC that is added to a contract must be added to the tables."""
    assert WRONG.keys() == RPCS.keys()
    assert GOOD.keys() == RPCS.keys()
    assert all(WRONG[rpc] or not GOOD[rpc].DESCRIPTOR.fields for rpc in WRONG)
    assert {row.rpc for row in REFUSED} <= RPCS.keys()


@pytest.mark.parametrize("name", GOOD)
def test_good_requests(name: str) -> None:
    """What the bad requests are made from is good, so that only the one field can be to blame."""
    assert violations(GOOD[name]) == []


@pytest.mark.parametrize("bad", tuple(bad_requests()), ids=str)
def test_bad_request(world: World, bad: BadRequest) -> None:
    """A request that breaks its contract is refused, with the field that is wrong."""
    with unchanged(world):
        answer = world.call(bad.rpc, bad.request, metadata=keyed(bad.rpc))
    assert (answer.code, answer.error.reason) == (Code.INVALID_ARGUMENT, bad.reason)
    assert bad.field in answer.fields
    check_details(answer)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_refused(world: World, row: Row) -> None:
    """A request that the state of the shop stands against is refused, for a documented reason."""
    rpc, requests = RPCS[row.rpc], row.requests(world)
    metadata = (("idempotency-key", row.key),) if row.key else keyed(rpc)
    with unchanged(world):
        answer = world.call(
            rpc, *(requests if isinstance(requests, tuple) else (requests,)), metadata=metadata
        )
    assert (answer.code, answer.error.reason) == (row.code, row.reason)
    assert answer.fields == ({row.field} if row.field is not None else set())
    assert row.reason in COMMON | set(rpc.policy.errors)
    check_details(answer)


def test_cancel_while_it_ships(world: World) -> None:
    """An order that is with the carrier cannot be cancelled any more, one by one or in bulk."""
    cancel, bulk = (
        RPCS["shop.orders.v1.OrderService/CancelOrder"],
        RPCS["shop.orders.v1.OrderService/BulkUpdateOrders"],
    )
    with world.an_order_being_shipped() as order_id, unchanged(world):
        alone = world.call(
            cancel, orders.CancelOrderRequest(order_id=order_id), metadata=keyed(cancel)
        )
        update = orders.BulkUpdateOrdersRequest(order_id=order_id, cancel_reason="too late")
        in_bulk = world.call(bulk, update, metadata=keyed(bulk))
    world.until(order_id, orders.ORDER_STATUS_CONFIRMED)

    assert (alone.code, alone.error.reason) == (Code.FAILED_PRECONDITION, "TOO_LATE")
    check_details(alone)
    summary = orders.BulkUpdateOrdersResponse.FromString(in_bulk.responses[0])
    assert [refusal.reason for refusal in summary.refusals] == ["TOO_LATE"]


@pytest.mark.parametrize("rpc", RPCS.values(), ids=RPCS)
def test_empty_request(world: World, rpc: Rpc) -> None:
    """A request without any field is refused where something must be said."""
    with unchanged(world):
        answer = world.call(rpc, b"", metadata=keyed(rpc), most=1)
    if rpc.name in MAY_BE_EMPTY:
        assert answer.code is Code.OK
    else:
        assert answer.code is Code.INVALID_ARGUMENT
        assert answer.fields
        check_details(answer)


@pytest.mark.parametrize("rpc", RPCS.values(), ids=RPCS)
def test_oversized_request(world: World, rpc: Rpc) -> None:
    """More than 4 MiB are not taken, though they come packed as a few KiB."""
    packed = grpc.Compression.Gzip
    with unchanged(world):
        answer = world.call(rpc, oversized(), metadata=keyed(rpc), compression=packed)
    assert answer.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("rpc", OF_EACH_KIND, ids=lambda rpc: rpc.name)
def test_oversized_request_unpacked(world: World, rpc: Rpc) -> None:
    """More than 4 MiB are not taken."""
    with unchanged(world):
        answer = world.call(rpc, oversized(), metadata=keyed(rpc))
    assert answer.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("rpc", RPCS.values(), ids=RPCS)
def test_no_request(world: World, rpc: Rpc) -> None:
    """A caller that sends nothing at all gets an answer, and is not kept waiting."""
    with unchanged(world):
        answer = world.call(rpc, metadata=keyed(rpc))
    if rpc.name == "shop.orders.v1.OrderService/TrackOrders":
        assert answer.code is Code.OK  # It has followed all of the orders it was given.
    else:
        assert answer.code is Code.INVALID_ARGUMENT
        check_details(answer)


KEYED: Final = [rpc for rpc in RPCS.values() if rpc.policy.key is not Key.NONE]


@pytest.mark.parametrize("rpc", [rpc for rpc in KEYED if rpc.keyed], ids=lambda rpc: rpc.name)
def test_no_idempotency_key(world: World, rpc: Rpc) -> None:
    """A key that is missing where one is required is asked for."""
    with unchanged(world):
        answer = world.call(rpc, GOOD[rpc.name])
    reason = "IDEMPOTENCY_KEY_REQUIRED"
    assert (answer.code, answer.error.reason) == (Code.INVALID_ARGUMENT, reason)
    assert answer.fields == {"metadata.idempotency-key"}
    check_details(answer)


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "x" * 1000])
@pytest.mark.parametrize("rpc", KEYED, ids=lambda rpc: rpc.name)
def test_idempotency_key(world: World, rpc: Rpc, key: str) -> None:
    """A key that is no key is refused, also where none is required."""
    with unchanged(world):
        answer = world.call(rpc, GOOD[rpc.name], metadata=(("idempotency-key", key),))
    assert (answer.code, answer.error.reason) == (Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_INVALID")
    assert answer.fields == {"metadata.idempotency-key"}
    check_details(answer)


@pytest.mark.parametrize("key", [b"\xc3\xbc", b"\xff\xfe", b"a\0b", b"a\tb", b"\x7f"])
@pytest.mark.parametrize("rpc", KEYED, ids=lambda rpc: rpc.name)
def test_idempotency_key_of_raw_bytes(world: World, rpc: Rpc, key: bytes) -> None:
    """A key that no gRPC client would send, because it is not ASCII, is refused all the same."""
    with unchanged(world):
        status = ask(
            world.address(rpc.process),
            f"/{rpc.name}".encode(),
            GOOD[rpc.name].SerializeToString(),
            (b"idempotency-key", key),
        )
    assert status == Code.INVALID_ARGUMENT.value[0]


LARGE: Final[dict[str, Metadata]] = {
    "10 KB": (("x-padding", "x" * 10_000),),
    "20 KB": (("x-padding", "x" * 20_000),),
    "2000 keys": tuple((f"x-{number}", "y") for number in range(2000)),
}
"""More metadata than gRPC takes: 16 KiB and more, and from 8 KiB on it throws dice."""

HOSTILE: Final[dict[str, Metadata]] = {
    "200 keys": tuple((f"x-{number}", "y") for number in range(200)),
    "a key 50 times": tuple(("idempotency-key", f"key{number}") for number in range(50)),
    "bytes": (("x-bin", bytes(range(256))), ("idempotency-key-bin", b"\xff")),
    "traces": (("traceparent", "00-" + "f" * 70), ("tracestate", "=,;" * 99), ("baggage", ",=%z")),
    "zero trace": (("traceparent", f"00-{'0' * 32}-{'0' * 16}-01"),),
    "our own": (("accord-depth", "-1"), ("accord-priority", "ROOT"), ("accord-x", "y" * 999)),
    "retries": (("grpc-previous-rpc-attempts", "x"), ("grpc-retry-pushback-ms", "-1")),
}
"""Metadata that nobody sends who means well."""


@pytest.mark.parametrize("metadata", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("rpc", RPCS.values(), ids=RPCS)
def test_hostile_metadata(world: World, rpc: Rpc, metadata: Metadata) -> None:
    """Metadata of any content is not what breaks a call."""
    with unchanged(world):
        metadata = (*keyed(rpc), *metadata)
        answer = world.call(rpc, UNDECODABLE["cut off"], metadata=metadata)
    assert (answer.code, answer.error.reason) == (Code.INVALID_ARGUMENT, "UNDECODABLE")
    check_details(answer)


@pytest.mark.parametrize("metadata", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("rpc", OF_EACH_KIND, ids=lambda rpc: rpc.name)
def test_large_metadata(world: World, rpc: Rpc, metadata: Metadata) -> None:
    """Metadata of any size is ignored, or too much."""
    with unchanged(world):
        answer = world.call(rpc, UNDECODABLE["cut off"], metadata=metadata)
    assert answer.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)


def test_many_violations(world: World) -> None:
    """However much there is to say, the answer fits its trailers and still names fields."""
    rpc = RPCS["shop.orders.v1.OrderService/CreateOrder"]
    request = order_request(ID, {f"sku{number}": 1 for number in range(100)})
    for item in request.items:
        item.unit_price.currency_code = "XXX"  # The answer lists all that there are.
    with unchanged(world):
        answer = world.call(rpc, request, metadata=keyed(rpc))
    assert (answer.code, answer.error.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert "items[0].unit_price.currency_code" in answer.fields
    check_details(answer)


def test_many_refusals(world: World) -> None:
    """An order for 100 products that are not sold here is told of some of them, for good."""
    request = inventory.ReserveStockRequest(order_id=ID)
    for number in range(100):
        request.lines.add(sku=f"{'x' * 60}{number}", quantity=1, unit_price=euros(1))
    rpc = RPCS["shop.inventory.v1.InventoryService/ReserveStock"]
    kept = [f"inventory.{table}" for table in ("events", "reservation", "reservation_line")]
    with unchanged(world, *kept):
        answer = world.call(rpc, request, metadata=keyed(rpc))
    assert (answer.code, answer.error.reason) == (Code.FAILED_PRECONDITION, "UNKNOWN_PRODUCT")
    assert answer.error.preconditions
    check_details(answer)


def test_bulk_names_the_bad_update(world: World) -> None:
    """An update that is malformed ends the stream, and is named by its number."""
    rpc = RPCS["shop.orders.v1.OrderService/BulkUpdateOrders"]
    good = GOOD[rpc.name]
    bad = orders.BulkUpdateOrdersRequest(order_id=ID)
    with unchanged(world):
        answer = world.call(rpc, good, good, bad, metadata=keyed(rpc))
    assert (answer.code, answer.fields) == (Code.INVALID_ARGUMENT, {"update"})
    assert answer.error.metadata == {"item": "2"}
    check_details(answer)


def test_bulk_of_too_many(world: World) -> None:
    """After 10,000 updates it is enough."""
    rpc = RPCS["shop.orders.v1.OrderService/BulkUpdateOrders"]
    with unchanged(world):
        answer = world.call(
            rpc, *[GOOD[rpc.name].SerializeToString()] * 10_001, metadata=keyed(rpc), timeout=60
        )
    assert (answer.code, answer.error.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_UPDATES")
    check_details(answer)


def test_bulk_of_unknown_orders(world: World) -> None:
    """Updates of orders that are not there are refused one by one."""
    rpc = RPCS["shop.orders.v1.OrderService/BulkUpdateOrders"]
    with unchanged(world):
        answer = world.call(rpc, *[GOOD[rpc.name]] * 3, metadata=keyed(rpc))
    summary = orders.BulkUpdateOrdersResponse.FromString(answer.responses[0])
    assert (summary.applied, summary.refused) == (0, 3)
    assert {refusal.reason for refusal in summary.refusals} == {"NOT_FOUND"}


def test_track_what_is_not_there(world: World) -> None:
    """Orders that are not there, or not yet so far, are told of and do not end the stream."""
    rpc = RPCS["shop.orders.v1.OrderService/TrackOrders"]
    future = orders.StreamOrderUpdatesRequest(order_id=world.confirmed, after_sequence=99)
    with unchanged(world):
        answer = world.call(rpc, GOOD[rpc.name], orders.TrackOrdersRequest(add=future))
    told = [orders.TrackOrdersResponse.FromString(raw) for raw in answer.responses]
    assert answer.code is Code.OK
    assert {each.order_id: each.untracked.cause for each in told} == {
        ID: orders.Untracked.CAUSE_NOT_FOUND,
        world.confirmed: orders.Untracked.CAUSE_OUT_OF_RANGE,
    }


def test_page_of_large_orders(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of orders that would not fit into a message is shorter, and the next goes on."""
    rpc = RPCS["shop.orders.v1.OrderService/ListOrders"]

    def pages() -> Iterator[list[str]]:
        token = ""
        while True:
            request = orders.ListOrdersRequest(page_size=500, page_token=token)
            (raw,) = world.call(rpc, request).responses
            response = orders.ListOrdersResponse.FromString(raw)
            yield [order.order_id for order in response.orders]
            token = response.next_page_token
            if not token:
                return

    (whole,) = pages()
    monkeypatch.setattr(store, "PAGE_BYTES", 1)
    assert list(pages()) == [[order_id] for order_id in whole]
    assert len(whole) > 1


@pytest.mark.parametrize("rpc", RPCS.values(), ids=RPCS)
def test_fuzz(rough_world: World, rpc: Rpc) -> None:
    """No well-formed request whatsoever breaks a service."""
    world = rough_world
    # What may wait for news is not waited for.
    patience = 0.1 if rpc.descriptor.server_streaming else 10.0
    may_wait = {Code.DEADLINE_EXCEEDED} if rpc.descriptor.server_streaming else set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize="CI" in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=requests_of(rpc, world), key=st.sampled_from(["", "", "", "a", "b", USED_KEY]))
    def check(data: list[object], key: str) -> None:
        metadata = (("idempotency-key", key or uuid7()),) if rpc.policy.key is not Key.NONE else ()
        answer = world.call(rpc, *data, metadata=metadata, timeout=patience, most=20)  # type: ignore[arg-type]
        assert answer.code not in NEVER, answer
        if answer.code is not Code.OK and answer.code not in may_wait:
            check_reason(answer)
        assert world.complaints == []

    check()
    world.calm()


def test_grpcurl(world: World) -> None:
    """Who tries it by hand reads what is wrong, field by field."""
    found = subprocess.run(
        [
            Path(sys.executable).with_name("grpcurl"),
            *("-plaintext", "-H", "idempotency-key: by-hand"),
            *("-d", '{"customer_id": "ada", "items": [{"sku": "tea", "quantity": -1}]}'),
            *(world.address("orders"), "shop.orders.v1.OrderService/CreateOrder"),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert found.returncode != 0
    for expected in (
        "Code: InvalidArgument",
        '"@type":"type.googleapis.com/google.rpc.BadRequest"',
        '"field":"customer_id"',
        '"field":"items[0].quantity"',
        '"field":"ship_to"',
        '"reason":"INVALID_ARGUMENT"',
        '"domain":"orders"',
    ):
        assert expected in found.stderr.replace('": "', '":"')


async def test_path_that_is_no_text(tmp_path: Path) -> None:
    """A path that is not UTF-8, which ends gRPC's own server, only concerns who has sent it."""
    async with running_shop(tmp_path, "customers") as shop:
        address = shop.settings("customers").address
        for _ in range(2):
            await asyncio.to_thread(ask, address, b"/\xff", b"")
        assert await asyncio.to_thread(ask, address, b"/grpc.health.v1.Health/Check", b"") == 0
        assert not shop.runtimes["customers"].failed.is_set()
