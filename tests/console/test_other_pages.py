"""A page of another origin buys at the edge, in a real browser; the console shows the order."""

import json

import pytest

from tests.console.browser import Tab
from tests.security import clients
from tests.security.shop import SecureShop


async def bought(tab: Tab, origin: str, client: str, given: clients.Json) -> clients.Json:
    """What a client reports that runs in a page of that origin."""
    await tab.open(f"{origin}/")
    return await tab.run(f"import('./{client}').then(({{ buy }}) => buy({json.dumps(given)}))")


async def test_connect_web(tab: Tab, base: str, origin: str, shop: SecureShop) -> None:
    """By gRPC-Web it orders and watches; the order that it was told of is in the console."""
    found = await bought(tab, origin, "grpc_web.mjs", clients.purchase(shop, "tea"))
    clients.check(found)
    clients.check_typed_errors(found)
    await tab.open(f"{base}/orders")
    await tab.click(f"a[href$='{found['orderId']}']")
    await tab.until("document.querySelector('#order dd')?.innerText.includes('confirmed')")


async def test_fetch(tab: Tab, origin: str, shop: SecureShop) -> None:
    """By REST, too: answers, events and problems may be read."""
    found = await bought(tab, origin, "rest.mjs", clients.purchase(shop, "tea"))
    clients.check(found)
    clients.check_problems(found)
    tab.problems.clear()  # the statuses of what is refused


async def test_a_page_that_is_not_known(tab: Tab, origin: str, shop: SecureShop) -> None:
    """Of an origin that the edge was not told of nothing is let through, and nothing ordered."""
    stranger = origin.replace("127.0.0.1", "localhost")
    given = clients.purchase(shop, "tea")
    with pytest.raises(AssertionError, match="Failed to fetch"):
        await bought(tab, stranger, "rest.mjs", given)
    tab.problems.clear()
