"""The order, customer and product commands, against the shop itself."""

import json
import os
import signal
import subprocess
from typing import Any, get_args

import pytest

from shop.orders.v1.orders_pb2 import Order, OrderStatus
from shopctl.commands.order import ENDED_BADLY, Status, check_outcome
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import enum_name
from shopctl.supervisor import hints
from tests.shopctl.support.shop import SHOPCTL, Shop
from tests.support.wait import DEADLINE, until_sync

ADDRESS = ("--street", "Weg 1", "--city", "Berlin", "--country", "DE")


@pytest.fixture(scope="module")
def customer(real_shop: Shop) -> str:
    """A customer with an address, and tea on the shelf."""
    real_shop.run("product", "put", "tea", "--price", "4.50", "--stock", "1000")
    return output(
        real_shop,
        *("customer", "create", "--id", "--name", "Ada", "--email", "ada@example.com", *ADDRESS),
    ).strip()


def output(shop: Shop, *arguments: str, code: ExitCode = ExitCode.OK) -> str:
    result = shop.run(*arguments)
    assert result.returncode == code, result.stderr
    return result.stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def place(shop: Shop, customer: str, *arguments: str, item: str = "tea:2") -> str:
    return output(
        shop, "order", "place", "--id", "--customer", customer, "--item", item, *arguments
    ).strip()


def test_a_choreographed_order_says_that_it_is_one(real_shop: Shop, customer: str) -> None:
    """It ends as others do; who looks for its saga is told why there is none."""
    order = place(real_shop, customer, "--watch", "--fulfilment", "choreographed").split()[0]
    assert "CONFIRMED" in output(real_shop, "order", "get", order)
    (read,) = objects(output(real_shop, "order", "get", order, "--json"))
    assert read["fulfilment"] == "FULFILMENT_CHOREOGRAPHED"
    assert "choreographed" in output(real_shop, "order", "get", order).lower()
    refused = real_shop.run("saga", "show", order)
    assert refused.returncode == ExitCode.REFUSED
    assert f"order {order} is choreographed" in refused.stderr


def test_an_order_from_basket_to_door(real_shop: Shop, customer: str) -> None:
    """What is placed can be followed to its end, read and listed."""
    order = place(real_shop, customer)
    updates = objects(output(real_shop, "order", "watch", order, "--json"))
    assert [int(update["sequence"]) for update in updates] == list(range(1, len(updates) + 1))
    assert updates[-1]["status"] == "ORDER_STATUS_CONFIRMED"

    (read,) = objects(output(real_shop, "order", "get", order, "--json"))
    assert read["total"] == {"minor_units": "900", "currency_code": "EUR"}
    assert read["ship_to"]["line1"] == "Weg 1"
    listed = objects(output(real_shop, "order", "list", "--customer", customer, "--json"))
    assert order in {row["order_id"] for row in listed}
    assert "CONFIRMED" in output(real_shop, "order", "list", "--status", "confirmed")

    (then,) = objects(output(real_shop, "order", "get", order, "--at", "3", "--json"))
    assert (then["status"], then["sequence"]) == ("ORDER_STATUS_PAID", "3")
    moment = updates[0]["occurred_at"]
    (first,) = objects(output(real_shop, "order", "get", order, "--at", moment, "--json"))
    assert first["created_at"] == first["updated_at"] == moment
    output(real_shop, "order", "get", order, "--at", "99", code=ExitCode.REFUSED)
    output(real_shop, "order", "get", order, "--at", "yesterday", code=ExitCode.USAGE)
    assert not objects(
        output(real_shop, "order", "watch", order, "--after", str(len(updates)), "--json")
    )


def test_a_repeat_with_the_same_key_is_one_order(real_shop: Shop, customer: str) -> None:
    """`--key` makes a repeated command the same one."""
    first = place(real_shop, customer, "--key", "once")
    assert place(real_shop, customer, "--key", "once") == first


def test_a_rejected_order(real_shop: Shop, customer: str) -> None:
    """A price that is not the shop's is refused: the order is printed, the exit code is 5."""
    result = real_shop.run("order", "place", "--customer", customer, "--item", "tea:1:0.01")
    assert result.returncode == ExitCode.REFUSED
    assert "REJECTED" in result.stdout
    assert "PRICE_CHANGED" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_declined_card(real_shop: Shop, customer: str) -> None:
    """`place --watch` shows every update, and ends with the order's own end."""
    result = real_shop.run(
        *("order", "place", "--customer", customer, "--item", "tea", "--watch", "--json"),
        *("--card", "tok_declined"),
    )
    assert result.returncode == ExitCode.REFUSED
    placed, *updates = objects(result.stdout)
    assert placed["status"] == "ORDER_STATUS_CREATED"
    assert [int(update["sequence"]) for update in updates] == list(range(1, len(updates) + 1))
    assert updates[-1]["status"] == "ORDER_STATUS_FAILED"
    assert updates[-1]["failure"]["reason"] == "FAILURE_REASON_CARD_DECLINED"


def test_cancel(real_shop: Shop, customer: str) -> None:
    """An order whose payment takes its time can be cancelled, once."""
    order = place(real_shop, customer, "--card", "tok_slow")
    assert "UNDOING" in output(real_shop, "order", "cancel", order, "--reason", "no tea time")
    assert "CANCELLED" in output(real_shop, "order", "watch", order, code=ExitCode.REFUSED)
    again = real_shop.run("order", "cancel", order)
    assert again.returncode == ExitCode.REFUSED
    assert "ORDER_ENDED" in again.stderr


