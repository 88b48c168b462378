"""What axe finds on pages of the console: nothing serious or critical, in either theme."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.console.browser import Tab
from tests.security.shop import SecureShop
from tests.support.edge import EdgeCaller
from tools.offline_packages import NODE_MODULES, fill_node

SHIP = "shop.shipping.v1.ShippingService/CreateShipment"
GET = "shop.orders.v1.OrderService/GetOrder"

JUDGE = """
axe.run().then(({ violations }) => violations
  .filter(({ impact }) => ['serious', 'critical'].includes(impact))
  .map(({ id, nodes }) => [id, nodes.map((one) => one.html.slice(0, 200))]))
"""


@pytest.fixture
def held_up(shop: SecureShop) -> Iterator[None]:
    """Shipments fail, so that there is work that waits."""
    options = ("--abort", "UNAVAILABLE", "--for", "10m", "--reason", "a carrier that is away")
    shop.say("fault", "inject", SHIP, *options)
    yield
    shop.say("fault", "clear", SHIP, "--reason", "it is back")


async def judged(tab: Tab) -> list[str]:
    """What axe complains of on the open page, all of it unfolded, in the light and in the dark."""
    await tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    await tab.run(await asyncio.to_thread((NODE_MODULES / "axe-core/axe.min.js").read_text))
    found = []
    for dark in (False, True):
        await tab.look(1280, dark=dark)
        where = await tab.run("location.pathname")
        found += [f"{where} {dark=} {each}" for each in await tab.run(JUDGE)]
    return found


async def test_pages(tab: Tab, base: str, operator: EdgeCaller, held_up: None) -> None:
    """Of each kind one: those of the navigation, what they lead to, and what forms answer."""
    await asyncio.to_thread(fill_node)
    order = operator.place("tea")
    await tab.open(f"{base}/work?state=ready&error=UNAVAILABLE")
    await tab.until(
        "!!document.querySelector('#work a') && !!document.querySelector('#sagas a')", 60
    )
    found = await judged(tab)
    links = "['#work', '#sagas'].map((of) => document.querySelector(`${of} a`).href)"
    item, saga = await tab.run(links)
    for page in (
        f"{base}/",
        f"{base}/orders",
        f"{base}/orders/{order}",
        saga,
        f"{base}/login",
        item,
    ):
        await tab.open(page)
        found += await judged(tab)
    await tab.click(".acts a")
    await tab.until("document.querySelector('h1')?.textContent.startsWith('Try again')")
    found += await judged(tab)
    await tab.open(f"{base}/method/{GET}")
    found += await judged(tab)
    await tab.fill("[name='f.order_id']", order)
    await tab.press("Call")
    await tab.until("!!document.querySelector('pre')")
    found += await judged(tab)
    await tab.open(f"{base}/nowhere")
    found += await judged(tab)
    tab.problems.clear()  # the status of that page
    assert found == []
