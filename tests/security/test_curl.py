"""`shopctl curl`: any RPC of the contracts by somebody's certificate."""

import json
import subprocess
import sys

import pytest

from shopctl.errors import ExitCode
from tests.security.shop import SecureShop

CUSTOMER = "shop.customers.v1.CustomerService/CreateCustomer"


def test_a_call_of_one_request_and_one_answer(shop: SecureShop) -> None:
    """The answer is a line of JSON; metadata goes with it; stdin is read for `-d @`."""
    body = json.dumps({"name": "Ada", "email": "curl@example.com"})
    first = shop.say("curl", CUSTOMER, "-d", body, "-H", "idempotency-key: curl-1")
    customer = json.loads(first)["customer"]
    assert customer["name"] == "Ada"
    words = ("curl", "CustomerService/GetCustomer", "-d", "@")
    done = shop.run(*words, stdin=json.dumps({"customer_id": customer["customer_id"]}))
    assert json.loads(done.stdout)["customer"] == customer


def test_a_stream_is_a_line_a_message(shop: SecureShop) -> None:
    """Of the server's, and of the client's: several objects are several requests."""
    order = shop.order()["order_id"]
    lines = shop.say("curl", "StreamOrderUpdates", "-d", json.dumps({"order_id": order}))
    assert [json.loads(line)["sequence"] for line in lines.splitlines()] == list("123456")
    two = '{"order_id": "x"}\n {"order_id": "y"}'
    done = shop.run("curl", "OrderService/BulkUpdateOrders", "-d", two)
    assert done.returncode == ExitCode.REFUSED, done.stderr + done.stdout


def test_somebody_elses_certificate_is_shown(shop: SecureShop) -> None:
    """`--as` is for whoever has a certificate here; others are told how they get one."""
    done = shop.run("curl", "--as", "orders", "PaymentService/GetPayment")
    assert done.returncode == ExitCode.REFUSED
    assert "NOT_ALLOWED: spiffe://shop.internal/orders may not call" in done.stderr
    done = shop.run("curl", "--as", "nobody", "OrderService/ListOrders")
    assert "shopctl certs issue nobody" in done.stderr


def test_calls_are_made_for_a_customer(shop: SecureShop) -> None:
    """With an internal token a customer is seen by themselves, and by nobody else."""
    ids = []
    for name in ("eva", "max"):
        body = json.dumps({"name": name, "email": f"{name}@example.com"})
        made = shop.say("curl", CUSTOMER, "-d", body, "-H", f"idempotency-key: {name}")
        ids.append(json.loads(made)["customer"]["customer_id"])
    request = json.dumps({"customer_id": ids[0]})
    for customer, code in zip(ids, (0, ExitCode.REFUSED), strict=True):
        token = f"accord-user:{shop.say('token', '--internal', '--customer', customer)}"
        done = shop.run("curl", "CustomerService/GetCustomer", "-d", request, "-H", token)
        assert done.returncode == code, done.stderr
    done = shop.run("curl", "OrderService/ListOrders", "-H", "accord-user:garbage")
    assert done.returncode == ExitCode.REFUSED
    assert "TOKEN_MALFORMED" in done.stderr


def test_without_tls_it_is_loud_and_reaches_nobody(shop: SecureShop) -> None:
    """A shop with certificates does not answer; elsewhere than on this host it does not try."""
    done = shop.run("curl", "--insecure", "OrderService/ListOrders")
    assert "WITHOUT TLS" in done.stderr
    assert done.returncode == ExitCode.NOT_RUNNING
    elsewhere = {"MESH_TARGETS": "orders=orders.example:9051"}
    done = shop.run("curl", "--insecure", "OrderService/ListOrders", **elsewhere)
    assert "--insecure is for this host, not for orders.example:9051" in done.stderr
    assert done.returncode == ExitCode.USAGE


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["OrderService/GetOrdr"], "no method of the contracts; there is shop.orders.v1.OrderServ"),
        (["OrderService/GetOrder", "-d", '{"id": 1}'], 'no field named "id"'),
        (["OrderService/GetOrder", "-d", "{} {}"], "takes one request, not 2"),
        (["OrderService/GetOrder", "-d", "{"], "no shop.orders.v1.GetOrderRequest"),
        (["OrderService/GetOrder", "-H", "x"], "not of the form name:value"),
        (["HealthService/GetHealth"], "--through SERVICE"),
    ],
)
def test_what_cannot_be_called_is_said_before(words: list[str], says: str) -> None:
    """Without a shop: the method, the request and the metadata are looked at first."""
    command = [sys.executable, "-m", "shopctl", "curl", *words, "--port-offset", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert says in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    assert done.returncode == ExitCode.USAGE
