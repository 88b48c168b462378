"""Fixtures of the tests of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shopctl.support.ports import free_offset
from tests.shopctl.support.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A folder in which `shopctl up` starts tiny services; ends what a test leaves running."""
    shop = Shop(tmp_path, free_offset())
    yield shop
    shop.clean_up()
