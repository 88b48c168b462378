"""A shop whose servers are of one version, with clients of two: what the rows of the table need."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from accord_runtime.grpc.ids import uuid7
from tests.contracts.compat.client import PATIENCE, Answer, Call, Client, Json
from tests.contracts.compat.servers import Servers
from tests.support.shop import ALL

ORDERS: Final = "shop.orders.v1.OrderService/"
CUSTOMERS: Final = "shop.customers.v1.CustomerService/"
INVENTORY: Final = "shop.inventory.v1.InventoryService/"
SANDBOX: Final = "shop.sandbox.v1.SandboxService/"
NOTIFICATIONS: Final = "shop.notifications.v1.NotificationService/"
SAGAS: Final = "accord.ops.v1.SagaService/"
WORK: Final = "accord.ops.v1.WorkService/"

PRICE: Final = {"minor_units": "499", "currency_code": "EUR"}
ADDRESS: Final = {"name": "Ada", "line1": "Main Street 1", "city": "Town", "country_code": "DE"}
NOWHERE: Final = {**ADDRESS, "country_code": "AQ"}
"""An address to which the carrier does not go."""
STUCK: Final = 5
"""Orders that are made to be stuck: as many as there are rows that need one."""
UNKNOWN: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
"""An id that nothing has."""


class World:
    """Calls services, and checks that what has a key can be repeated by the other client.

    Args:
        servers: the shop.
        client: makes the calls.
        other: a client of another version, which repeats them.
    """

    def __init__(self, servers: Servers, client: Client, other: Client | None = None) -> None:
        self.servers = servers
        self.client = client
        self._other = other
        self._stuck: list[str] = []
        self._expected: dict[str, str] = {}

    def start(
        self,
        rpc: str,
        *requests: Json,
        target: str = "",
        key: str | None = None,
        timeout: float | None = None,
        open: bool = False,  # noqa: A002
    ) -> Call:
        """Begin a call; of the process that has the service, unless it is the operator's."""
        target = target or target_of(rpc)
        return self.client.start(rpc, *requests, target=target, key=key, timeout=timeout, open=open)

    def call(self, rpc: str, *requests: Json, target: str = "", key: str | None = None) -> Json:
        """The one response of a call."""
        (message,) = self.all(rpc, *requests, target=target, key=key)
        return message

    def all(
        self, rpc: str, *requests: Json, target: str = "", key: str | None = None
    ) -> Sequence[Json]:
        """All responses of a call."""
        answer = self._answer(rpc, *requests, target=target, key=key)
        assert answer.code == "OK", answer
        return answer.messages

    def refused(
        self,
        code: str,
        reason: str,
        rpc: str,
        *requests: Json,
        target: str = "",
        key: str | None = None,
    ) -> Answer:
        """A call that is answered with this status code and the reason of its ErrorInfo."""
        answer = self._answer(rpc, *requests, target=target, key=key)
        assert (answer.code, answer.reason) == (code, reason), answer
        assert answer.detail
        return answer

    @cached_property
    def customer(self) -> str:
        """Id of a customer."""
        request = {"name": "Ada", "email": f"{uuid7()}@example.com"}
        created = self.call(f"{CUSTOMERS}CreateCustomer", request, key=uuid7())
        return str(created["customer"]["customer_id"])

    @cached_property
    def product(self) -> str:
        """A product of which there is plenty."""
        request = {"sku": "tea", "name": "Tea", "price": PRICE, "on_hand": "1000"}
        self.call(f"{INVENTORY}UpsertProduct", request)
        return "tea"

    @cached_property
    def confirmed(self) -> str:
        """An order that has ended well."""
        order_id = self.place()
        assert self.ending(order_id) == "ORDER_STATUS_CONFIRMED"
        return order_id

    def basket(self, quantity: int = 1, **changes: Any) -> Json:
        """A request for an order."""
        item = {"sku": self.product, "quantity": quantity, "unit_price": PRICE}
        order = {"customer_id": self.customer, "items": [item], "card_token": "tok_visa"}
        return {**order, "ship_to": ADDRESS, **changes}

    def place(self, quantity: int = 1, **changes: Any) -> str:
        """Place an order; returns its id."""
        request = self.basket(quantity, **changes)
        placed = self.call(f"{ORDERS}CreateOrder", request, key=uuid7())
        return str(placed["order"]["order_id"])

    def updates(self, order_id: str, after: int = 0) -> Sequence[Json]:
        """All updates of an order, up to its end."""
        request = {"order_id": order_id, "after_sequence": str(after)}
        return self.all(f"{ORDERS}StreamOrderUpdates", request)

    def ending(self, order_id: str) -> str:
        """Wait for the end of an order: the status that it has then."""
        return str(self.updates(order_id)[-1]["status"])

    def until(self, order_id: str, status: str) -> None:
        """Wait until an order has a status, or has had it."""
        call = self.start(f"{ORDERS}StreamOrderUpdates", {"order_id": order_id})
        while call.message()["status"] != status:
            pass
        call.cancel()
        call.end()

    def eventually(self, rpc: str, request: Json, field: str) -> Json:
        """The answer of a call that is repeated until it has something in a field."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := self.call(rpc, request)).get(field):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer

    def until_exists(self, order_id: str) -> None:
        """Wait until an order that was submitted has been taken from its queue."""
        deadline = time.monotonic() + PATIENCE
        while (
            answer := self.start(f"{ORDERS}GetOrder", {"order_id": order_id}).end()
        ).code != "OK":
            assert answer.code == "NOT_FOUND", answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)

    def until_mailed(self, order_id: str) -> Json:
        """Wait for the mail about an order that has ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            wanted = {"order_id": order_id}
            page = self.call(f"{NOTIFICATIONS}ListNotifications", wanted)
            for mail in page["notifications"]:
                if mail["state"] == "NOTIFICATION_STATE_SENT":
                    found: Json = mail
                    return found
            assert time.monotonic() < deadline, f"no mail about {order_id}: {page}"
            time.sleep(0.05)

    def reconnect(self, *names: str) -> None:
        """Wait until the client has found services again that were restarted.

        Calls that fail until then would open its breaker.
        """
        for waiting in [self.client.ready(name) for name in names]:
            assert waiting.end().code == "OK"

    def hurry(self, order_id: str) -> None:
        """Let the saga of an order try its step now, and not when its time has come."""
        deadline = time.monotonic() + PATIENCE
        retry = {"saga_id": order_id, "reason": "it works again"}
        while True:
            answer = self.start(f"{SAGAS}RetrySaga", retry, target="orders", key=uuid7()).end()
            if answer.code == "OK" or answer.reason == "SAGA_ENDED":
                return
            # What it is trying just now may have begun when it could not succeed.
            assert answer.reason == "WORK_IN_PROGRESS", answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)

    def prepare(self) -> None:
        """Begin what takes seconds: orders whose stock is given away behind their backs."""
        for _ in range(STUCK):
            order_id = self.place(card_token="tok_slow")
            self.call(f"{INVENTORY}ReleaseStock", {"order_id": order_id})
            self._stuck.append(order_id)

    def stuck(self) -> str:
        """An order that was prepared: it can go neither on nor back."""
        order_id = self._stuck.pop()
        self.fails_at(order_id, "commit_stock")
        return order_id

    def expect(self, order_id: str, ending: str) -> None:
        """Say how an order has to end; `settle` looks, when it has had its time."""
        self._expected[order_id] = f"ORDER_STATUS_{ending}"

    def settle(self) -> None:
        """Every order has ended as was expected."""
        assert {order_id: self.ending(order_id) for order_id in self._expected} == self._expected

    def fails_at(self, order_id: str, step: str) -> None:
        """Wait until a step of an order's saga has failed at least once."""
        deadline = time.monotonic() + PATIENCE
        while True:
            saga = self.call(f"{SAGAS}GetSaga", {"saga_id": order_id}, target="orders")
            work = saga.get("work")
            if saga["saga"]["step"] == step and work and work["last_error"]:
                return
            assert time.monotonic() < deadline, saga
            time.sleep(0.05)

    def behave(self, party: str, behavior: str) -> None:
        """Tell the outside world how to behave."""
        request = {"party": f"PARTY_{party}", "behavior": f"BEHAVIOR_{behavior}"}
        self.call(f"{SANDBOX}SetBehavior", request)

    def parked(self, saga_id: str) -> str:
        """Park the work of a saga whose step has failed once; returns the id of the work.

        By itself it would be parked after five minutes.
        """
        deadline = time.monotonic() + PATIENCE
        # Not while it is being tried: the outcome would be written over this.
        park = (
            "UPDATE work SET state = 'parked' WHERE queue = 'saga' AND key = ?"
            " AND state = 'ready' AND lease_until <= ?"
        )
        while not self.servers.execute("orders", park, saga_id, time.time()):
            assert time.monotonic() < deadline, saga_id
            time.sleep(0.02)
        request = {"queue": "saga", "state": "WORK_STATE_PARKED"}
        items = self.call(f"{WORK}ListWork", request, target="orders")["items"]
        (work_id,) = (item["work_id"] for item in items if item["key"] == saga_id)
        return str(work_id)

    def _answer(self, rpc: str, *requests: Json, target: str, key: str | None) -> Answer:
        answer = self.start(rpc, *requests, target=target, key=key).end()
        if key is not None and self._other is not None:
            target = target or target_of(rpc)
            again = self._other.start(rpc, *requests, target=target, key=key).end()
            assert (again.code, again.reason) == (answer.code, answer.reason), again
            assert agree(again.messages, answer.messages), (again, answer)
        return answer


def target_of(rpc: str) -> str:
    """The process that has a service of the shop."""
    name = rpc.split(".")[1]
    assert name in ALL, f"{rpc} is served by all: name the target"
    return name


def agree(one: object, other: object) -> bool:
    """Whether two messages say the same, in the fields that both versions know."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(agree(one[name], other[name]) for name in one.keys() & other.keys())
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(agree, one, other))
    return one == other
