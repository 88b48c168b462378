"""Any sequence of orders, undone, shipped and repeated, against a model in Python."""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from accord.errors import FailedPrecondition, ServiceError
from accord_runtime.database import Database, Tx, open_database
from services.inventory.domain import State
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1.inventory_pb2 import ReserveLine
from tests.services.inventory.support import (
    commit,
    line,
    money,
    open_store,
    release,
    reserve,
    stock,
    upsert,
)

T = TypeVar("T")

SKUS = ("a", "b", "c")
PRICES = (money(1999, "EUR"), money(2099, "EUR"))
INITIAL = 5

orders = st.sampled_from([f"o{number}" for number in range(5)])
skus = st.sampled_from(SKUS)
wanted = st.lists(
    st.builds(
        line, st.sampled_from((*SKUS, "unknown")), st.integers(1, 4), st.sampled_from(PRICES)
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda line: line.sku,
)


class _Shop(RuleBasedStateMachine):
    """Says what each request must answer, and compares the stock after each."""

    runner: ClassVar[asyncio.Runner]
    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self._price = dict.fromkeys(SKUS, PRICES[0])
        self._counted = dict.fromkeys(SKUS, INITIAL)
        """Units ever counted into the warehouse: what is there plus what was shipped."""
        self._orders: dict[str, tuple[State, list[ReserveLine]]] = {}
        self._refusals: dict[str, str] = {}
        """Order -> why its reservation was refused, for good."""
        self._run(self._empty())

    async def _empty(self) -> None:
        def clear(tx: Tx) -> None:
            for table in ("events", "reservation_line", "reservation", "product"):
                tx.execute(f"DELETE FROM {table}")

        await self.database.write(clear)
        for sku in SKUS:
            await upsert(self.database, sku, INITIAL)

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    def _answer(self, step: Coroutine[Any, Any, State]) -> str:
        try:
            return self._run(step)
        except ServiceError as error:
            return error.reason

    def _held(self, sku: str, state: State) -> int:
        return sum(
            line.quantity
            for where, held in self._orders.values()
            if where is state
            for line in held
            if line.sku == sku
        )

    def _available(self, sku: str) -> int:
        shipped, reserved = self._held(sku, State.COMMITTED), self._held(sku, State.RESERVED)
        return self._counted[sku] - shipped - reserved

    def _refusal(self, wanted: list[ReserveLine]) -> str | None:
        if any(line.sku not in SKUS for line in wanted):
            return "UNKNOWN_PRODUCT"
        if any(line.unit_price != self._price[line.sku] for line in wanted):
            return "PRICE_CHANGED"
        if any(line.quantity > self._available(line.sku) for line in wanted):
            return "OUT_OF_STOCK"
        return None

    @rule(order=orders, wanted=wanted)
    def reserve(self, order: str, wanted: list[ReserveLine]) -> None:
        expected: str | None
        match self._orders.get(order):
            case None:
                expected = self._refusal(wanted)
                self._orders[order] = State.RESERVED, wanted
                if expected is not None:
                    self._refusals[order] = expected
                    self._orders[order] = State.REJECTED, wanted
            case State.REJECTED, _:
                expected = self._refusals[order]
            case State.RELEASED, _:
                expected = "RESERVATION_CLOSED"
            case state, held:
                same = sorted(held, key=str) == sorted(wanted, key=str)
                expected = state.value if same else "INVALID_ARGUMENT"

        assert self._answer(reserve(self.database, order, wanted)) == (expected or "RESERVED")

    @rule(order=orders)
    def reserve_again(self, order: str) -> None:
        expected: str | None
        state, held = self._orders.get(order, (None, []))
        if held:
            expected = "RESERVATION_CLOSED" if state is State.RELEASED else state
            if state is State.REJECTED:
                expected = self._refusals[order]
            assert self._answer(reserve(self.database, order, held)) == expected

    @rule(order=orders)
    def release(self, order: str) -> None:
        state, held = self._orders.get(order, (None, []))
        expected = "RESERVATION_COMMITTED" if state is State.COMMITTED else "RELEASED"
        if state is not State.COMMITTED:
            self._orders[order] = State.RELEASED, held

        assert self._answer(release(self.database, order)) == expected

    @rule(order=orders)
    def commit(self, order: str) -> None:
        state, held = self._orders.get(order, (None, []))
        expected = "COMMITTED"
        if state is State.RESERVED:
            self._orders[order] = State.COMMITTED, held
        elif state is not State.COMMITTED:
            expected = "NOT_RESERVED"

        assert self._answer(commit(self.database, order)) == expected

    @rule(sku=skus, on_hand=st.integers(0, 8), price=st.sampled_from(PRICES))
    def upsert(self, sku: str, on_hand: int, price: Money) -> None:
        counting = upsert(self.database, sku, on_hand, price)
        if on_hand < self._held(sku, State.RESERVED):
            with pytest.raises(FailedPrecondition, match="orders hold"):
                self._run(counting)
        else:
            self._run(counting)
            self._counted[sku] = on_hand + self._held(sku, State.COMMITTED)
            self._price[sku] = price

    @invariant()
    def stock_adds_up(self) -> None:
        for sku, (on_hand, reserved) in self._run(stock(self.database)).items():
            assert 0 <= reserved <= on_hand
            assert reserved == self._held(sku, State.RESERVED)
            assert on_hand + self._held(sku, State.COMMITTED) == self._counted[sku]


def test_stock_adds_up_whatever_happens(database_url: str, service: str) -> None:
    """After any requests: available >= 0, stock + shipped = counted, reserved = open orders."""
    with asyncio.Runner() as runner:
        database = runner.run(open_database(database_url, service))
        shop = type("Shop", (_Shop,), {"runner": runner, "database": database})
        try:
            runner.run(open_store(database, {}))
            run_state_machine_as_test(
                shop,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            runner.run(database.close())
