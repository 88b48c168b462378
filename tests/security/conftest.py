"""Shops with certificates: elsewhere tests go without."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def with_certificates() -> Iterator[None]:
    """What `tests/conftest.py` says does not hold here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MESH_INSECURE")
        yield
