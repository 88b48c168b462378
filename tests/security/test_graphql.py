"""GraphQL as an outside caller reaches it, in a shop with certificates."""

from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks, paste
from tests.security.shop import SecureShop
from tests.support.edge import EdgeCaller
from tests.support.wait import until_sync

ORDERS = """{ orders(first: 10) { nodes {
  id status customer { name } items { product { name } } shipment { units }
} } }"""

ORDER = "query ($id: ID!) { order(id: $id) { customer { name } shipment { units } } }"


@pytest.fixture(scope="module")
def outside(shop: SecureShop) -> EdgeCaller:
    """Somebody without a token."""
    shop.say("product", "put", "cup", "--price", "4.50", "--stock", "1000")
    return EdgeCaller(shop.home, shop.mesh.offset)


def ask(caller: EdgeCaller, query: str, **variables: Any) -> dict[str, Any]:
    answer = caller.http.post("/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def codes(answer: dict[str, Any]) -> set[str]:
    return {each["extensions"]["code"] for each in answer.get("errors", ())}


def test_a_customer_sees_what_is_theirs(outside: EdgeCaller) -> None:
    """One query joins four services for who may see it; another gets nothing, the staff all."""
    me = outside.new_customer()
    ada, other = outside.customer(me), outside.customer(outside.new_customer())
    placed = ada.order(me, "cup").json()["order"]["orderId"]

    def ended() -> bool:
        (node,) = ask(ada, ORDERS)["data"]["orders"]["nodes"]
        return bool(node["status"] == "CONFIRMED")

    until_sync(ended, "the order to be confirmed")
    answer = ask(ada, ORDERS)
    assert "errors" not in answer
    (node,) = answer["data"]["orders"]["nodes"]
    assert node == {
        "id": placed,
        "status": "CONFIRMED",
        "customer": {"name": "Ada"},
        "items": [{"product": {"name": "cup"}}],
        "shipment": {"units": "1"},
    }
    assert ask(other, ORDERS)["data"]["orders"]["nodes"] == []
    refused = ask(other, ORDER, id=placed)
    assert (refused["data"], codes(refused)) == ({"order": None}, {"NOT_FOUND"})
    stolen = "query ($of: [_Any!]!) { _entities(representations: $of) { ...on Customer { name } } }"
    of = [{"__typename": "Customer", "id": me}]
    assert ask(other, stolen, of=of)["data"]["_entities"] == [None]
    assert ask(ada, stolen, of=of)["data"]["_entities"] == [{"name": "Ada"}]
    seen = ask(outside.operator(), ORDER, id=placed)
    assert seen["data"]["order"] == {"customer": {"name": "Ada"}, "shipment": {"units": "1"}}


def test_without_a_token_and_with_too_little(outside: EdgeCaller) -> None:
    """Everybody sees products; the rest needs a token that permits it, and is to be believed."""
    assert ask(outside, '{ product(sku: "cup") { name } }')["data"]["product"] == {"name": "cup"}
    assert codes(ask(outside, ORDERS)) == {"UNAUTHENTICATED"}
    little = outside.customer(outside.new_customer(), scopes=["customers:read"])
    assert codes(ask(little, ORDERS)) == {"PERMISSION_DENIED"}
    forged = outside.with_token("garbage").http.post("/graphql", json={"query": "{ __typename }"})
    assert forged.status_code == 401
    assert outside.http.get("/graphql", params={"query": "{ __typename }"}).status_code == 405
    hidden = outside.http.post("/graphql", json={"query": "{ __schema { types { name } } }"})
    assert hidden.status_code == 400


def test_the_line_of_the_page(shop: SecureShop, outside: EdgeCaller) -> None:
    """What `docs/graphql.md` shows can be pasted, with the id of a customer."""
    (line,) = blocks((ROOT / "docs" / "graphql.md").read_text(), "sh")
    me = outside.new_customer()
    printed = paste(line.replace("--customer ID", f"--customer {me}"), shop.mesh)
    assert '{"data":{"orders":{"nodes":[],"next":null}}}' in printed
