"""A client of GraphQL without a network, and a door whose tokens are lists of scopes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import httpx
from starlette.types import Scope

from accord.edge.routes import Route, routes_of
from accord.errors import PermissionDenied, Unauthenticated
from services.edge.graphql.request import Metadata

SHOP: Final = ("sandbox", "customers", "inventory", "payments", "shipping", "orders")

BUYER: Final = "orders:read customers:read"
"""Scopes that open everything."""


@dataclass
class Door:
    """Believes every token, and takes it for the scopes that it permits."""

    permitted: list[str] = field(default_factory=list)
    """Methods that were asked for."""
    routes: Mapping[str, Route] = field(
        default_factory=lambda: {route.method: route for route in routes_of()}
    )

    async def caller(self, scope: Scope) -> Any:
        token = dict(scope["headers"]).get(b"authorization", b"").decode()
        if token == "Bearer forged":
            raise Unauthenticated("TOKEN_SIGNATURE", "the bearer token is not signed by its key")
        return SimpleNamespace(scopes=token.split()[1:]) if token else None

    def permit(self, scope: Scope, caller: Any, route: Route) -> None:
        self.permitted.append(route.method)
        if route.scopes and caller is None:
            raise Unauthenticated("TOKEN_MISSING", "it needs a bearer token")
        if not set(route.scopes) <= set(caller.scopes if caller else ()):
            raise PermissionDenied("INSUFFICIENT_SCOPE", f"it needs {' '.join(route.scopes)}")

    def metadata(self, scope: Scope, caller: Any) -> Metadata:
        return ()


class Client:
    """Sends requests to an app."""

    def __init__(self, app: Any, scopes: str = BUYER) -> None:
        headers = {"authorization": f"Bearer {scopes}"} if scopes else {}
        transport = httpx.ASGITransport(app)
        self.http = httpx.AsyncClient(
            transport=transport, base_url="http://edge", headers=headers, timeout=30
        )

    async def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer to a query that can be carried out."""
        answer = await self.http.post("/graphql", json={"query": query, "variables": variables})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(self, query: str, **variables: Any) -> str:
        """What is wrong with a query that is refused as a whole."""
        answer = await self.http.post("/graphql", json={"query": query, "variables": variables})
        found = answer.json()
        assert answer.status_code == 400, answer.text
        assert "data" not in found
        assert {each["extensions"]["code"] for each in found["errors"]} == {"INVALID_ARGUMENT"}
        return " / ".join(each["message"] for each in found["errors"])


def codes(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Path and code of each error of an answer."""
    return [
        (".".join(map(str, each["path"])), each["extensions"]["code"])
        for each in answer.get("errors", ())
    ]
