"""Compares the books with what they must say. Pure: numbers in, verdict out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shop.orders.v1 import orders_pb2 as pb
from shopctl.formatting import enum_name
from shopctl.replay.model import Books, Expected, ExpectedOrder, Fate, OrderBooks, Stock
from shopctl.replay.progress import status_name

END: Final[Mapping[Fate, tuple[pb.OrderStatus.ValueType, pb.FailureReason.ValueType]]] = {
    Fate.GOOD: (pb.ORDER_STATUS_CONFIRMED, pb.FAILURE_REASON_UNSPECIFIED),
    Fate.DECLINED: (pb.ORDER_STATUS_FAILED, pb.FAILURE_REASON_CARD_DECLINED),
    Fate.SHORT: (pb.ORDER_STATUS_REJECTED, pb.FAILURE_REASON_OUT_OF_STOCK),
}
"""Fate -> how an order ends, and why."""


class Unit(StrEnum):
    """What a number counts."""

    ORDERS = "orders"
    CENTS = "US cents"
    UNITS = "units"
    MAILS = "mails"
    UPDATES = "updates"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the reconciliation.

    Attributes:
        book: who says so.
        what: what is compared.
        unit: of both numbers.
        expected: what the book must say, by SQL over TPC-H.
        actual: what it says.
    """

    book: str
    what: str
    unit: Unit
    expected: int
    actual: int

    @property
    def agrees(self) -> bool:
        """Whether the two are the same."""
        return self.expected == self.actual


@dataclass(frozen=True, slots=True)
class Difference:
    """One order or product that is not as it must be.

    Attributes:
        subject: which one.
        book: who says so.
        what: what is compared.
        expected: what the book must say.
        actual: what it says.
    """

    subject: str
    book: str
    what: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome: sums, and every single row that differs."""

    checks: Sequence[Check]
    differences: Sequence[Difference]

    @property
    def agrees(self) -> bool:
        """Whether everything is as it must be, in sum and one by one."""
        return not self.differences and all(check.agrees for check in self.checks)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one number in the books of an order must be."""

    book: str
    what: str
    expected: Callable[[ExpectedOrder], int]
    actual: Callable[[OrderBooks], int]


_RULES: Final = (
    _Rule("orders", "total", lambda e: e.total, lambda a: a.total),
    _Rule("orders", "misnumbered updates", lambda _: 0, lambda a: a.misnumbered),
    _Rule("payments", "captured", lambda e: e.captured, lambda a: a.captured),
    _Rule("payments", "settled", lambda _: 1, lambda a: int(a.settled)),
    _Rule("card processor", "captures", lambda e: int(e.captured > 0), lambda a: a.captures),
    _Rule("card processor", "held", lambda e: e.captured, lambda a: a.processor),
    _Rule("shipping", "units shipped", lambda e: e.shipped, lambda a: a.shipped),
    _Rule("carrier", "parcels", lambda e: int(e.shipped > 0), lambda a: a.bookings),
    _Rule("carrier", "units", lambda e: e.shipped, lambda a: a.carrier),
    _Rule("accounting", "receivable", lambda e: e.captured, lambda a: a.receivable),
    _Rule("accounting", "deposits", lambda _: 0, lambda a: a.deposits),
    _Rule("accounting", "income", lambda e: e.captured, lambda a: a.income),
    _Rule("notifications", "mails written", lambda _: 1, lambda a: a.mails),
    _Rule("notifications", "mails sent", lambda _: 1, lambda a: a.mails_sent),
)


def reconcile(expected: Expected, books: Books) -> Verdict:
    """Compares all of it."""
    return Verdict(
        checks=list(_checks(expected, books)),
        differences=[
            *_order_differences(expected, books),
            *_stock_differences(expected, books),
            *(Difference(stray, "orders", "placed by us", "no", "yes") for stray in books.strays),
        ],
    )


