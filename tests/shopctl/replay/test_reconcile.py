"""The reconciliation: it agrees with perfect books, and finds every single thing that is wrong."""

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from shop.orders.v1.orders_pb2 import FAILURE_REASON_NO_CARRIER, ORDER_STATUS_PAID
from shopctl.replay.model import Books, Expected, ExpectedOrder, Fate, OrderBooks, Stock
from shopctl.replay.reconcile import END, Verdict, reconcile

NUMBERS = [
    field.name
    for field in fields(OrderBooks)
    if field.name not in ("order_id", "status", "reason", "settled")
]


@st.composite
def expectations(draw: st.DrawFn) -> Expected:
    orders = {}
    for number, fate in enumerate(draw(st.lists(st.sampled_from(Fate), min_size=1)), 1):
        total, units = draw(st.integers(1, 10**9)), draw(st.integers(1, 1000))
        good = fate is Fate.GOOD
        orders[number] = ExpectedOrder(fate, total, total if good else 0, units if good else 0)
    return Expected(
        orders=orders,
        ending={fate: sum(order.fate is fate for order in orders.values()) for fate in Fate},
        total=sum(order.total for order in orders.values()),
        captured=sum(order.captured for order in orders.values()),
        shipped=sum(order.shipped for order in orders.values()),
        remaining=draw(st.dictionaries(st.text("abc", min_size=1), st.integers(0), min_size=1)),
    )


def perfect(expected: Expected) -> Books:
    """Books as they must be."""
    orders = {}
    for number, must in expected.orders.items():
        status, reason = END[must.fate]
        orders[number] = OrderBooks(
            order_id=f"id-{number}",
            status=status,
            reason=reason,
            total=must.total,
            captured=must.captured,
            settled=True,
            captures=int(must.fate is Fate.GOOD),
            processor=must.captured,
            shipped=must.shipped,
            bookings=int(must.fate is Fate.GOOD),
            carrier=must.shipped,
            receivable=must.captured,
            deposits=0,
            income=must.captured,
            mails=1,
            mails_sent=1,
            misnumbered=0,
        )
    return Books(orders, {sku: Stock(left, 0) for sku, left in expected.remaining.items()}, ())


def subjects(verdict: Verdict) -> list[str]:
    return [difference.subject for difference in verdict.differences]


@given(expectations())
def test_perfect_books_agree(expected: Expected) -> None:
    """Books that are as they must be agree in every sum and in every row."""
    verdict = reconcile(expected, perfect(expected))
    assert verdict.agrees
    assert all(check.agrees for check in verdict.checks)


@given(expectations(), st.data())
def test_one_wrong_number_is_found(expected: Expected, data: st.DataObject) -> None:
    """A number that is off by anything, in any book of any order, is found and named."""
    books = perfect(expected)
    number = data.draw(st.sampled_from(sorted(books.orders)))
    field = data.draw(st.sampled_from(NUMBERS))
    off = data.draw(st.integers(-10, 10).filter(bool))
    wrong = replace(books.orders[number], **{field: getattr(books.orders[number], field) + off})
    verdict = reconcile(expected, replace(books, orders={**books.orders, number: wrong}))
    assert not verdict.agrees
    assert subjects(verdict) == [f"order {number} (id-{number})"]


@given(expectations(), st.data())
def test_errors_that_cancel_out_are_found(expected: Expected, data: st.DataObject) -> None:
    """A cent too much here and a cent too little there agree in sum and still do not pass."""
    books = perfect(expected)
    orders = dict(books.orders)
    orders[0] = replace(orders[1], order_id="id-0")
    expected = replace(expected, orders={**expected.orders, 0: expected.orders[1]})
    field = data.draw(st.sampled_from(["captured", "processor", "total"]))
    for number, off in ((0, 1), (1, -1)):
        orders[number] = replace(orders[number], **{field: getattr(orders[number], field) + off})
    verdict = reconcile(expected, replace(books, orders=orders))
    assert subjects(verdict) == ["order 0 (id-0)", "order 1 (id-1)"]
    assert not verdict.agrees


@given(expectations())
def test_wrong_end_is_found(expected: Expected) -> None:
    """An order in a state or with a reason that it must not end with is found."""
    books = perfect(expected)
    stuck = replace(books.orders[1], status=ORDER_STATUS_PAID)
    assert not reconcile(expected, replace(books, orders={**books.orders, 1: stuck})).agrees
    other = replace(books.orders[1], reason=FAILURE_REASON_NO_CARRIER)
    assert not reconcile(expected, replace(books, orders={**books.orders, 1: other})).agrees


@given(expectations())
def test_a_ledger_that_does_not_balance_is_found(expected: Expected) -> None:
    """Debits and credits that differ by a cent do not pass, whatever the orders say."""
    assert not reconcile(expected, replace(perfect(expected), unbalanced=1)).agrees


@given(expectations())
def test_open_payment_is_found(expected: Expected) -> None:
    """A payment or refund whose outcome is still open does not pass."""
    books = perfect(expected)
    unsettled = replace(books.orders[1], settled=False)
    assert not reconcile(expected, replace(books, orders={**books.orders, 1: unsettled})).agrees


@given(expectations(), st.data())
def test_wrong_stock_is_found(expected: Expected, data: st.DataObject) -> None:
    """Stock that is off, still reserved, missing or from nowhere is found and named."""
    books = perfect(expected)
    sku = data.draw(st.sampled_from(sorted(books.stock)))
    must = books.stock[sku]
    for wrong in (Stock(must.on_hand + 1, 0), Stock(must.on_hand, 1)):
        verdict = reconcile(expected, replace(books, stock={**books.stock, sku: wrong}))
        assert not verdict.agrees
        assert subjects(verdict) == [sku]
    without = {key: value for key, value in books.stock.items() if key != sku}
    assert subjects(reconcile(expected, replace(books, stock=without))) == [sku]
    more = {**books.stock, "new": Stock(0, 0)}
    assert subjects(reconcile(expected, replace(books, stock=more))) == ["new"]


@given(expectations())
def test_lost_and_stray_orders_are_found(expected: Expected) -> None:
    """An order that is missing, and one that was made and nobody told of, are found."""
    books = perfect(expected)
    lost = {number: order for number, order in books.orders.items() if number != 1}
    assert subjects(reconcile(expected, replace(books, orders=lost))) == ["order 1"]
    verdict = reconcile(expected, replace(books, strays=["id-stray"]))
    assert subjects(verdict) == ["id-stray"]
    assert not verdict.agrees
