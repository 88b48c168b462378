"""A running shop's edge, as callers from outside reach it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from accord_runtime.grpc.ids import uuid7
from services import topology
from shopctl import issuer
from tests.support.wait import DEADLINE

ADDRESS = {"name": "Ada", "line1": "Main 1", "city": "Town", "countryCode": "DE"}


def order_of(customer_id: str, sku: str) -> dict[str, Any]:
    """The request for an order of one piece, as JSON."""
    price = {"minorUnits": "450", "currencyCode": "EUR"}
    return {
        "customerId": customer_id,
        "items": [{"sku": sku, "quantity": 1, "unitPrice": price}],
        "cardToken": "tok_visa",
        "shipTo": ADDRESS,
    }


class EdgeCaller:
    """Somebody outside, with a token or without one."""

    def __init__(self, home: Path, offset: int, token: str = "") -> None:
        self._home, self._offset = home, offset
        self.url = f"http://{topology.address(topology.EDGE, offset)}"
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(
            base_url=self.url, headers=headers, timeout=DEADLINE, trust_env=False
        )

    def with_token(self, token: str) -> "EdgeCaller":
        """The same edge, called with a bearer token."""
        return EdgeCaller(self._home, self._offset, token)

    def customer(self, customer_id: str, **claims: Any) -> "EdgeCaller":
        """A customer of the shop."""
        return self.with_token(self.token_of(customer_id, **claims))

    def token_of(self, customer_id: str, **claims: Any) -> str:
        """A bearer token of a customer of the shop."""
        return issuer.issue(self._home, customer_id, ["customer"], **claims)

    def operator(self) -> "EdgeCaller":
        """Somebody of the staff."""
        return self.with_token(issuer.issue(self._home, "op", ["operator"]))

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.http.get(path, params=query or None)

    def post(self, path: str, body: Mapping[str, Any], key: str = "") -> httpx.Response:
        """With an idempotency key, a new one unless it is given."""
        return self.http.post(path, json=body, headers={"idempotency-key": key or uuid7()})

    def new_customer(self) -> str:
        """Creates one; returns its id."""
        made = self.post("/v1/customers", {"name": "Ada", "email": f"{uuid7()}@example.com"})
        assert made.status_code == 200, made.text
        customer_id: str = made.json()["customer"]["customerId"]
        return customer_id

    def order(self, customer_id: str, sku: str, key: str = "") -> httpx.Response:
        """Places an order of one piece."""
        return self.post("/v1/orders", order_of(customer_id, sku), key)

    def place(self, sku: str) -> str:
        """Places an order of a new customer; returns its id."""
        answer = self.order(self.new_customer(), sku)
        assert answer.status_code == 200, answer.text
        order_id: str = answer.json()["order"]["orderId"]
        return order_id

    def events(self, path: str, last: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and messages of a stream of server-sent events, until it ends."""
        headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
        with self.http.stream("GET", path, headers=headers) as response:
            assert response.status_code == 200, response.read()
            event: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(":")
                if line:
                    event[name] = value.removeprefix(" ")
                elif event:
                    if "data" in event and event.get("event", "message") == "message":
                        yield event.get("id", ""), json.loads(event["data"])
                    event = {}


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and reason of what was refused, which is problem JSON."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = answer.json()
    assert found["status"] == answer.status_code
    return answer.status_code, found.get("reason", "")
