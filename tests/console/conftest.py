"""A shop with certificates and its console, started once for all tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services import topology
from tests.console.browser import CHROMIUM, Tab, browser
from tests.console.origin import serving
from tests.security.clients import CLIENTS
from tests.security.shop import SecureShop, secure_shop
from tests.support import node
from tests.support.edge import EdgeCaller


@pytest.fixture(scope="package")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where pages are from that may call the shop's edge."""
    folder = tmp_path_factory.mktemp("origin")
    node.lay_out(folder, *CLIENTS.glob("*.mjs"))
    with serving(folder) as origin:
        yield origin


@pytest.fixture(scope="package")
def shop(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureShop]:
    """A shop with certificates, and with tea in stock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MESH_INSECURE")
        home = tmp_path_factory.mktemp("console") / "home"
        with secure_shop(home, MESH_EDGE_ORIGINS=origin) as shop:
            shop.say("product", "put", "tea", "--price", "4.50", "--stock", "1000")
            yield shop


@pytest.fixture
def base(shop: SecureShop) -> str:
    return f"http://{topology.address(topology.CONSOLE, shop.mesh.offset)}/console"


@pytest.fixture
def operator(shop: SecureShop) -> EdgeCaller:
    """Somebody of the staff who places orders."""
    return EdgeCaller(shop.home, shop.mesh.offset).operator()


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
