"""Fixtures of the tests of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shopctl.errors import ExitCode
from tests.shopctl.support.shop import Shop
from tests.support.ports import free_offset
from tests.support.wait import DEADLINE


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A folder in which `shopctl up` starts tiny services; ends what a test leaves running."""
    shop = Shop(tmp_path, free_offset(), tiny_services=True)
    yield shop
    shop.clean_up()


@pytest.fixture(scope="module")
def real_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop itself, started once for a module. It must end by itself and without complaint."""
    shop = Shop(tmp_path_factory.mktemp("shop"), free_offset(), tiny_services=False)
    try:
        process = shop.start_and_wait()
        yield shop
        process.terminate()
        assert process.wait(DEADLINE) == ExitCode.OK
        assert not shop.events("killed")
    finally:
        shop.clean_up()
