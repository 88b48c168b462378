"""Fixtures of the tests of the replay."""

from collections.abc import Iterator

import pytest

from shopctl.replay.tpch import Tpch


@pytest.fixture(scope="module")
def tpch() -> Iterator[Tpch]:
    """TPC-H at the size that the command uses; every test draws its own orders."""
    with Tpch(0.01) as tpch:
        yield tpch
