"""What the edge serves beside the routes of contracts."""

import json
import pkgutil
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path

import httpx
import pytest

import accord
import shop
from accord.edge import Authenticator, KeySet
from accord.v1 import edge_pb2
from services.edge.app import App
from services.edge.routes import TARGETS
from shopctl import issuer
from tests.support.ports import free_port


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of an edge whose services are not there."""
    issuer.prepare(tmp_path)
    keys = KeySet.from_file(tmp_path / "edge" / "jwks.json")
    nobody = {name: f"127.0.0.1:{free_port()}" for name in TARGETS.values()}
    mesh = accord.Mesh("edge", targets=nobody)
    app = App(mesh, Authenticator(keys, issuer="https://shop.internal", audience="shop-edge"))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://edge"
    ) as client:
        yield client
    await app.drain()
    await mesh.close()


def test_every_route_of_the_contracts_is_served() -> None:
    """A contract of the shop that has routes stands in the table of targets."""
    found = set()
    for module in pkgutil.walk_packages(shop.__path__, "shop."):
        if module.name.endswith("_pb2"):
            for service in import_module(module.name).DESCRIPTOR.services_by_name.values():
                if any(m.GetOptions().HasExtension(edge_pb2.edge) for m in service.methods):
                    found.add(service.full_name)
    assert found <= TARGETS.keys()


async def test_the_index_names_all_routes(client: httpx.AsyncClient) -> None:
    """`/` says what there is, which RPC it is, and what a token needs."""
    answer = await client.get("/")
    found = answer.json()
    (placing,) = (each for each in found["routes"] if each["rpc"].endswith("/CreateOrder"))
    assert placing == {
        "method": "POST",
        "path": "/v1/orders",
        "rpc": "shop.orders.v1.OrderService/CreateOrder",
        "scopes": ["orders:write"],
        "public": False,
        "stream": False,
    }
    assert {"GET /v1/products/{sku}", "GET /v1/orders/{order_id}/updates"} <= {
        f"{each['method']} {each['path']}" for each in found["routes"]
    }
    assert found["links"]["openapi"] == "/openapi.json"


@pytest.mark.parametrize("path", ["/", "/healthz", "/livez", "/openapi.json", "/v1/nothing"])
async def test_headers_of_security_are_on_every_answer(
    client: httpx.AsyncClient, path: str
) -> None:
    """Nobody guesses a type, and what does not say that it may be kept is not."""
    answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in answer.headers


async def test_pages_are_read_only(client: httpx.AsyncClient) -> None:
    """Another verb is refused with those that there are."""
    answer = await client.post("/healthz")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.head("/livez")).status_code == 200


async def test_health_names_who_is_away(client: httpx.AsyncClient) -> None:
    """Without the services it cannot do its work and says so; it lives all the same."""
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "customers, inventory, orders: no answer, or not serving"
    assert (await client.get("/livez")).json() == {"status": "serving"}


async def test_the_description_is_sent_once(client: httpx.AsyncClient) -> None:
    """Who has it already gets 304; it is what was generated from the contracts."""
    answer = await client.get("/openapi.json")
    assert json.loads(answer.content)["openapi"].startswith("3.1")
    tag = answer.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await client.get("/openapi.json", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert (await client.get("/openapi.json", headers={"if-none-match": '"x"'})).status_code == 200
