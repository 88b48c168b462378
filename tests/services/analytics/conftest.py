"""Analytics as a process of its own, behind a broker and the record of the orders."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from accord_runtime.service import Runtime
from shop.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from tests.support.nats import nats_server
from tests.support.shop import Shop, running_shop


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The orders and a broker: events are written into their record by the test."""
    async with nats_server() as broker:
        monkeypatch.setenv("NATS_URL", broker.url)
        async with running_shop(tmp_path, "orders", nats_url=broker.url) as shop:
            yield shop


@pytest.fixture
def orders(shop: Shop) -> Runtime:
    """The orders' process."""
    return shop.runtimes["orders"]


@pytest.fixture
def stub(shop: Shop) -> AnalyticsServiceStub:
    """Analytics, through accord's interceptors."""
    return AnalyticsServiceStub(shop.channel("analytics"))
