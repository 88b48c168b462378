"""Clients that are not Python, and what they need to buy at the edge of a shop."""

import base64
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from accord_checks import image
from accord_checks.export.http_annotations import annotated
from accord_checks.export.resolved_contracts import ResolvedContracts
from tests.security.shop import SecureShop
from tests.support.edge import EdgeCaller, order_of

Json: TypeAlias = Any  # what JSON holds

CLIENTS: Final = Path(__file__).parent
_ROOT: Final = CLIENTS.parents[2]


@cache
def descriptors() -> str:
    """What `accord contracts export protoset --http` writes, in base64."""
    made = annotated(ResolvedContracts(image.read(str(_ROOT))))
    return base64.b64encode(made.SerializeToString()).decode()


def purchase(shop: SecureShop, sku: str) -> Json:
    """What the client of a new customer is told: the edge, a token, and what to order."""
    outside = EdgeCaller(shop.home, shop.mesh.offset)
    customer = outside.new_customer()
    return {
        "edge": outside.url,
        "token": outside.token_of(customer),
        "order": order_of(customer, sku),
        "image": descriptors(),
    }


def check(found: Json) -> None:
    """That a client has seen its order through, from the first update to the last."""
    assert [number for number, _ in found["seen"]] == [1, 2, 3, 4, 5, 6]
    assert found["seen"][-1][1] == "ORDER_STATUS_CONFIRMED"
    assert found["total"] == "450"


def check_typed_errors(found: Json) -> None:
    """That gRPC-Web's refusals have their status and their details."""
    assert found["invalid"]["code"] == "InvalidArgument"
    (violation,) = found["invalid"]["details"]["google.rpc.BadRequest"]["fieldViolations"]
    assert violation["field"] == "items"
    assert found["late"]["code"] == "FailedPrecondition"
    assert found["late"]["details"]["google.rpc.ErrorInfo"]["reason"] == "ORDER_ENDED"
    assert found["anonymous"]["code"] == "Unauthenticated"


def check_problems(found: Json) -> None:
    """That REST's refusals are problem JSON, and that its events have said that they end."""
    assert found["last"] == "end"
    for name, status, code, reason in (
        ("invalid", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("late", 400, "FAILED_PRECONDITION", "ORDER_ENDED"),
        ("anonymous", 401, "UNAUTHENTICATED", "TOKEN_MISSING"),
    ):
        answer = found[name]
        assert (answer["status"], answer["type"]) == (status, "application/problem+json")
        problem = answer["problem"]
        assert (problem["code"], problem["reason"]) == (code, reason)
