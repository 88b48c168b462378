"""Takes the picture of the README: `make pictures`."""

import asyncio
import tempfile
from pathlib import Path

from tests.console.browser import CHROMIUM, browser
from tests.security.shop import secure_shop
from tests.support.edge import EdgeCaller

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
ORDERS = 30


async def take(folder: Path) -> None:
    """The mesh while orders flow."""
    with secure_shop(folder / "home") as shop:
        shop.say("product", "put", "tea", "--price", "4.50", "--stock", "1000")
        staff = EdgeCaller(shop.home, shop.mesh.offset).operator()
        async with browser(folder / "profile") as tab:
            await tab.look(1280)
            await tab.open(shop.say("console", "--print"))
            await tab.until("document.title.startsWith('Mesh')")
            customer = await asyncio.to_thread(staff.new_customer)
            for _ in range(ORDERS):
                await asyncio.to_thread(staff.order, customer, "tea")
            await tab.until("document.querySelectorAll('#topology path.arrow.good').length > 6")
            await tab.picture(FOLDER / "mesh.png")


if __name__ == "__main__":
    if not CHROMIUM:
        raise SystemExit("there is no chromium: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as scratch:
        asyncio.run(take(Path(scratch)))
    print(f"wrote {FOLDER}/mesh.png")
