"""One server of the contract of parcels, and the two gateways before it."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import httpx

import accord
from accord.edge import Edge, routes_of
from accord.errors import Resource
from tests.accord.edge.kit import (
    AUDIENCE,
    ISSUER,
    SERVICE,
    Issuer,
    Update,
    over_a_port,
    unframed,
    upstream,
)
from tests.accord.kit import HERE
from tests.contracts.export import support
from tests.contracts.export.gateways.differences import DIFFERENCES
from tests.support.ports import free_port
from tests.support.wait import until

PAGE = "https://shop.example"


async def answered(request: Any, context: Any) -> Any:
    """What was asked, or what its note says."""
    what, _, rest = (request.note or "").partition(" ")
    if what == "fail":
        await context.abort(grpc.StatusCode[rest], "secret at 10.0.0.7")
    if what == "missing":
        raise accord.NotFound("NO_SUCH_PARCEL", Resource("parcel", "7"))
    if what == "full":
        raise accord.ResourceExhausted("FULL", retry_after=2.3)
    if what == "bug":
        raise RuntimeError("secret")
    if what == "left":
        request.value = context.time_remaining() or -1
    if what == "wait":
        await asyncio.Event().wait()
    return request


async def listed(request: Any, context: Any) -> AsyncIterator[Any]:
    """Three messages; for the parcel "none" an error before the first, for "half" after it."""
    if request.parcel_id == "none":
        raise accord.NotFound("NO_SUCH_PARCEL")
    for sequence in range(request.after + 1, 4):
        yield Update(sequence=sequence)
        if request.parcel_id == "half":
            raise accord.FailedPrecondition("LOST")


METHODS = "GetParcel FindParcels CreateParcel PutParcel DeleteParcel CancelParcel Track Hidden"
BEHAVIOURS = dict.fromkeys(METHODS.split(), answered) | {"Watch": listed, "List": listed}


@dataclass
class Gateway:
    """One of the two, running."""

    name: str
    port: int
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    issuer: Issuer
    seen: list[dict[str, Any]]
    """What came with each call to the service."""

    def check(self, case: str, found: str, same: str = "") -> None:
        """That a case ends as is said of this gateway in `DIFFERENCES`, or of both here."""
        assert (case in DIFFERENCES) != bool(same), f"{case}: is it the same?"
        assert found == (same or getattr(DIFFERENCES[case], self.name)), case

    async def ask(self, what: str, **how: Any) -> httpx.Response:
        """A request, "GET /path", whose path goes out as it is written."""
        verb, _, target = what.partition(" ")
        return await self.http.request(verb, "/", extensions={"target": target.encode()}, **how)

    async def web(
        self, method: str, body: bytes, kind: str = "application/grpc-web+proto", **headers: str
    ) -> tuple[list[bytes], str, str]:
        """A call by gRPC-Web: messages, code and the code's text."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = base64.b64encode(body) if "-text" in kind else body
        answer = await self.http.post(
            f"/{SERVICE}/{method}",
            content=sent,
            headers={"content-type": kind, "accept": kind, **named},
        )
        messages: list[bytes] = []
        status = dict(answer.headers)
        given = status["content-type"]
        if "grpc-status" not in status and given.startswith(kind):
            messages, status = unframed(answer.content, given)
        code = _BY_NUMBER.get(status.get("grpc-status", ""), _BY_HTTP.get(answer.status_code, ""))
        return messages, code, status.get("grpc-message", "")

    async def grpc(self, method: str, headers: Mapping[str, str]) -> str:
        """The code of a call by gRPC."""
        call = self.channel.unary_unary(f"/{SERVICE}/{method}", bytes, bytes)
        return (await call(b"", metadata=tuple(headers.items())).code()).name

    async def raw(self, request: bytes) -> bytes:
        """What comes back on a connection of its own until that ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(30):
                return await reader.read()
        finally:
            writer.close()


_BY_NUMBER: Final = {str(code.value[0]): code.name for code in grpc.StatusCode}
_BY_HTTP: Final = {
    401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "UNIMPLEMENTED", 429: "UNAVAILABLE",
}  # fmt: skip
"""What clients make of an answer that is none of gRPC (gRPC's http-grpc-status-mapping.md)."""

_EMPTY: Final[tuple[Any, ...]] = ("", "0", 0, False, [], {}, "SIZE_UNSPECIFIED")


def said(answer: httpx.Response) -> str:
    """An answer in short: its status, and of a message what is not empty."""
    kind = answer.headers.get("content-type")
    if answer.status_code != 200 or kind != "application/json" or not answer.content:
        return str(answer.status_code)
    found = {name: value for name, value in answer.json().items() if value not in _EMPTY}
    return f"200 {json.dumps(found, ensure_ascii=False)}" if found else "200"


def events(answer: httpx.Response) -> str:
    """A stream in short: its status and events, "message#1" with its id."""
    found = [str(answer.status_code)]
    for block in answer.text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "data" in fields:
            found.append(fields.get("event", "message") + f"#{fields.get('id', '')}".rstrip("#"))
    return " ".join(found)


@asynccontextmanager
async def embedded(folder: Path, issuer: Issuer, port: int) -> AsyncIterator[int]:
    """`accord.edge` in uvicorn, before the server at a port; yields its own."""
    mesh = accord.Mesh("edge", targets={"parcels": f"127.0.0.1:{port}"})
    edge = Edge(mesh, routes_of(SERVICE), targets={SERVICE: "parcels"},
                authenticator=issuer.authenticator(), cors_origins=[PAGE])  # fmt: skip
    try:
        async with over_a_port(edge) as listening:
            yield listening
    finally:
        await edge.close()
        await mesh.close()


def exported(folder: Path, image: support.Image, issuer: Issuer, *options: str) -> Path:
    """The bootstrap that the command line writes."""
    contracts, file = folder / "image.binpb", folder / "edge.json"
    contracts.write_bytes(image.SerializeToString())
    who = ("--jwks", str(issuer.file), "--issuer", ISSUER, "--audience", AUDIENCE)
    given = ("--edge", *who, *options)
    done = support.run("contracts", "export", "envoy", contracts, *given, "-o", file)
    assert done.returncode == 0, done.stderr.decode()
    return file


@asynccontextmanager
async def envoy(folder: Path, issuer: Issuer, port: int, *options: str) -> AsyncIterator[int]:
    """Envoy with such a bootstrap, before the server at a port; yields its own."""
    listening, image = free_port(), support.compiled(HERE / "protos")
    where = ("--host=127.0.0.1", f"--port={listening}", f"--target={SERVICE}=127.0.0.1:{port}")
    options = (*where, f"--allow-origin={PAGE}", *options)
    file = await asyncio.to_thread(exported, folder, image, issuer, *options)
    process = await asyncio.create_subprocess_exec(
        *(support.SCRIPTS / "envoy", "-c", file, "--concurrency", "1", "-l", "error"),
        "--disable-hot-restart",
    )
    try:
        yield listening
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


GATEWAYS: Final = {"embedded": embedded, "envoy": envoy}


@asynccontextmanager
async def running(name: str, folder: Path) -> AsyncIterator[Gateway]:
    """A gateway before a server of its own."""
    issuer = Issuer(folder / "jwks.json")
    async with (
        upstream(BEHAVIOURS) as (port, seen),
        GATEWAYS[name](folder, issuer, port) as listening,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening}", timeout=20) as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{listening}") as channel,
    ):

        async def serves() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await http.get("/v1/parcels")).status_code == 200
            return False

        await until(serves, "a gateway that serves")
        yield Gateway(name, listening, http, channel, issuer, seen)
