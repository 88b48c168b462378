"""A shop at which something goes wrong, with its orders and what it says of itself."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults import summary
from tests.faults.orders import Orders, orders
from tests.faults.processes import Shop, running_shop
from tests.faults.scale import ALL
from tests.faults.watch import Watch, watching


@dataclass(frozen=True, slots=True)
class Scene:
    """What a test has to do with."""

    shop: Shop
    orders: Orders
    watch: Watch


class Fault(Protocol):
    """Makes the scene of a fault, and reports on it at the end of the block."""

    def __call__(
        self,
        name: str,
        count: int,
        *,
        home: Path | None = None,
        by_hand: Collection[str] = (),
        database_url: str | None = None,
        environment: Mapping[str, str] | None = None,
        email: str = "",
        others: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Scene]: ...


@pytest.fixture
def fault(tmp_path: Path, record_property: Callable[[str, object], None]) -> Fault:
    """See `Fault`."""

    @asynccontextmanager
    async def scene(
        name: str,
        count: int,
        *,
        home: Path | None = None,
        by_hand: Collection[str] = (),
        database_url: str | None = None,
        environment: Mapping[str, str] | None = None,
        email: str = "",
        others: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Scene]:
        async with running_shop(
            home or tmp_path / "mesh",
            by_hand=by_hand,
            database_url=database_url,
            environment=environment,
        ) as shop:
            try:
                async with (
                    orders(shop, count, email=email) as placed,
                    watching(shop, others) as watch,
                ):
                    try:
                        yield Scene(shop, placed, watch)
                    finally:
                        record_property(summary.KEY, watch.report(name))
            except BaseException:
                print(shop.story())
                raise

    return scene


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves to `make faults` what CI has no time for."""
    if ALL:
        return
    left = [item for item in items if item.get_closest_marker("full") is not None]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
