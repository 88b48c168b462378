"""The way of an outside caller through the whole shop, with certificates."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from shopctl.supervisor.health import proportional_bytes
from tests.security.shop import SecureShop
from tests.support.edge import EdgeCaller, problem
from tests.support.wait import until_sync


@pytest.fixture(scope="module")
def outside(shop: SecureShop) -> EdgeCaller:
    """Somebody without a token."""
    shop.say("product", "put", "cup", "--price", "4.50", "--stock", "1000")
    return EdgeCaller(shop.home, shop.mesh.offset)


@pytest.fixture
def ada(outside: EdgeCaller) -> EdgeCaller:
    """A new customer, with a token."""
    return outside.customer(outside.new_customer())


def me(caller: EdgeCaller) -> str:
    """The customer of a caller's token."""
    token = caller.http.headers["authorization"].removeprefix("Bearer ")
    subject: str = jwt.decode(token, options={"verify_signature": False})["sub"]
    return subject


def placed(caller: EdgeCaller) -> str:
    """The id of a new order."""
    answer = caller.order(me(caller), "cup")
    assert answer.status_code == 200, answer.text
    order_id: str = answer.json()["order"]["orderId"]
    return order_id


def test_an_order_is_watched_until_it_is_confirmed(ada: EdgeCaller) -> None:
    """All updates come in order, each with its number, and a reader goes on where it was."""
    order = placed(ada)
    path = f"/v1/orders/{order}/updates"
    updates = list(ada.events(path))
    assert [number for number, _ in updates] == ["1", "2", "3", "4", "5", "6"]
    assert updates[-1][1]["status"] == "ORDER_STATUS_CONFIRMED"
    assert [number for number, _ in ada.events(path, last="4")] == ["5", "6"]
    found = ada.get(f"/v1/orders/{order}").json()["order"]
    assert (found["orderId"], found["customerId"]) == (order, me(ada))
    assert ada.get(f"/v1/customers/{me(ada)}").json()["customer"]["name"] == "Ada"


def test_a_request_that_is_repeated_has_one_effect(ada: EdgeCaller) -> None:
    """The same key gets the same order; another body under it is refused."""
    first = ada.order(me(ada), "cup", key="a-key-of-mine")
    again = ada.order(me(ada), "cup", key="a-key-of-mine")
    assert first.json() == again.json()
    assert problem(ada.order(me(ada), "other", key="a-key-of-mine"))[0] in (400, 409)
    assert len(ada.get("/v1/orders").json()["orders"]) == 1


def test_an_order_is_cancelled(ada: EdgeCaller) -> None:
    """By the verb at the end of its path: it is cancelled, or it is too late, and that is said."""
    order = placed(ada)
    answer = ada.post(f"/v1/orders/{order}:cancel", {"reason": "changed my mind"})
    if answer.status_code == 200:
        assert answer.json()["order"]["orderId"] == order
    else:
        assert problem(answer)[1] in ("TOO_LATE", "ORDER_ENDED")


def test_a_customer_sees_and_does_what_is_theirs(outside: EdgeCaller, ada: EdgeCaller) -> None:
    """Another's order, updates and customer are as if they were not there; the staff sees all."""
    order, max_ = placed(ada), outside.customer(outside.new_customer())
    assert max_.get("/v1/orders").json()["orders"] == []
    assert max_.get("/v1/orders", customer_id=me(ada)).json()["orders"] == []
    for path in (f"/v1/orders/{order}", f"/v1/orders/{order}/updates", f"/v1/customers/{me(ada)}"):
        assert problem(max_.get(path))[0] == 404, path
    assert problem(max_.post(f"/v1/orders/{order}:cancel", {}))[0] == 404
    assert problem(max_.order(me(ada), "cup")) == (400, "UNKNOWN_CUSTOMER")
    assert [each["orderId"] for each in ada.get("/v1/orders").json()["orders"]] == [order]
    operator = outside.operator()
    assert operator.get(f"/v1/orders/{order}").status_code == 200
    listed = operator.get("/v1/orders", customerId=me(ada)).json()["orders"]
    assert [each["orderId"] for each in listed] == [order]


