"""The draw of the orders, and what SQL expects of them."""

import sys
from collections import Counter
from collections.abc import Iterator

import protovalidate
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shop.orders.v1.orders_pb2 import CreateOrderRequest
from shopctl.errors import CommandError
from shopctl.replay.model import Fate, Plan
from shopctl.replay.tpch import MARGIN, Tpch

RUN = "a1b2c3d4"

draws = st.fixed_dictionaries(
    {
        "count": st.integers(1, 400),
        "declined": st.floats(0, 50),
        "short": st.floats(0, 50),
        "seed": st.integers(0, 2**31),
    }
)
many = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def tpch() -> Iterator[Tpch]:
    """TPC-H at the size that the command uses; every test draws its own orders."""
    with Tpch(0.01) as tpch:
        yield tpch


def draw(tpch: Tpch, count: int = 200, seed: int = 1) -> Plan:
    return tpch.draw(count, declined=5, short=5, seed=seed, run=RUN)


@many
@given(draws)
def test_sql_and_python_agree(tpch: Tpch, arguments: dict[str, int]) -> None:
    """Every sum that SQL takes over the source tables is the sum over the plan, to the cent."""
    plan = tpch.draw(**arguments, run=RUN)
    expected = tpch.expected()
    shipped: Counter[str] = Counter()
    for order in plan.orders:
        good = order.fate is Fate.GOOD
        units = sum(line.quantity for line in order.lines)
        total = sum(line.quantity * line.unit_price.minor_units for line in order.lines)
        assert expected.orders[order.number].fate is order.fate
        assert expected.orders[order.number].total == total
        assert expected.orders[order.number].captured == (total if good else 0)
        assert expected.orders[order.number].shipped == (units if good else 0)
        if good:
            shipped.update({line.sku: line.quantity for line in order.lines})
    must = expected.orders.values()
    assert expected.total == sum(order.total for order in must)
    assert expected.captured == sum(order.captured for order in must)
    assert expected.shipped == sum(order.shipped for order in must) == shipped.total()
    assert expected.ending == {fate: sum(o.fate is fate for o in plan.orders) for fate in Fate}
    assert expected.remaining == {
        product.sku: product.on_hand - shipped[product.sku] for product in plan.products
    }


@many
@given(draws)
def test_exactly_the_short_orders_lack_stock(tpch: Tpch, arguments: dict[str, int]) -> None:
    """A short order lacks one unit of a product nobody else orders; all others have plenty."""
    plan = tpch.draw(**arguments, run=RUN)
    on_hand = {product.sku: product.on_hand for product in plan.products}
    ordered_by: dict[str, list[int]] = {}
    needed: Counter[str] = Counter()
    for order in plan.orders:
        for line in order.lines:
            ordered_by.setdefault(line.sku, []).append(order.number)
            needed[line.sku] += line.quantity
    for order in plan.orders:
        lacking = [line for line in order.lines if needed[line.sku] > on_hand[line.sku]]
        assert len(lacking) == (order.fate is Fate.SHORT)
        for line in lacking:
            assert ordered_by[line.sku] == [order.number]
            assert on_hand[line.sku] == line.quantity - 1
    plenty = [sku for sku in on_hand if on_hand[sku] > needed[sku]]
    assert all(on_hand[sku] == needed[sku] + MARGIN for sku in plenty)


def test_a_draw_is_repeatable(tpch: Tpch) -> None:
    """The same seed draws the same orders on a new database; another seed draws others."""
    plan = draw(tpch)
    with Tpch(0.01) as other:
        assert draw(other) == plan
    assert draw(tpch, seed=2) != plan


def test_runs_do_not_share_names(tpch: Tpch) -> None:
    """Two runs use different SKUs and e-mail addresses, so a shop with a past can be used."""
    first = draw(tpch)
    second = tpch.draw(200, declined=5, short=5, seed=1, run="e5f6")
    assert {w.sku for w in first.products}.isdisjoint(w.sku for w in second.products)
    emails = [{buyer.email for buyer in plan.buyers.values()} for plan in (first, second)]
    assert emails[0].isdisjoint(emails[1])


def test_parts_ordered_twice_are_merged(tpch: Tpch) -> None:
    """An order that has a part in two lines, as some of TPC-H have, gets one line for it."""
    plan = tpch.draw(5_000, declined=0, short=0, seed=1, run=RUN)
    largest = max(line.quantity for order in plan.orders for line in order.lines)
    assert largest > 50, "a line of TPC-H has 50 units at most"
    for order in plan.orders:
        assert len({line.sku for line in order.lines}) == len(order.lines)
    assert sum(line.quantity for o in plan.orders for line in o.lines) == tpch.expected().shipped


def test_requests_satisfy_the_contract(tpch: Tpch) -> None:
    """Customers, products and orders made of TPC-H obey the validation rules of the contract."""
    plan = draw(tpch, 2_000)
    for request in (*plan.buyers.values(), *plan.products):
        protovalidate.validate(request)
    for order in plan.orders[:200]:
        protovalidate.validate(
            CreateOrderRequest(
                customer_id="01980000-0000-7000-8000-000000000000",
                items=order.lines,
                card_token="tok_good",
                ship_to=plan.buyers[order.custkey].address,
            )
        )


@pytest.mark.parametrize(("count", "enough"), [(30_000, 0.02), (15_001, 0.011)])
def test_too_many_orders(tpch: Tpch, count: int, enough: float) -> None:
    """More orders than TPC-H has at this size is an error that names a size that has them."""
    with pytest.raises(CommandError, match=rf"only 15000 orders .* --scale-factor {enough} "):
        draw(tpch, count)
    with Tpch(enough) as larger, pytest.raises(CommandError) as refused:
        draw(larger, 10**6)
    has = int(str(refused.value).split(" orders")[0].split()[-1])
    assert count <= has < count + 1_500


def test_shares_beyond_the_whole(tpch: Tpch) -> None:
    """Declined and short orders together cannot be more than all."""
    with pytest.raises(CommandError, match="100 %"):
        tpch.draw(10, declined=60, short=60, seed=1, run=RUN)


@pytest.mark.parametrize("missing", ["duckdb", "duckdb_extension_tpch"])
def test_missing_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional packages the user is told what to install."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CommandError, match=rf"{missing}.*pip install 'accord-shop\[replay\]'"):
        Tpch()
