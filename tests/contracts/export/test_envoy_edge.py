"""Envoy as the edge: a real one, with the exported bootstrap, before a server of the library."""

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

import accord
from accord.identity import Identity
from accord_checks import Refused
from accord_checks.export import envoy_edge
from accord_checks.export.http_annotations import annotated
from accord_checks.export.resolved_contracts import ResolvedContracts
from shop.orders.v1 import orders_pb2, orders_pb2_grpc
from tests.accord.identity.authority import Authority
from tests.contracts.export import support
from tests.support.ports import free_port

ORDER: Final = "0b3a7c1e-55f5-4b27-9a3d-0d3c9a1f2b44"
KEY: Final = ec.generate_private_key(ec.SECP256R1())
OTHERS: Final = tuple(f"--target={name}=127.0.0.1:1" for name in ("customers", "inventory"))


class Orders(orders_pb2_grpc.OrderServiceServicer):
    """Answers, and remembers what came with the last call."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def _see(self, context: Any) -> None:
        self.seen = dict(context.invocation_metadata())

    async def GetOrder(self, request: Any, context: Any) -> Any:
        self._see(context)
        return orders_pb2.GetOrderResponse(
            order=orders_pb2.Order(order_id=request.order_id, sequence=request.at_sequence)
        )

    async def ListOrders(self, request: Any, context: Any) -> Any:
        self._see(context)
        return orders_pb2.ListOrdersResponse(next_page_token=str(request.page_size))

    async def CancelOrder(self, request: Any, context: Any) -> Any:
        self._see(context)
        raise accord.FailedPrecondition("TOO_LATE", message=f"{request.order_id} {request.reason}")

    async def StreamOrderUpdates(self, request: Any, context: Any) -> Any:
        for sequence in (1, 2):
            yield orders_pb2.StreamOrderUpdatesResponse(sequence=sequence)


def token(scope: str = "orders:read orders:write", **claims: Any) -> str:
    """A bearer token of the user u1."""
    said = {"iss": "login", "aud": "shop", "sub": "u1", "exp": time.time() + 60, "scope": scope}
    return jwt.encode({**said, **claims}, KEY, "ES256", {"kid": "one"})


def bearer(*scope: str, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(*scope, **claims)}"}


def jwks(folder: Path) -> Path:
    """The key set of who issues tokens."""
    public = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}))
    return file


def exported(folder: Path, *options: str) -> Path:
    """What the command line writes."""
    image, out = folder / "shop.binpb", folder / "edge.json"
    image.write_bytes(support.shop_image().SerializeToString())
    who = ("--jwks", str(jwks(folder)), "--issuer", "login", "--audience", "shop", *OTHERS)
    done = support.run("contracts", "export", "envoy", image, "--edge", *who, *options, "-o", out)
    assert done.returncode == 0, done.stderr.decode()
    return out


def validated(file: Path) -> subprocess.CompletedProcess[str]:
    """What Envoy says of a bootstrap."""
    return subprocess.run(
        (support.SCRIPTS / "envoy", "--mode", "validate", "-c", file),
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Edge:
    """A running one."""

    orders: Orders
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    grpc: Any = field(init=False)

    def __post_init__(self) -> None:
        self.grpc = orders_pb2_grpc.OrderServiceStub(self.channel)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return await self.http.get(path, headers=headers)


@asynccontextmanager
async def serving(
    folder: Path, *options: str, identity: Identity | None = None
) -> AsyncIterator[Edge]:
    """Envoy before a server of orders, which has an identity or goes without TLS."""
    mesh = accord.Mesh("orders", identity=identity, idempotency="handler")
    orders = Orders()  # type: ignore[abstract]
    server = mesh.server()
    orders_pb2_grpc.add_OrderServiceServicer_to_server(orders, server)
    if identity is None:
        upstream = server.add_insecure_port("127.0.0.1:0")
    else:
        upstream = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    await server.start()
    port = free_port()
    where = ("--host=127.0.0.1", f"--port={port}", f"--target=orders=127.0.0.1:{upstream}")
    file = await asyncio.to_thread(exported, folder, *where, *options)
    process = await asyncio.create_subprocess_exec(
        *(support.SCRIPTS / "envoy", "-c", file, "--concurrency", "1", "-l", "error"),
        "--disable-hot-restart",
    )
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            async with asyncio.timeout(30):
                await channel.channel_ready()
            yield Edge(orders, http, channel)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await server.stop(None)


def test_routes_are_annotated_for_gateways() -> None:
    """What has a route has `google.api.http` with verb, path and body; nothing else has."""
    contracts = ResolvedContracts(support.shop_image())
    made = descriptor_pb2.FileDescriptorSet.FromString(annotated(contracts).SerializeToString())
    found = {}
    for file in made.file:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    rule = method.options.Extensions[annotations_pb2.http]
                    verb = rule.WhichOneof("pattern") or ""
                    found[f"{file.package}.{service.name}/{method.name}"] = (
                        verb.upper(),
                        getattr(rule, verb),
                        rule.body,
                    )
    assert found == {
        rpc.name: (edge.verb, edge.path, "" if edge.verb == "GET" else "*")
        for rpc, edge in contracts.routes()
    }
    assert ResolvedContracts(made).routes()
    again = annotated(ResolvedContracts(made))
    assert sorted(it.name for it in again.file) == sorted(it.name for it in made.file)


def test_envoy_accepts_the_bootstrap(tmp_path: Path) -> None:
    """`envoy --mode validate` takes all of it, listener, filters and clusters, also with TLS."""
    assert (
        validated(exported(tmp_path, "--target=orders=a:1", "--target=orders=b:2")).returncode == 0
    )
    folder = tmp_path / "certs"
    folder.mkdir()
    tls = (
        "--certs",
        str(folder),
        "--trust-domain=shop.internal",
        "--allow-origin=https://a.example",
    )
    done = validated(exported(tmp_path, "--target=orders=a:1", "--admin-port=9901", *tls))
    assert done.returncode == 0, done.stderr
    broken = json.loads((tmp_path / "edge.json").read_text())
    broken["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"][
        "http_filters"
    ][4]["typed_config"]["stat_prefix"] = ""
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert validated(tmp_path / "broken.json").returncode != 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jwks=a"], "needs --issuer"),
        (["--jwks=a", "--issuer=b", "--audience=c"], "customers=HOST:PORT"),
        (["--jwks=a", "--issuer=b", "--audience=c", "--certs=."], "needs --trust-domain"),
        (["--jwks=a", "--issuer=b", "--audience=c", "--target=orders"], "SERVICE=HOST:PORT"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, options: Sequence[str], said: str) -> None:
    """An edge without keys, names or targets is refused in one line."""
    image = tmp_path / "shop.binpb"
    image.write_bytes(support.shop_image().SerializeToString())
    done = support.run("contracts", "export", "envoy", image, "--edge", *options)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


async def test_rest_and_grpc_reach_what_has_a_route(tmp_path: Path) -> None:
    """Path, query, body, key, stream and typed errors; fields in camelCase; int64 as a string."""
    async with serving(tmp_path) as edge:
        answer = await edge.get(f"/v1/orders/{ORDER}?atSequence=7", bearer())
        assert answer.status_code == 200, answer.text
        assert answer.json()["order"]["orderId"] == ORDER
        assert answer.json()["order"]["sequence"] == "7"
        listed = await edge.get("/v1/orders?page_size=3", bearer())
        assert listed.json() == {"orders": [], "nextPageToken": "3"}
        cancel = await edge.http.post(
            f"/v1/orders/{ORDER}:cancel",
            json={"reason": "no"},
            headers={**bearer(), "idempotency-key": "k1"},
        )
        assert cancel.status_code == 400
        assert cancel.json()["message"] == f"{ORDER} no"
        assert cancel.json()["details"][0]["reason"] == "TOO_LATE"
        updates = await edge.get(f"/v1/orders/{ORDER}/updates", bearer())
        assert updates.headers["content-type"] == "text/event-stream"
        assert [line[6:] for line in updates.text.splitlines() if line.startswith("data: ")][1:]
        asked = orders_pb2.GetOrderRequest(order_id=ORDER)
        metadata = (("authorization", f"Bearer {token()}"), ("accord-user", "forged"))
        assert (await edge.grpc.GetOrder(asked, metadata=metadata)).order.order_id == ORDER
        assert not {"accord-user", "x-edge-user", "authorization"} & edge.orders.seen.keys()


async def test_who_has_no_token_or_scope_is_refused_on_both(tmp_path: Path) -> None:
    """401, 403 and 404 are problems for REST and codes for gRPC; neither leaves the other open."""
    wrong = [
        {},
        bearer(iss="else"),
        bearer(exp=1),
        {"authorization": "Bearer x"},
    ]
    asked = orders_pb2.GetOrderRequest(order_id=ORDER)
    async with serving(tmp_path) as edge:

        async def code(headers: Mapping[str, str], method: Any = None) -> str:
            try:
                await (method or edge.grpc.GetOrder)(asked, metadata=tuple(headers.items()))
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        for headers in wrong:
            answer = await edge.get(f"/v1/orders/{ORDER}", headers)
            assert (answer.status_code, answer.json()["status"]) == (401, 401)
            assert answer.headers["content-type"] == "application/problem+json"
            assert await code(headers) == "UNAUTHENTICATED"
        elsewhere = bearer(aud="else")  # where Envoy has a mind of its own
        assert (await edge.get(f"/v1/orders/{ORDER}", elsewhere)).status_code == 403
        assert await code(elsewhere) == "PERMISSION_DENIED"
        for scope in ("", "orders:write", "xorders:read", "orders:readx", "orders-read"):
            assert (await edge.get(f"/v1/orders/{ORDER}", bearer(scope))).status_code == 403
            assert await code(bearer(scope)) == "PERMISSION_DENIED"
        assert await code(bearer("a orders:read b")) == "OK"
        for path in (
            "/",
            "/v1/orders/a/b",
            "/v2/orders",
            "/v1/orders/",
            "/v1/orders/?pageSize=1",
            "//v1/orders",
        ):
            assert (await edge.get(path, bearer())).status_code == 404, path
            edge.orders.seen.clear()
            assert (await edge.get(path)).status_code == 404, path
            assert not edge.orders.seen
        for path in ("/v1/%6frders", "/v1/x/../orders"):  # the same, by RFC 3986
            assert (await edge.get(path)).status_code == 401, path
        unreached = "/shop.orders.v1.OrderService/GetPaymentInstruction"
        method = edge.channel.unary_unary(unreached, lambda it: it.SerializeToString(), bytes)
        assert await code(bearer(), method) == "UNIMPLEMENTED"
        assert (await edge.http.delete("/v1/orders", headers=bearer())).status_code == 404
        path = "/shop.orders.v1.OrderService/GetOrder"
        assert (await edge.http.post(path, json={}, headers=bearer())).status_code == 404
        assert (await edge.http.post(path, json={})).status_code == 401
        large = {"reason": "a" * (envoy_edge.BODY + 1)}
        headers = {**bearer(), "idempotency-key": "k"}
        cancel = f"/v1/orders/{ORDER}:cancel"
        assert (await edge.http.post(cancel, json=large, headers=headers)).status_code == 413


async def test_a_user_may_call_only_so_often(tmp_path: Path) -> None:
    """Beyond a burst: 429 with Retry-After, RESOURCE_EXHAUSTED for gRPC; other users go on."""
    async with serving(tmp_path) as edge:
        calls = (edge.http.post("/v1/orders", json={}, headers=bearer()) for _ in range(100))
        answers = {answer.status_code: answer for answer in await asyncio.gather(*calls)}
        assert len(answers) > 1
        assert answers[429].headers["retry-after"] == "1"
        assert answers[429].headers["content-type"] == "application/problem+json"
        other = await edge.http.post("/v1/orders", json={}, headers=bearer(sub="u2"))
        assert other.status_code != 429
        metadata = tuple(bearer().items())
        request = orders_pb2.CreateOrderRequest()
        created = [edge.grpc.CreateOrder(request, metadata=metadata) for _ in range(100)]
        codes = {await call.code() for call in created}
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        asked = orders_pb2.ListOrdersRequest()
        assert await edge.grpc.ListOrders(asked, metadata=metadata).code() is grpc.StatusCode.OK


async def test_only_pages_that_are_named_may_call(tmp_path: Path) -> None:
    """A pre-flight of a named origin is answered without a token; of another it is not allowed."""
    asks = {
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization",
    }
    async with serving(tmp_path, "--allow-origin=https://a.example") as edge:
        for origin, allowed in (("https://a.example", "https://a.example"), ("https://b", None)):
            answer = await edge.http.options("/v1/orders", headers={"origin": origin, **asks})
            assert answer.headers.get("access-control-allow-origin") == allowed


async def test_inward_both_sides_show_who_they_are(tmp_path: Path) -> None:
    """The service sees the identity of the edge; a server of another identity gets nothing."""
    ca, folder = Authority(), tmp_path / "certs"
    ca.issue("spiffe://shop.internal/edge").write(folder)
    tls = ("--certs", str(folder), "--trust-domain=shop.internal")
    admin = f"--admin-port={free_port()}"
    for name, status in (("orders", 200), ("payments", 503)):
        own = tmp_path / name
        own.mkdir()
        leaf = ca.issue(f"spiffe://shop.internal/{name}")
        identity = Identity.from_folder(leaf.write(own / "certs"))
        async with serving(own, *tls, admin, identity=identity) as edge, asyncio.timeout(30):
            stat, said = ("health_check.success", "ssl.fail_verify_san")[status == 503], ""
            url = f"http://127.0.0.1:{admin.partition('=')[2]}/stats?filter=OrderService.*{stat}"
            while not re.search(r": [1-9]", said):
                said = (await edge.get(url)).text
                await asyncio.sleep(0.1)
            answer = await edge.get(f"/v1/orders/{ORDER}", bearer())
        assert answer.status_code == status


def test_a_service_without_a_target_is_named() -> None:
    """Of the library itself, too."""
    setting = envoy_edge.Setting(jwks="a", issuer="b", audience="c", targets={})
    with pytest.raises(Refused, match="--target"):
        envoy_edge.export(ResolvedContracts(support.shop_image()), setting)
