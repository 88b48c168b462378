"""Both gateways, each started once."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contracts.export.gateways.kit import Gateway, running


@pytest_asyncio.fixture(scope="package", loop_scope="package", params=["embedded", "envoy"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway, running."""
    async with running(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found
