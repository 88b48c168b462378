"""The fold of an order's events."""

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from accord.contract import event_policy
from accord.errors import FailedPrecondition, InvalidArgument, ServiceError
from services.orders import domain
from shop.orders.v1 import events_pb2 as events
from shop.orders.v1 import orders_pb2 as pb
from tests.support.shop import euros

FILE = descriptor_pool.Default().FindFileByName("shop/orders/v1/events.proto")
EVENTS = [GetMessageClass(message) for message in FILE.message_types_by_name.values()]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.DESCRIPTOR.name)
def test_every_event_of_the_contract_can_be_folded(kind: type) -> None:
    """An event that nobody can fold would lose an order when it is rebuilt."""
    order = pb.Order(order_id="o", sequence=4)
    assert event_policy(kind) is not None
    domain.apply(order, kind(order_id="o"), 5, 12.5)
    assert order.sequence == 5
    assert order.updated_at.ToNanoseconds() == 12_500_000_000


@given(st.integers(min_value=-5, max_value=50), st.integers(min_value=0, max_value=40))
def test_events_are_folded_in_order_only(sequence: int, last: int) -> None:
    """A gap, a repeat or a reordered event is an error, never a silently wrong order."""
    order = pb.Order(sequence=last)
    event = events.OrderNoteAdded(order_id="o", note="n")
    if sequence == last + 1:
        domain.apply(order, event, sequence, 0.0)
        assert order.sequence == sequence
    else:
        with pytest.raises(ValueError, match="does not follow"):
            domain.apply(order, event, sequence, 0.0)
        assert order.sequence == last


@given(st.lists(st.text(min_size=1, max_size=5), max_size=60))
def test_an_order_shows_its_newest_notes(notes: list[str]) -> None:
    """Notes are bounded, and the newest ones stay."""
    order = pb.Order()
    for number, note in enumerate(notes, start=1):
        domain.apply(order, events.OrderNoteAdded(order_id="o", note=note), number, 0.0)
    assert list(order.notes) == notes[-domain.MAX_NOTES :]


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 10**11)), min_size=1, max_size=100)
)
def test_the_total_is_exact_or_refused(lines: list[tuple[int, int]]) -> None:
    """The sum of anything that the contract lets in is exact, or refused as too large."""
    items = [
        pb.OrderItem(sku=str(number), quantity=quantity, unit_price=euros(price))
        for number, (quantity, price) in enumerate(lines)
    ]
    exact = sum(quantity * price for quantity, price in lines)
    if exact > 10**17:
        with pytest.raises(InvalidArgument):
            domain.total(items)
    else:
        assert domain.total(items) == euros(exact)


@pytest.mark.parametrize("status", pb.OrderStatus.values())
def test_cancel_is_decided_by_the_status_alone(status: int) -> None:
    """Before the pivot it is accepted, in shipping it is too late, afterwards it has ended."""
    order = pb.Order(order_id="o", status=pb.OrderStatus.Name(status))  # type: ignore[arg-type]
    if status in domain.CANCELLABLE:
        assert domain.cancel(order, "").failure.reason == pb.FAILURE_REASON_CANCELLED
        return
    with pytest.raises(FailedPrecondition) as caught:
        domain.cancel(order, "")
    late = status in (pb.ORDER_STATUS_SHIPPING, pb.ORDER_STATUS_SHIPPED)
    assert caught.value.reason == ("TOO_LATE" if late else "ORDER_ENDED")


def test_notes_are_bounded() -> None:
    """An order cannot grow without end."""
    with pytest.raises(FailedPrecondition) as caught:
        domain.note(pb.Order(order_id="o", sequence=domain.MAX_EVENTS), "n")
    assert caught.value.reason == "TOO_MANY_NOTES"


def test_an_unknown_refusal_keeps_its_words() -> None:
    """A reason that this version does not know is OTHER, with the sentence that came with it."""
    import grpc

    error = ServiceError(grpc.StatusCode.FAILED_PRECONDITION, "NEW_REASON", "because")
    assert domain.failure(error) == pb.Failure(reason=pb.FAILURE_REASON_OTHER, detail="because")
