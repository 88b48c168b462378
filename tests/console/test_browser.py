"""The console in a real browser, over a running shop."""

import json

import pytest

from tests.console.browser import Tab
from tests.security.shop import SecureShop
from tests.support.edge import EdgeCaller

CHARGE = "shop.payments.v1.PaymentService/Charge"
LIST = "shop.orders.v1.OrderService/ListOrders"
GET = "shop.orders.v1.OrderService/GetOrder"


async def confirm(tab: Tab, inside: str, button: str, reason: str) -> None:
    """Say why, say yes, and press the button of a form."""
    await tab.fill(f"{inside} [name=reason]", reason)
    await tab.click(f"{inside} [name=sure]")
    assert (
        await tab.run(f"document.querySelector({json.dumps(inside + ' button')}).textContent")
        == button
    )
    await tab.click(f"{inside} button")


async def test_calls_are_seen_as_they_are_made(tab: Tab, base: str, operator: EdgeCaller) -> None:
    """Without a reload the picture has who calls whom, and the table the method, which leads on."""
    await tab.until("document.getElementById('connection').textContent === '● live'")
    operator.place("tea")
    link = f"#calls a[title='{CHARGE}']"
    row = f'document.querySelector("{link}")?.closest("tr").innerText'
    assert (await tab.until(row)).split()[:2] == ["orders", "payments"]
    assert await tab.until("document.querySelectorAll('#topology path.arrow.good').length > 3")
    await tab.click(link)
    await tab.until(f"document.querySelector('h1')?.textContent === '{CHARGE}'")
    assert "timeout\t10s" in await tab.until("document.getElementById('policy')?.innerText")
    await tab.press("Its contract in the reference")
    await tab.until(f"document.getElementById('{CHARGE}')?.checkVisibility()")


async def test_a_fault_opens_the_circuit_and_is_in_the_audit_record(
    tab: Tab, base: str, operator: EdgeCaller
) -> None:
    """Injected by the form, it is seen as failing and as an open circuit; then it is ended."""
    await tab.open(f"{base}/method/{CHARGE}")
    await tab.press("Inject a fault")
    form = "form[action*='/fault/']"
    await tab.fill(f"{form} [name=abort]", "UNAVAILABLE")
    await confirm(tab, form, "Inject the fault", "to see <b>it</b> fail")
    await tab.until("document.querySelector('.notice')?.textContent.startsWith('The fault is')")
    said = await tab.until("document.querySelector('#audit tbody')?.innerText")
    assert "InjectFault" in said
    assert "to see <b>it</b> fail" in said
    assert "console for " in said
    await tab.open(f"{base}/")
    for _ in range(3):
        operator.place("tea")
    await tab.until("!!document.querySelector('#topology path.arrow.open')")
    assert "circuit open" in await tab.run("document.querySelector('#topology').textContent")
    assert "open:" in await tab.run("document.getElementById('services').innerText")
    await tab.open(f"{base}/method/{CHARGE}")
    await tab.press("End the fault")
    await confirm(tab, "form[action*='clear-fault']", "End the fault", "seen")
    await tab.until(
        "document.querySelector('.notice')?.textContent === 'There is no fault any more.'"
    )


async def test_an_override_holds_within_the_floor_and_not_below(tab: Tab, base: str) -> None:
    """What the contract refuses is said on the page; what it allows holds in all processes."""
    reserve = "shop.inventory.v1.InventoryService/ReserveStock"
    form = "form[action*='/override/']"
    for timeout, said in (("10ms", "below"), ("1500ms", "The override is in force.")):
        await tab.open(f"{base}/method/{reserve}")
        await tab.press("Override its policy")
        await tab.fill(f"{form} [name=timeout]", timeout)
        await confirm(tab, form, "Override", "a test")
        await tab.until(f"document.querySelector('main').innerText.includes({json.dumps(said)})")
    rows = "[...document.querySelectorAll('#processes tbody tr')].map((row) => row.innerText)"
    await tab.until(f"{rows}.filter((row) => row.includes('1.5 s')).length === 2")
    tab.problems.clear()  # the status of the page that says no
    await tab.press("Clear the override")
    await confirm(tab, "form[action*='clear-override']", "Clear the override", "over")
    await tab.until("document.querySelector('.notice')?.innerText.startsWith('There is no live')")


async def test_a_method_is_called_by_a_form(tab: Tab, base: str, operator: EdgeCaller) -> None:
    """Its fields are the contract's; the answer, or the error, is shown as it is."""
    order = operator.place("tea")
    await tab.open(f"{base}/method/{GET}")
    await tab.fill("[name='f.order_id']", order)
    await tab.press("Call")
    assert order in await tab.until("document.querySelector('pre')?.textContent")
    await tab.open(f"{base}/method/{GET}")
    await tab.fill("[name='f.order_id']", "01a22c40-0000-7000-8000-000000000000")
    await tab.press("Call")
    await tab.until("document.querySelector('main').innerText.includes('NOT_FOUND')")


async def test_an_order_is_a_waterfall(tab: Tab, base: str, operator: EdgeCaller) -> None:
    """Events, saga steps, mails and calls of all services, with where it waited."""
    order = operator.place("tea")
    await tab.open(f"{base}/orders")
    await tab.click(f"a[href$='{order}']")
    await tab.until("document.querySelector('#order')?.innerText.includes('mail Your order')")
    text = await tab.until("document.querySelector('#order').innerText")
    for part in ("event OrderPlaced", "step charge", "→ Capture", "waited", "confirmed"):
        assert part in text, text
    assert await tab.run("document.querySelectorAll('#order line.waited').length") > 3