def test_a_token_has_to_be_good_and_to_permit_it(
    shop: SecureShop, outside: EdgeCaller, ada: EdgeCaller, tmp_path: Path
) -> None:
    """Without one 401, with one that is not to be believed 401 and why, without the scope 403."""
    assert problem(outside.get("/v1/orders"))[0] == 401
    token = ada.http.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    key = (shop.home / "edge" / "issuer.key").read_text()

    def signed(**changes: Any) -> str:
        return jwt.encode({**claims, **changes}, key, "ES256", headers={"kid": kid})

    bad = {
        "TOKEN_EXPIRED": signed(exp=int(time.time()) - 60),
        "TOKEN_AUDIENCE": signed(aud="another"),
        "TOKEN_ISSUER": signed(iss="https://evil.example"),
        "TOKEN_ALGORITHM": jwt.encode(claims, "", "none", headers={"kid": kid}),
        "TOKEN_KEY": jwt.encode(claims, key, "ES256", headers={"kid": "another"}),
        "TOKEN_SIGNATURE": token[:-8] + "AAAAAAAA",
        "TOKEN_MALFORMED": "garbage",
    }
    for reason, text in bad.items():
        answer = outside.with_token(text).get("/v1/orders")
        assert problem(answer) == (401, reason)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    inside = shop.say("token", "--internal", "--customer", me(ada))
    assert outside.with_token(inside).get("/v1/orders").status_code == 401
    readonly = outside.customer(me(ada), scopes=["orders:read"])
    assert readonly.get("/v1/orders").status_code == 200
    assert problem(readonly.order(me(ada), "cup")) == (403, "INSUFFICIENT_SCOPE")


def test_nobody_gets_inside_by_another_way(outside: EdgeCaller, ada: EdgeCaller) -> None:
    """An RPC without a route is not there, one with a route wants its token there, too."""

    def status(caller: EdgeCaller, rpc: str) -> str:
        kind = {"content-type": "application/grpc-web+proto"}
        answer = caller.http.post(f"/{rpc}", content=b"\0\0\0\0\0", headers=kind)
        found = re.search(r"grpc-status: ?(\d+)", answer.text)
        assert found is not None, answer.content
        return found[1]

    for rpc in (
        "shop.payments.v1.PaymentService/Refund",
        "shop.orders.v1.OrderService/GetPaymentInstruction",
        "accord.ops.v1.MeshService/GetState",
    ):
        assert status(ada, rpc) == "12"
    assert status(ada, "shop.orders.v1.OrderService/ListOrders") == "0"
    assert status(outside, "shop.orders.v1.OrderService/ListOrders") == "16"
    forged = outside.http.get("/v1/orders", headers={"accord-user": "anything"})
    assert forged.status_code == 401


def test_too_much_of_one_caller_is_refused(outside: EdgeCaller, ada: EdgeCaller) -> None:
    """The contract's rate holds for each user: 429 with Retry-After, and others are served."""
    answers: list[httpx.Response] = []

    def refused() -> bool:
        answers.append(ada.post("/v1/orders", {}))
        return answers[-1].status_code == 429

    until_sync(refused, "the limit of 50 at once")
    assert len(answers) > 50
    assert problem(answers[-1]) == (429, "RATE_LIMITED")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert outside.customer(outside.new_customer()).post("/v1/orders", {}).status_code == 400


def test_keys_and_certificates_are_replaced_under_callers(
    shop: SecureShop, ada: EdgeCaller, outside: EdgeCaller
) -> None:
    """Tokens of the old key and of the new one are believed, and calls go on with a new leaf."""
    shop.say("certs", "rotate", "edge-keys")
    shop.say("certs", "rotate", "leaf", "edge")
    assert ada.get("/v1/orders").status_code == 200
    assert outside.customer(me(ada)).get("/v1/orders").status_code == 200
    kids = json.loads((shop.home / "edge" / "jwks.json").read_text())["keys"]
    assert len({key["kid"] for key in kids}) == 2
    until_sync(lambda: outside.get("/healthz").status_code == 200, "the edge to be well")


def test_it_is_shown_with_the_others(shop: SecureShop, outside: EdgeCaller) -> None:
    """`status` has it, serving, with its memory; its certificate is renewed as all others are."""
    rows = {row["name"]: row for row in json.loads(shop.say("status", "--json"))["processes"]}
    assert rows["edge"]["state"] == "serving"
    assert f"http://{rows['edge']['address']}" == outside.url
    memory = proportional_bytes(rows["edge"]["pid"])
    assert memory is not None
    assert memory < 100 * 2**20
    assert "edge" in shop.say("certs", "show")
    assert not (shop.home / "edge.db").exists()