def test_watch_survives_a_restart(real_shop: Shop, customer: str) -> None:
    """The orders service is killed under a watch, which goes on without gap or repeat."""
    order = place(real_shop, customer, "--card", "tok_slow")
    watch = subprocess.Popen(
        [*SHOPCTL, "order", "watch", order, "--json"],
        cwd=real_shop.folder,
        env=real_shop.environment(),
        stdout=subprocess.PIPE,
        bufsize=0,  # what is read ahead of a line would be lost to `communicate`
    )
    assert watch.stdout is not None
    first = json.loads(watch.stdout.readline())
    killed = real_shop.row("orders")["pid"]
    os.kill(killed, signal.SIGKILL)
    rest, _ = watch.communicate(timeout=DEADLINE)
    assert watch.returncode == ExitCode.OK
    updates = [first, *objects(rest.decode())]
    assert [int(update["sequence"]) for update in updates] == list(range(1, len(updates) + 1))
    assert updates[-1]["status"] == "ORDER_STATUS_CONFIRMED"
    until_sync(lambda: real_shop.row("orders")["state"] == "serving", "orders to serve again")
    assert real_shop.row("orders")["pid"] != killed


def test_customers_and_products(real_shop: Shop, customer: str) -> None:
    """What was put in comes out again."""
    assert "Ada" in output(real_shop, "customer", "get", customer)
    assert customer in output(real_shop, "customer", "list")
    products = objects(output(real_shop, "product", "list", "--json"))
    (tea,) = [product for product in products if product["sku"] == "tea"]
    assert tea["price"] == {"minor_units": "450", "currency_code": "EUR"}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("order", "get", "x"), ExitCode.REFUSED, "order_id"),
        (
            ("order", "get", "00000000-0000-7000-8000-000000000000"),
            ExitCode.REFUSED,
            "NOT_FOUND",
        ),
        (
            ("customer", "create", "--name", "A", "--email", "ADA@example.com"),
            ExitCode.REFUSED,
            "EMAIL_TAKEN",
        ),
        (("product", "put", "tea", "--price", "1.999", "--stock", "1"), ExitCode.USAGE, "price"),
        (("order", "place", "--customer", "c", "--item", "tea:x"), ExitCode.USAGE, "SKU:QTY"),
    ],
)
@pytest.mark.usefixtures("customer")
def test_refusals_are_one_line(
    real_shop: Shop, arguments: tuple[str, ...], code: ExitCode, text: str
) -> None:
    """Every failure is one line on standard error that names the reason, and nothing else."""
    result = real_shop.run(*arguments)
    assert result.returncode == code
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_nobody_there(shop: Shop) -> None:
    """Without a shop, a command says where it looked and ends with 4."""
    result = shop.run("order", "list")
    assert result.returncode == ExitCode.NOT_RUNNING
    assert f"127.0.0.1:{9051 + shop.offset}" in result.stderr


def test_an_empty_home_is_no_shop(shop: Shop) -> None:
    """Without `--port-offset` a home in which nothing runs never means the usual ports."""
    result = shop.run("order", "list", env={"MESH_PORT_OFFSET": ""})
    assert result.returncode == ExitCode.NOT_RUNNING
    assert "nothing runs in" in result.stderr


def test_hints_can_be_pasted(real_shop: Shop) -> None:
    """The commands that `up` prints work, in that order, in a shell; the order is confirmed."""
    text = hints.text(real_shop.home, real_shop.offset)
    commands = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    environment = real_shop.environment()
    del environment["MESH_PORT_OFFSET"]  # the hints must not depend on it
    result = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "OrderConfirmed        CONFIRMED" in result.stdout
    # The first order is listed by `shopctl curl`, the second one streamed by grpcurl.
    assert result.stdout.count('"status": "ORDER_STATUS_CONFIRMED"') == 2


def test_the_state_is_for_its_user_alone(real_shop: Shop) -> None:
    """Nobody else may read a database, a mail, a log or what the broker keeps."""
    found = [real_shop.home, *real_shop.home.rglob("*")]
    names = {path.name for path in found}
    assert {"orders.db", "orders.db-wal", "mails", "orders.log", "ORDERS"} <= names
    assert not [path for path in found if path.exists() and path.stat().st_mode & 0o077]


def test_every_status_of_the_contract_can_be_asked_for() -> None:
    """`order list --status` knows the states of the contract, all of them and no other."""
    known = {
        name.removeprefix("ORDER_STATUS_").lower() for name in OrderStatus.DESCRIPTOR.values_by_name
    }
    assert set(get_args(Status)) == known - {"unspecified"}


def test_outcome() -> None:
    """An order that ended badly ends the command with 5; one that stands does not."""
    check_outcome(Order(status=OrderStatus.ORDER_STATUS_CONFIRMED))
    check_outcome(Order(status=OrderStatus.ORDER_STATUS_CREATED))
    for status in ENDED_BADLY:
        with pytest.raises(CommandError) as caught:
            check_outcome(Order(order_id="o", status=status))
        assert caught.value.code is ExitCode.REFUSED


def test_a_status_of_a_newer_version_is_shown() -> None:
    """A number that this version does not know is printed, not refused."""
    order = Order.FromString(b"\x18\x63")  # field 3, value 99
    assert enum_name(OrderStatus.items(), order.status) == "99"