async def test_work_is_tried_again_in_bulk(
    tab: Tab, base: str, shop: SecureShop, operator: EdgeCaller
) -> None:
    """What has failed is found, shown before it is done, and done for a reason."""
    ship = "shop.shipping.v1.ShippingService/CreateShipment"
    await tab.open(f"{base}/work?state=unspecified")
    # until orders of earlier tests need nothing any more, those of the test of a fault, too
    empty = "document.querySelector('#work')?.innerText.includes('No work is like this.')"
    await tab.until(empty, seconds=60)
    fault = ("--abort", "UNAVAILABLE", "--for", "10m", "--reason", "a carrier that is away")
    shop.say("fault", "inject", ship, *fault)
    orders = [operator.place("tea") for _ in range(2)]
    await tab.open(f"{base}/work?state=ready&error=UNAVAILABLE")
    await tab.until("document.querySelectorAll('#work input').length === 2", seconds=60)
    await tab.click("#work input")
    shown = await tab.run("document.getElementById('work').innerText")
    # The list is shown anew, with another age; what is ticked stays so, were it gone for a moment.
    await tab.until(
        f"document.getElementById('work').innerText !== {json.dumps(shown)}"
        " && document.querySelectorAll('#work input:checked').length === 1"
    )
    await tab.until(f"{GONE_AND_BACK.strip()} === 1")
    await tab.press("All that match")
    await tab.until("document.querySelector('h1')?.textContent === 'Try again: 2'")
    shop.say("fault", "clear", ship, "--reason", "it is back")
    await confirm(tab, "form[action$='/work/act']", "Try again: 2", "the carrier is back")
    notice = "document.querySelector('.notice')?.textContent"
    done = await tab.until(f"/^Try again: [12] done$/.test({notice}) && {notice}")
    for order in orders:
        await tab.open(f"{base}/orders/{order}")
        await tab.until("document.querySelector('#order dd')?.innerText.includes('confirmed')")
    records = shop.say("audit", "--service", "orders")
    # One that came to its next attempt meanwhile was not left to be tried.
    assert f"Try again: {records.count('the carrier is back')} done" == done
    assert "RetryWorkMatching" in records


GONE_AND_BACK = """
(() => {
const part = document.getElementById('work'), html = part.innerHTML;
replace(part, '');
replace(part, html);
return part.querySelectorAll('input:checked').length;
})()
"""
"""What is ticked after work was tried: it is not in the list while it is."""


@pytest.mark.parametrize("width", [360, 1280, 2560])
async def test_pages_fit(tab: Tab, base: str, operator: EdgeCaller, width: int) -> None:
    """Nothing is wider than the window but what can be scrolled, with the keyboard, too."""
    order = operator.place("tea")
    for path in (
        "/",
        f"/method/{CHARGE}",
        f"/method/{LIST}",
        "/work",
        "/orders",
        f"/orders/{order}",
    ):
        for dark in (False, True):
            await tab.look(width, dark=dark)
            await tab.open(base + path)
            sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            inner, outer = await tab.run(sizes)
            assert inner <= outer, path
            assert await tab.run(UNREACHABLE) == [], path
            assert await tab.run(PALE) == [], path


UNREACHABLE = """
[...document.querySelectorAll('main *')].filter((one) =>
  ['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && one.scrollWidth > one.clientWidth
  && one.tabIndex < 0 && one.tagName !== 'TEXTAREA').map((one) => one.outerHTML.slice(0, 200))
"""
"""What can be scrolled by a mouse alone."""

PALE = """
(() => {
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const part = (n) => (n /= 255) <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].filter((one) => {
    if (one.closest('svg') || !one.innerText?.trim() || !one.checkVisibility()) return false;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  }).map((one) => one.outerHTML.slice(0, 200));
})()
"""
"""Text whose contrast with what is behind it is less than WCAG 2.2, 1.4.3 wants."""


async def test_the_keyboard_is_enough(tab: Tab, base: str) -> None:
    """The first stop skips to the content; all that can be clicked or filled in has a name."""
    for path in ("/", "/work", "/orders", f"/method/{LIST}"):
        await tab.open(base + path)
        key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        await tab.do("Input.dispatchKeyEvent", type="keyDown", **key)
        assert await tab.run("document.activeElement.className") == "skip"
        nameless = await tab.run(
            "[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a')"
            "]"
            ".filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))"
            ".map((one) => one.outerHTML)"
        )
        assert nameless == [], path


async def test_a_service_that_is_away_is_said_to_be(
    tab: Tab, base: str, shop: SecureShop, operator: EdgeCaller
) -> None:
    """Since when, on the page that is open, while the others go on; and it comes back by itself."""
    cell = "document.querySelector('#service-analytics').closest('tr').innerText"
    await tab.until(f"{cell}.includes('calls at work')")
    pid = shop.mesh.kill("analytics")
    assert pid
    await tab.until(f"{cell}.includes('away since')")
    await tab.until(f"{cell}.includes('calls at work')", seconds=60)
    assert "orders" in await tab.run("document.getElementById('services').innerText")


async def test_a_console_that_is_away_is_said_to_be(tab: Tab, shop: SecureShop) -> None:
    """The page says that it is not live any more, and since when; afterwards one logs in anew."""
    connection = "document.getElementById('connection').textContent"
    await tab.until(f"{connection} === '● live'")
    shop.mesh.kill("console")
    await tab.until(
        f"{connection}.includes('disconnected since') || {connection}.includes('not live')"
    )
    shop.mesh.wait_until_serving()
    await tab.until(f"{connection}.includes('not live any more')", seconds=60)
    tab.problems.clear()  # of a connection that was refused
    await tab.open(shop.say("console", "--print"))
    await tab.until(f"{connection} === '● live'")
