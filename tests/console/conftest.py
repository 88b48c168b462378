"""A shop with certificates and its console, started once for all tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.console.browser import CHROMIUM, Tab, browser
from tests.security.shop import SecureShop, secure_shop


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureShop]:
    """A shop with certificates, and with tea in stock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MESH_INSECURE")
        with secure_shop(tmp_path_factory.mktemp("console") / "home") as shop:
            shop.say("product", "put", "tea", "--price", "4.50", "--stock", "1000")
            yield shop


@pytest.fixture
async def tab(shop: SecureShop, tmp_path: Path) -> AsyncIterator[Tab]:
    """A browser that the operator has logged in with; it complains of nothing to its end."""
    if not CHROMIUM:
        pytest.skip("there is no chromium: apt-get install chromium")
    async with browser(tmp_path / "profile") as tab:
        await tab.open(shop.say("console", "--print"))
        await tab.until("document.title.startsWith('Mesh')")
        yield tab
        assert not tab.problems
