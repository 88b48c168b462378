"""What the shop's contracts promise: a policy on every RPC, and the numbers that were agreed."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2

import shop
from accord.contract import Key, event_policy, method_policy
from accord.policies.breaker import BreakerPolicy
from accord.policies.rate_limit import RatePolicy
from accord.policies.types import Code
from accord.v1 import policy_pb2

READS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
IDEMPOTENT = descriptor_pb2.MethodOptions.IDEMPOTENT

CREATE_ORDER = "/shop.orders.v1.OrderService/CreateOrder"
GET_ORDER = "/shop.orders.v1.OrderService/GetOrder"
STREAM_ORDER = "/shop.orders.v1.OrderService/StreamOrderUpdates"
GET_CUSTOMER = "/shop.customers.v1.CustomerService/GetCustomer"
LIST_CUSTOMERS = "/shop.customers.v1.CustomerService/ListCustomers"
LIST_STOCK = "/shop.inventory.v1.InventoryService/ListStock"
RESERVE = "/shop.inventory.v1.InventoryService/ReserveStock"
CHARGE = "/shop.payments.v1.PaymentService/Charge"
SHIP = "/shop.shipping.v1.ShippingService/CreateShipment"


def files() -> list[pb.FileDescriptor]:
    """Every contract of the shop."""
    modules = pkgutil.walk_packages(shop.__path__, "shop.")
    found = [
        importlib.import_module(module.name).DESCRIPTOR
        for module in modules
        if module.name.endswith("_pb2")
    ]
    assert len(found) > 8
    return found


METHODS = [
    method
    for file in files()
    for service in file.services_by_name.values()
    for method in service.methods
]
# The outside world is called by one service of ours each, which tries again as a whole.
OWN = [method for method in METHODS if method.containing_service.file.package != "shop.sandbox.v1"]
MESSAGES = [message for file in files() for message in file.message_types_by_name.values()]
EVENTS = [
    message
    for message in MESSAGES
    if event_policy(message) or message.file.name.endswith("/events.proto")
]


def full(method: pb.MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def written(method: pb.MethodDescriptor) -> Iterator[policy_pb2.MethodPolicy]:
    """What the contract itself says, the library's defaults aside."""
    yield method.GetOptions().Extensions[policy_pb2.policy]
    yield method.containing_service.GetOptions().Extensions[policy_pb2.service].defaults


every_method = pytest.mark.parametrize("method", METHODS, ids=full)


@every_method
def test_every_rpc_states_how_long_it_may_take(method: pb.MethodDescriptor) -> None:
    """A timeout is in the contract; a stream that the server writes has a longest life instead."""
    policy = method_policy(full(method))
    if method.server_streaming:
        assert policy.timeout is None
        assert 0 < policy.stream.max_lifetime <= 3600
    else:
        assert any(stated.HasField("timeout") for stated in written(method))
        assert policy.timeout is not None


@every_method
def test_every_rpc_that_mutates_states_what_a_repeat_does(method: pb.MethodDescriptor) -> None:
    """An RPC reads, or needs a key, or is idempotent by nature and says so to protobuf too."""
    level = method.GetOptions().idempotency_level
    key = method_policy(full(method)).key
    if level == READS:
        assert key is Key.NONE
    else:
        assert key is not Key.NONE
        assert (key is Key.NATURAL) == (level == IDEMPOTENT)


@every_method
def test_every_rpc_is_owned_and_names_its_callers(method: pb.MethodDescriptor) -> None:
    """Somebody answers for each service, and who may call each RPC is declared."""
    assert method.containing_service.GetOptions().Extensions[policy_pb2.service].owner
    assert method_policy(full(method)).allow


@pytest.mark.parametrize("method", OWN, ids=full)
def test_every_retry_is_the_agreed_one(method: pb.MethodDescriptor) -> None:
    """3 attempts, 100 ms growing to at most 10 s, where repeats are safe.

    On UNAVAILABLE; ReserveStock, for which a customer waits, on RESOURCE_EXHAUSTED too.
    """
    policy = method_policy(full(method))
    assert policy.retry is not None
    assert policy.retry.max_attempts == 3
    assert policy.retry.initial_backoff == 0.1
    assert policy.retry.max_backoff == 10.0
    busy = {Code.RESOURCE_EXHAUSTED} if method.name == "ReserveStock" else set()
    assert policy.retry.codes == {Code.UNAVAILABLE} | busy
    assert policy.idempotent


