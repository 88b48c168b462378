"""What the books must say of an order, given all that is known of it. Pure.

    captured   Dr receivable   Cr deposits     money was taken; it is owed to the customer
    earned     Dr deposits     Cr revenue      the order was sent
    refunded   Dr deposits     Cr receivable   money was given back

When an order was both earned and refunded, whichever comes second has `refunds` for `deposits`: the
balances in the end are the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import Message

from shop.accounting.v1 import accounting_pb2 as pb
from shop.common.v1.money_pb2 import Money
from shop.orders.v1 import events_pb2 as orders
from shop.orders.v1 import orders_pb2
from shop.payments.v1 import events_pb2 as payments
from shop.payments.v1 import payments_pb2

RECEIVABLE: Final = pb.ACCOUNT_CARD_RECEIVABLE
DEPOSITS: Final = pb.ACCOUNT_CUSTOMER_DEPOSITS
REVENUE: Final = pb.ACCOUNT_REVENUE
REFUNDS: Final = pb.ACCOUNT_REFUNDS

TYPES: Final = {
    RECEIVABLE: pb.ACCOUNT_TYPE_ASSET,
    DEPOSITS: pb.ACCOUNT_TYPE_LIABILITY,
    REVENUE: pb.ACCOUNT_TYPE_INCOME,
    REFUNDS: pb.ACCOUNT_TYPE_CONTRA_INCOME,
}
"""The chart of accounts."""

Amount = tuple[int, str]
"""Minor units and currency."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an order."""

    captured: Amount | None = None
    """What payments said was taken."""
    paid: Amount | None = None
    """What orders said was paid."""
    confirmed: Amount | None = None
    """What the order had cost when it was confirmed."""
    refunded: Amount | None = None
    """What payments said was given back."""
    undone: bool = False
    """Whether the order has ended failed or cancelled."""
    posted: tuple[str, ...] = ()
    """Kinds of the transactions that are in the ledger."""


@dataclass(frozen=True, slots=True)
class Posting:
    """A transaction to be written: account -> debit, in minor units; negative for a credit."""

    kind: str
    currency: str
    debits: dict[int, int]


def _amount(money: Money) -> Amount | None:
    return (money.minor_units, money.currency_code) if money.minor_units else None


def learn(known: Known, event: Message) -> Known:
    """What is known of an order after one of its events."""
    match event:
        case payments.PaymentCaptured():
            return replace(known, captured=_amount(event.amount))
        case payments.PaymentRefunded():
            return replace(known, refunded=_amount(event.amount))
        case orders.OrderPaid():
            return replace(known, paid=_amount(event.amount))
        case orders.OrderConfirmed():
            return replace(known, confirmed=_amount(event.total))
        case _:
            return replace(known, undone=True)


EVENTS: Final = {
    "PAYMENTS": (payments.PaymentCaptured, payments.PaymentRefunded),
    "ORDERS": (
        *(orders.OrderPaid, orders.OrderConfirmed),
        *(orders.OrderFailed, orders.OrderCancelled),
    ),
}
"""Stream -> the events that the books are made from."""


def due(known: Known) -> Iterator[Posting]:
    """The transactions that are called for and not in the ledger."""
    taken = known.captured or known.paid
    # Until 0.2.0 payments said nothing: then an order that was paid and undone was refunded.
    believed = known.paid if known.undone and known.captured is None else None
    posted = set(known.posted)
    for kind, amount, debit, credit, other in (
        ("CAPTURED", taken, RECEIVABLE, DEPOSITS, ""),
        ("EARNED", known.confirmed, DEPOSITS, REVENUE, "REFUNDED"),
        ("REFUNDED", known.refunded or believed, DEPOSITS, RECEIVABLE, "EARNED"),
    ):
        if amount and kind not in posted:
            debit = REFUNDS if other in posted else debit
            yield Posting(kind, amount[1], {debit: amount[0], credit: -amount[0]})
            posted.add(kind)


def differences(
    order_id: str,
    known: Known,
    ledger: Mapping[tuple[int, str], int],
    order: orders_pb2.Order | None,
    payment: payments_pb2.Payment | None,
) -> Iterator[pb.Difference]:
    """In what the ledger's balances for an order differ from the records of orders and payments.

    `ledger`: (account, currency) -> debits less credits.
    """
    if order is None:
        yield pb.Difference(order_id=order_id, kind=pb.DIFFERENCE_KIND_UNKNOWN_ORDER)
    if known.paid and not known.captured:
        units, currency = known.paid
        yield pb.Difference(
            order_id=order_id,
            kind=pb.DIFFERENCE_KIND_NO_PAYMENT_EVENT,
            currency_code=currency,
            expected=units,
            actual=units,
        )
    for kind, accounts, must, said in _expected(order, payment):
        have = Counter[str]()
        for (account, currency), units in ledger.items():
            have[currency] += units if account in accounts else 0
        for currency in sorted({*have, *must}):
            if have[currency] != must[currency]:
                yield pb.Difference(
                    order_id=order_id,
                    kind=kind,
                    currency_code=currency,
                    expected=must[currency],
                    actual=have[currency],
                    detail=said,
                )


def _expected(
    order: orders_pb2.Order | None, payment: payments_pb2.Payment | None
) -> Iterator[tuple["pb.DifferenceKind.ValueType", Sequence[int], Counter[str], str]]:
    """What the sums of some accounts must be, by currency, and who says so.

    Nothing where the answer is on its way.
    """
    state = payment.state if payment else payments_pb2.PAYMENT_STATE_DECLINED
    if state not in (payments_pb2.PAYMENT_STATE_PENDING, payments_pb2.PAYMENT_STATE_REFUNDING):
        taken = payment if state == payments_pb2.PAYMENT_STATE_CAPTURED else None
        held = Counter({taken.amount.currency_code: taken.amount.minor_units} if taken else {})
        said = f"payments says {payments_pb2.PaymentState.Name(state)}"
        yield pb.DIFFERENCE_KIND_RECEIVABLE, [RECEIVABLE], held, said
    if order is None or order.status in _ON_THEIR_WAY:
        return
    said = f"orders says {orders_pb2.OrderStatus.Name(order.status)}"
    price = Counter({order.total.currency_code: -order.total.minor_units})
    earned = price if order.status == orders_pb2.ORDER_STATUS_CONFIRMED else Counter[str]()
    owed = price if order.status in _OWED else Counter[str]()
    yield pb.DIFFERENCE_KIND_INCOME, [REVENUE, REFUNDS], earned, said
    yield pb.DIFFERENCE_KIND_DEPOSITS, [DEPOSITS], owed, said


_ON_THEIR_WAY: Final = (orders_pb2.ORDER_STATUS_CREATED, orders_pb2.ORDER_STATUS_UNDOING)
"""Their money is being taken or given back."""

_OWED: Final = (
    *(orders_pb2.ORDER_STATUS_PAID, orders_pb2.ORDER_STATUS_SHIPPING),
    orders_pb2.ORDER_STATUS_SHIPPED,
)
"""They are paid and not earned."""
