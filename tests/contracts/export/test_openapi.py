"""The OpenAPI document, judged by its own validator, and protobuf's JSON by the schemas in it."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from google.protobuf import json_format
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from accord_checks.export import openapi
from accord_checks.export.resolved_contracts import ResolvedContracts
from shop.common.v1 import address_pb2, money_pb2
from shop.orders.v1 import orders_pb2
from tests.contracts.export import support
from tools import generate

ORDER = "/v1/orders/{order_id}"


@cache
def document() -> Mapping[str, Any]:
    """That of the shop."""
    found: Mapping[str, Any] = json.loads(openapi.export(ResolvedContracts(support.shop_image())))
    return found


def operation(verb: str, path: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document()["paths"][path][verb]
    return found


def parameters(verb: str, path: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(it["in"], it["name"]): it for it in operation(verb, path)["parameters"]}


def refused(schema: str, value: object) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    pointer = {"$ref": f"#/components/schemas/{schema}"}
    validator = Draft202012Validator({**pointer, "components": document()["components"]})
    return [error.message for error in validator.iter_errors(value)]


@pytest.mark.parametrize("name", ["shop", "foreign", "large"])
def test_the_document_is_one_of_openapi(name: str) -> None:
    """OpenAPI's own validator finds nothing wrong, also where no RPC has a route."""
    made = json.loads(openapi.export(support.all_contracts()[name], title="Any", release="1.2.3"))
    assert list(OpenAPIV31SpecValidator(made).iter_errors()) == []
    assert bool(made["paths"]) == (name == "shop")


def test_the_validator_can_say_no() -> None:
    """A parameter of the path that is not declared is found."""
    broken = json.loads(json.dumps(document()).replace('"name": "order_id"', '"name": "id"'))
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def test_the_one_that_is_served_is_that_of_the_contracts() -> None:
    """generated/shop/openapi.json has the same operations, and the version of the clients."""
    served = json.loads((generate.TARGETS["shop"] / generate.OPENAPI).read_text())
    assert served["paths"] == document()["paths"]
    assert served["info"]["title"] == "Shop"


def test_an_operation_says_what_its_contract_says() -> None:
    """Path, query, body, key, time, scopes, comments, and what may go wrong."""
    create = operation("post", "/v1/orders")
    assert create["operationId"] == "CreateOrder"
    assert create["summary"].startswith("Takes an order")
    assert "UNKNOWN_CUSTOMER" in create["description"]
    assert create["security"] == [{"bearer": ["orders:write"]}]
    assert create["requestBody"]["required"]
    assert {"200", "401", "403", "429", "503", "504", "default"} == create["responses"].keys()
    assert parameters("post", "/v1/orders")["header", "Idempotency-Key"]["required"]
    asked = parameters("get", "/v1/orders")
    assert ("query", "pageSize") in asked
    assert not asked["header", "Request-Timeout"]["required"]
    assert asked["query", "pageSize"]["schema"]["maximum"] == 500
    assert "304" in operation("get", ORDER)["responses"]
    order = parameters("get", ORDER)
    assert order["path", "order_id"]["required"]
    assert order["query", "atTime"]["schema"]["format"] == "date-time"
    cancel = operation("post", f"{ORDER}:cancel")["requestBody"]
    assert list(cancel["content"]["application/json"]["schema"]["properties"]) == ["reason"]
    assert not cancel["required"]
    assert "buf:lint" not in json.dumps(document())


def test_what_is_public_needs_no_token() -> None:
    """A public operation has no security, and is not refused for want of any."""
    product = operation("get", "/v1/products/{sku}")
    assert product["security"] == []
    assert "401" not in product["responses"]


def test_a_stream_is_of_events() -> None:
    """A server stream answers with events; one that can be resumed takes the last one's id."""
    updates = operation("get", f"{ORDER}/updates")
    ((kind, content),) = updates["responses"]["200"]["content"].items()
    assert kind == "text/event-stream"
    data = content["schema"]["oneOf"][0]["properties"]["data"]["contentSchema"]["$ref"]
    assert data == "#/components/schemas/shop.orders.v1.StreamOrderUpdatesResponse"
    assert ("header", "Last-Event-ID") in parameters("get", f"{ORDER}/updates")
    assert ("header", "Last-Event-ID") not in parameters("get", "/v1/products")


def test_requests_are_bounded_as_their_server_bounds_them() -> None:
    """A request that protobuf writes fits; what the server refuses is refused by the schema."""
    price = money_pb2.Money(currency_code="EUR", minor_units=100)
    made = orders_pb2.CreateOrderRequest(
        customer_id="0b3a7c1e-55f5-4b27-9a3d-0d3c9a1f2b44",
        items=[orders_pb2.OrderItem(sku="cup", quantity=1, unit_price=price)],
        card_token="tok_visa",
        ship_to=address_pb2.Address(
            name="A", line1="B", city="C", postal_code="1", country_code="DE"
        ),
    )
    good = json_format.MessageToDict(made)
    name = orders_pb2.CreateOrderRequest.DESCRIPTOR.full_name
    assert refused(name, good) == []
    for wrong in (
        {**good, "cardToken": "4111"},
        {**good, "items": []},
        {**good, "items": good["items"] * 101},
        {**good, "unknown": 1},
        {**good, "shipTo": {**good["shipTo"], "countryCode": "Germany"}},
        {key: value for key, value in good.items() if key != "customerId"},
        {**good, "fulfilment": "FULFILMENT_ODD"},
    ):
        assert refused(name, wrong), wrong


def test_answers_fit_with_all_their_fields() -> None:
    """What the edge answers with, all fields printed, fits; so does one with a field more."""
    order = orders_pb2.GetOrderResponse(order=orders_pb2.Order(order_id="o", sequence=7))
    said = json_format.MessageToDict(order, always_print_fields_with_no_presence=True)
    assert refused("shop.orders.v1.GetOrderResponse", {**said, "newer": 1}) == []
    assert refused("shop.orders.v1.GetOrderResponse", {"order": 7})