def _checks(expected: Expected, books: Books) -> Iterator[Check]:
    orders = books.orders.values()
    ends = [(order.status, order.reason) for order in orders]
    for fate, end in END.items():
        yield Check("orders", _describe(end), Unit.ORDERS, expected.ending[fate], ends.count(end))
    others = sum(end not in END.values() for end in ends)
    yield Check("orders", "anything else", Unit.ORDERS, 0, others)
    on_record = len(books.orders) + len(books.strays)
    yield Check("orders", "on record", Unit.ORDERS, len(expected.orders), on_record)

    def total(
        book: str, what: str, unit: Unit, must: int, of: Callable[[OrderBooks], int]
    ) -> Check:
        return Check(book, what, unit, must, sum(map(of, orders)))

    captured, shipped = expected.captured, expected.shipped
    yield total("orders", "price of all", Unit.CENTS, expected.total, lambda o: o.total)
    yield total("orders", "updates misnumbered", Unit.UPDATES, 0, lambda o: o.misnumbered)
    yield total("payments", "captured", Unit.CENTS, captured, lambda o: o.captured)
    yield total("payments", "not settled", Unit.ORDERS, 0, lambda o: not o.settled)
    yield total("card processor", "held", Unit.CENTS, captured, lambda o: o.processor)
    yield total("card processor", "charged twice", Unit.ORDERS, 0, lambda o: o.captures > 1)
    yield total("shipping", "shipped", Unit.UNITS, shipped, lambda o: o.shipped)
    yield total("carrier", "taken", Unit.UNITS, shipped, lambda o: o.carrier)
    yield total("carrier", "booked twice", Unit.ORDERS, 0, lambda o: o.bookings > 1)
    yield total("accounting", "receivable", Unit.CENTS, captured, lambda o: o.receivable)
    yield total("accounting", "deposits", Unit.CENTS, 0, lambda o: o.deposits)
    yield total("accounting", "income", Unit.CENTS, captured, lambda o: o.income)
    yield Check("accounting", "debits less credits", Unit.CENTS, 0, books.unbalanced)
    left = sum(expected.remaining.values())
    stock = books.stock.values()
    yield Check("inventory", "left", Unit.UNITS, left, sum(one.on_hand for one in stock))
    yield Check("inventory", "reserved", Unit.UNITS, 0, sum(one.reserved for one in stock))
    mails = len(expected.orders)
    yield total("notifications", "written", Unit.MAILS, mails, lambda o: o.mails)
    yield total("notifications", "sent", Unit.MAILS, mails, lambda o: o.mails_sent)


def _order_differences(expected: Expected, books: Books) -> Iterator[Difference]:
    for number, must in sorted(expected.orders.items()):
        order = books.orders.get(number)
        subject = f"order {number}"
        if order is None:
            yield Difference(subject, "orders", "on record", "yes", "no")
            continue
        subject += f" ({order.order_id})"
        end = END[must.fate]
        if (order.status, order.reason) != end:
            was = _describe((order.status, order.reason))
            yield Difference(subject, "orders", "end", _describe(end), was)
        for rule in _RULES:
            want, have = rule.expected(must), rule.actual(order)
            if want != have:
                yield Difference(subject, rule.book, rule.what, str(want), str(have))


def _stock_differences(expected: Expected, books: Books) -> Iterator[Difference]:
    for sku in sorted(expected.remaining.keys() | books.stock.keys()):
        want = expected.remaining.get(sku)
        have = books.stock.get(sku)
        if want is None or have != Stock(want, 0):
            yield Difference(sku, "inventory", "left, reserved", _stock(want), _stock(have))


def _stock(value: Stock | int | None) -> str:
    match value:
        case None:
            return "no such product"
        case int():
            return f"{value}, 0"
        case _:
            return f"{value.on_hand}, {value.reserved}"


def _describe(end: tuple[int, int]) -> str:
    status, reason = end
    if reason == pb.FAILURE_REASON_UNSPECIFIED:
        return status_name(status)
    name = enum_name(pb.FailureReason.items(), reason)
    return f"{status_name(status)}: {name.lower().replace('_', ' ')}"
