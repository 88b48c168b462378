"""An upgrade under traffic: one service after the other, on the databases that it finds, and back.

The released shop takes orders and leaves them at every stage; today's code takes over. Meanwhile
services of both versions call each other, read each other's events, and serve the clients of both.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from accord_runtime.grpc.ids import uuid7
from tests.contracts.compat.client import Call, Client, Json, running_client
from tests.contracts.compat.rows import ORDERS, SAGAS
from tests.contracts.compat.servers import Servers, servers
from tests.contracts.compat.version import Version
from tests.contracts.compat.world import NOWHERE, World, agree

CALLERS: Final = ("orders", "notifications")
"""Services that call others or read their events."""
CALLED: Final = ("customers", "inventory", "payments", "shipping", "sandbox")
"""Services that are called."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop, and worlds in which the client of either version is the one that calls."""

    servers: Servers
    old: World
    new: World

    @property
    def worlds(self) -> Sequence[World]:
        """Both."""
        return self.old, self.new

    def start(self, version: Version, *names: str) -> None:
        """Start services that were stopped; the clients find them again."""
        self.servers.start(version, *names)
        for world in self.worlds:
            world.reconnect(*(name for name in names if name in self.servers.running))

    def replace(self, version: Version, *names: str) -> None:
        """Stop services and start them as another version."""
        self.servers.stop(*names)
        self.start(version, *names)


@pytest.fixture
def shop(old: Version, new: Version, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of the released version."""
    home = tmp_path_factory.mktemp("shop")
    with ExitStack() as stack:
        running = stack.enter_context(servers(home, old))
        clients: list[Client] = [
            stack.enter_context(running_client(version, running.targets, home))
            for version in (old, new)
        ]
        worlds = [World(running, client) for client in clients]
        yield Shop(running, *worlds)


def sequences(messages: Sequence[Json]) -> list[int]:
    """The numbers of some updates."""
    return [int(message["sequence"]) for message in messages]


def all_ways(world: World) -> None:
    """Orders of every kind come to their ends, and their customers are told."""
    slow = world.place(card_token="tok_slow")
    cancel = {"order_id": slow, "reason": "too slow"}
    world.call(f"{ORDERS}CancelOrder", cancel, key=uuid7())
    endings = {
        world.place(): "CONFIRMED",
        world.place(quantity=9999): "REJECTED",
        world.place(card_token="tok_declined"): "FAILED",
        world.place(ship_to=NOWHERE): "FAILED",
    }
    for order_id, ending in {**endings, slow: "CANCELLED"}.items():
        assert world.ending(order_id) == f"ORDER_STATUS_{ending}"
        world.until_mailed(order_id)


def start_stream(world: World, order_id: str) -> Call:
    """Follow an order; has read what has happened so far."""
    call = world.start(f"{ORDERS}StreamOrderUpdates", {"order_id": order_id})
    seen = [call.message() for _ in range(4)]
    assert sequences(seen) == [1, 2, 3, 4]
    assert seen[-1]["status"] == "ORDER_STATUS_SHIPPING"
    return call


@pytest.mark.slow
def test_upgrade_and_back(shop: Shop, old: Version, new: Version) -> None:
    """What released servers have begun is finished by today's, and the other way round.

    Across each change: an order in the middle of its saga goes on; a stream of either client goes
    on by itself, without gap or duplicate; a call that was answered before is answered the same
    under its key, and one whose outcome was open gets it; old orders and sagas can be read.
    """
    # Released servers alone: a call with an answer, one without, and an order that is held up.
    known = shop.old.basket()
    key, open_key = uuid7(), uuid7()
    first = shop.old.call(f"{ORDERS}CreateOrder", known, key=key)
    before = shop.old.call(f"{ORDERS}GetOrder", {"order_id": shop.old.confirmed})
    shop.servers.stop("inventory")
    unanswered = shop.old.start(f"{ORDERS}CreateOrder", known, key=open_key, timeout=1.5).end()
    assert unanswered.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    shop.servers.start(old, "inventory")
    # (Its caller is started anew, because the breaker there would stay open for a while.)
    shop.replace(old, "orders")
    shop.old.behave("CARRIER", "FAIL")
    held = shop.old.place()
    shop.old.fails_at(held, "ship")
    streams = [start_stream(world, held) for world in shop.worlds]

    # Today's callers among released services: the databases of the callers are taken over.
    # (Shipping is started anew, because its breaker would stay open for a while.)
    shop.servers.stop(*CALLERS, "shipping")
    shop.old.behave("CARRIER", "NORMAL")
    shop.start(old, "shipping")
    shop.start(new, *CALLERS)
    for world in shop.worlds:
        assert agree(world.call(f"{ORDERS}CreateOrder", known, key=key), first)
        answered = world.call(f"{ORDERS}CreateOrder", known, key=open_key)
        assert answered["order"]["status"] == "ORDER_STATUS_CREATED"
        request = {"order_id": shop.old.confirmed}
        assert agree(world.call(f"{ORDERS}GetOrder", request), before)
        saga = world.call(f"{SAGAS}GetSaga", {"saga_id": held}, target="orders")
        done = [it["step"] for it in saga["history"]]
        assert done[:3] == ["reserve", "charge", "start_shipping"]
    shop.new.hurry(held)
    for stream in streams:
        rest = stream.end()
        assert (rest.code, sequences(rest.messages)) == ("OK", [5, 6])
        assert rest.messages[-1]["status"] == "ORDER_STATUS_CONFIRMED"
    shop.old.until_mailed(held)
    all_ways(shop.new)
    new_key = uuid7()
    later = shop.new.call(f"{ORDERS}CreateOrder", known, key=new_key)
    shop.new.behave("CARRIER", "FAIL")
    held = shop.new.place()
    shop.new.fails_at(held, "ship")
    streams = [start_stream(world, held) for world in shop.worlds]

    # The other way round, and without warning: released callers, back on their databases, among
    # today's services.
    shop.servers.kill(*CALLERS)
    shop.new.behave("CARRIER", "NORMAL")
    shop.replace(new, *CALLED)
    shop.start(old, *CALLERS)
    for world in shop.worlds:
        assert agree(world.call(f"{ORDERS}CreateOrder", known, key=new_key), later)
    shop.old.hurry(held)
    for stream in streams:
        rest = stream.end()
        assert (rest.code, sequences(rest.messages)) == ("OK", [5, 6])
    all_ways(shop.old)

    # Today's code alone.
    shop.replace(new, *CALLERS)
    for world in shop.worlds:
        assert agree(world.call(f"{ORDERS}CreateOrder", known, key=key), first)
        assert agree(world.call(f"{ORDERS}CreateOrder", known, key=new_key), later)
    everything = shop.new.all(f"{ORDERS}ReadEvents", {})
    assert [int(it["position"]) for it in everything] == list(range(1, len(everything) + 1))
    for begun in (first, answered, later):
        order_id = begun["order"]["order_id"]
        shop.new.hurry(order_id)
        assert shop.new.ending(order_id) == "ORDER_STATUS_CONFIRMED"