@every_method
def test_every_rpc_that_is_named_exists_and_nested_calls_fit(method: pb.MethodDescriptor) -> None:
    """Calls, compensations and invalidations name real RPCs; nested timeouts fit into their own."""
    policy = method_policy(full(method))
    named = [*policy.calls]
    named += [policy.compensation.method] if policy.compensation else []
    named += policy.cache.invalidated_by if policy.cache else ()
    assert set(named) <= {full(other) for other in METHODS}
    if policy.calls:
        assert policy.timeout is not None
        assert sum(policy.calls.values()) < policy.timeout
    for callee, allowed in policy.calls.items():
        assert allowed <= (method_policy(callee).timeout or 0)


@pytest.mark.parametrize(
    ("method", "seconds"),
    [(CREATE_ORDER, 5), (GET_ORDER, 2), (RESERVE, 5), (CHARGE, 10), (SHIP, 5)],
)
def test_agreed_deadlines(method: str, seconds: float) -> None:
    """CreateOrder 5 s and GetOrder 2 s; the saga's steps: reserve 5 s, charge 10 s, ship 5 s."""
    assert method_policy(method).timeout == seconds


@pytest.mark.parametrize("method", OWN, ids=full)
def test_agreed_circuit_and_depth(method: pb.MethodDescriptor) -> None:
    """Half of ten calls in 10 s, or five in a row; 10 to 30 s, one probe; two hops at most."""
    policy = method_policy(full(method))
    assert policy.breaker == BreakerPolicy(50, 10, 10.0, 5, 10.0, 30.0, 1)
    assert policy.max_depth == 2


def test_agreed_rate() -> None:
    """A caller lists 100 times a second, and 500 times at once."""
    limit = method_policy("/shop.orders.v1.OrderService/ListOrders").limit
    assert limit is not None
    assert limit.rate == RatePolicy(100.0, 500)


@pytest.mark.parametrize("method", [STREAM_ORDER, LIST_CUSTOMERS, LIST_STOCK])
def test_agreed_keepalive(method: str) -> None:
    """Server streams are kept alive every 30 s."""
    policy = method_policy(method)
    assert policy.server_streaming
    assert not policy.client_streaming
    assert policy.stream.keepalive == 30


@pytest.mark.parametrize("method", [GET_ORDER, GET_CUSTOMER])
def test_agreed_caching(method: str) -> None:
    """GetOrder and GetCustomer may be kept for 30 s, and every write of theirs drops them."""
    cache = method_policy(method).cache
    assert cache is not None
    assert cache.ttl == 30
    service = method.rpartition("/")[0]
    assert set(cache.invalidated_by) == {
        full(other)
        for other in METHODS
        if full(other).startswith(f"{service}/") and other.GetOptions().idempotency_level != READS
    }


def test_agreed_undoing() -> None:
    """Reserving, charging and shipping are undone by releasing, refunding and cancelling."""
    undone = {
        RESERVE: "/shop.inventory.v1.InventoryService/ReleaseStock",
        CHARGE: "/shop.payments.v1.PaymentService/Refund",
        SHIP: "/shop.shipping.v1.ShippingService/CancelShipment",
    }
    for method, by in undone.items():
        compensation = method_policy(method).compensation
        assert compensation is not None
        assert compensation.method == by
        assert compensation.fill == (("order_id", "request.order_id"),)


@pytest.mark.parametrize("message", EVENTS, ids=lambda message: message.full_name)
def test_every_event_says_what_it_is(message: pb.Descriptor) -> None:
    """Subject (of its own service), version and key: a string field of the event."""
    policy = event_policy(message)
    assert policy is not None
    assert policy.subject.startswith(f"{message.file.package.split('.')[1]}.")
    assert policy.version >= 1
    assert message.fields_by_name[policy.key].type == pb.FieldDescriptor.TYPE_STRING


def test_no_two_events_share_a_subject() -> None:
    """A subject names one kind of event."""
    subjects = [policy.subject for message in EVENTS if (policy := event_policy(message))]
    assert len(subjects) >= 10
    assert len(subjects) == len(set(subjects))
