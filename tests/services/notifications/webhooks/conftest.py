"""What the tests of webhooks share."""

from collections.abc import AsyncIterator

import pytest

from tests.services.notifications.webhooks.receiver import Receiver, receiving
from tests.services.orders.conftest import shop_database as shop_database


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A subscriber that takes everything."""
    async with receiving() as found:
        yield found
