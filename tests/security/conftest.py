"""Shops with certificates: elsewhere tests go without."""

from collections.abc import Iterator

import pytest

from tests.security.shop import SecureShop, secure_shop


@pytest.fixture(autouse=True, scope="package")
def with_certificates() -> Iterator[None]:
    """What `tests/conftest.py` says does not hold here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MESH_INSECURE")
        yield


@pytest.fixture(scope="package")
def shop(with_certificates: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureShop]:
    """A shop with the certificates that it makes by itself."""
    with secure_shop(tmp_path_factory.mktemp("secure") / "home") as shop:
        yield shop
