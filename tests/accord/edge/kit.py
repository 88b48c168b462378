"""An edge before a server of the test contract, called in the same process or over a port."""

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import (
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

import accord
from accord.edge import Authenticator, Edge, KeySet, routes_of
from accord.identity import Identity
from accord.v1 import edge_pb2
from tests.accord.kit import add_contract

assert all((duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2, edge_pb2))  # in the pool
add_contract("accordtest/v1/parcels.proto")

SERVICE = "accordtest.v1.ParcelService"
ISSUER, AUDIENCE = "https://login.test", "parcels"
_POOL = descriptor_pool.Default()


def _message(name: str) -> Any:  # made at run time
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"accordtest.v1.{name}"))


Parcel, WatchRequest, Update = map(_message, ("Parcel", "WatchRequest", "Update"))


def handler(behaviours: Mapping[str, Callable[..., Any]]) -> Any:
    """What serves some methods of the test service."""
    made = {}
    for method in _POOL.FindServiceByName(SERVICE).methods:
        if method.name in behaviours:
            kind = "unary_stream" if method.server_streaming else "unary_unary"
            made[method.name] = getattr(grpc, f"{kind}_rpc_method_handler")(
                behaviours[method.name],
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(
                    method.output_type
                ).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(SERVICE, made)


class Issuer:
    """Signs tokens; its key set is in a file."""

    def __init__(self, file: Path, kid: str = "1") -> None:
        self.file = file
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.rotate(kid)

    def rotate(self, *kids: str) -> None:
        """Have keys of these ids, and no others."""
        self.keys = {kid: self.keys.get(kid) or ec.generate_private_key(ec.SECP256R1())
                     for kid in kids}  # fmt: skip
        listed = []
        for kid, key in self.keys.items():
            jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
            listed.append({**jwk, "kid": kid, "alg": "ES256", "use": "sig"})
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"keys": listed}))
        new.replace(self.file)

    def token(self, scope: object = "", *, kid: str | None = None, **claims: Any) -> str:
        """A token of user 17; a claim that is None is left out."""
        kid = kid or next(iter(self.keys))
        now = time.time()
        found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "17", "exp": now + 300, "iat": now,
                 "scope": scope, **claims}  # fmt: skip
        found = {name: value for name, value in found.items() if value is not None}
        return jwt.encode(found, self.keys[kid], "ES256", headers={"kid": kid})

    def bearer(self, scope: str = "", **claims: Any) -> dict[str, str]:
        """The header with such a token."""
        return {"authorization": f"Bearer {self.token(scope, **claims)}"}

    def authenticator(self, **how: Any) -> Authenticator:
        """Who believes it."""
        return Authenticator(KeySet.from_file(self.file), issuer=ISSUER, audience=AUDIENCE, **how)


@dataclass
class Served:
    """An edge, and how to call it."""

    edge: Edge
    mesh: accord.Mesh
    http: httpx.AsyncClient
    issuer: Issuer
    metadata: list[dict[str, Any]] = field(default_factory=list)
    """What came with each call to the service."""

    def bearer(self, scope: str = "", **claims: Any) -> dict[str, str]:
        return self.issuer.bearer(scope, **claims)


@asynccontextmanager
async def upstream(
    behaviours: Mapping[str, Callable[..., Any]], identity: Identity | None = None
) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """A server with these behaviours: its port, and what came with each call."""
    seen: list[dict[str, Any]] = []

    def noting(behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def unary(request: Any, context: Any) -> Any:
            seen.append(dict(context.invocation_metadata()))
            return behaviour(request, context)

        async def awaited(request: Any, context: Any) -> Any:
            return await unary(request, context)

        async def streamed(request: Any, context: Any) -> AsyncIterator[Any]:
            async for message in unary(request, context):
                yield message

        return awaited if asyncio.iscoroutinefunction(behaviour) else streamed

    callee = accord.Mesh("parcels", identity=identity, idempotency="handler")
    grpc_server = callee.server()
    grpc_server.add_generic_rpc_handlers(
        (handler({name: noting(each) for name, each in behaviours.items()}),)
    )
    port = (
        grpc_server.add_insecure_port("127.0.0.1:0")
        if identity is None
        else grpc_server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    )
    await grpc_server.start()
    try:
        yield port, seen
    finally:
        await grpc_server.stop(None)
        await callee.close()


@asynccontextmanager
async def serving(
    folder: Path,
    behaviours: Mapping[str, Callable[..., Any]],
    **edge: Any,
) -> AsyncIterator[Served]:
    """A server with these behaviours and an edge before it, which is called in this process."""
    issuer = Issuer(folder / "jwks.json")
    edge.setdefault("authenticator", issuer.authenticator())
    async with upstream(behaviours) as (port, seen):
        mesh = accord.Mesh("edge", targets={"parcels": f"127.0.0.1:{port}"})
        app = Edge(mesh, routes_of(SERVICE), targets={SERVICE: "parcels"}, **edge)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                yield Served(app, mesh, client, issuer, seen)
        finally:
            await app.close()
            await mesh.close()


@asynccontextmanager
async def over_a_port(edge: Edge) -> AsyncIterator[int]:
    """An edge behind uvicorn, on a free loopback port."""
    config = uvicorn.Config(
        edge,
        port=0,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def framed(message: Any, flag: int = 0) -> bytes:
    """A message as gRPC-Web sends it."""
    raw: bytes = message.SerializeToString()
    return struct.pack(">BI", flag, len(raw)) + raw


def unframed(body: bytes, kind: str) -> tuple[list[bytes], dict[str, str]]:
    """The messages and the trailers of an answer."""
    if "-text" in kind:
        body = b"".join(
            base64.b64decode(each + b"=" * (-len(each) % 4)) for each in body.split(b"=") if each
        )
    messages, trailers = [], {}
    while body:
        flag, size = struct.unpack_from(">BI", body)
        raw, body = body[5 : 5 + size], body[5 + size :]
        if flag & 0x80:
            lines = (line.partition(":") for line in raw.decode().splitlines())
            trailers = {name: value.strip() for name, _, value in lines}
        else:
            messages.append(raw)
    return messages, trailers


async def echo(request: Any, context: Any) -> Any:
    """Answers with what it was asked."""
    return request
