"""What callers and services see of each other through a gateway: the same calls to both."""

from pathlib import Path
from typing import Final

import pytest

from tests.accord.edge.kit import SERVICE, Parcel, Update, WatchRequest, framed
from tests.contracts.export.gateways.differences import DIFFERENCES
from tests.contracts.export.gateways.kit import PAGE, Gateway, events, said

pytestmark = pytest.mark.asyncio(loop_scope="package")

FIND, PUT = "GET /v1/parcels", "PUT /v1/parcels/7"
CODES: Final = {
    "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503, "DATA_LOSS": 500, "CANCELLED": 499,
}  # fmt: skip


async def test_each_code_has_its_status(gateway: Gateway) -> None:
    """As google.rpc.code has it."""
    found = {c: (await gateway.ask(PUT, json={"note": f"fail {c}"})).status_code for c in CODES}
    assert found == CODES


async def test_errors(gateway: Gateway) -> None:
    """Reason and details of google.rpc reach the caller; each gateway has its own form for them."""
    missing = (await gateway.ask(PUT, json={"note": "missing"})).json()
    assert [each["@type"].rpartition(".")[2] for each in missing["details"]] == [
        "ErrorInfo",
        "ResourceInfo",
    ]
    assert (missing["details"][0]["reason"], missing["details"][1]["resourceName"]) == (
        "NO_SUCH_PARCEL",
        "7",
    )
    gateway.check("what a service refuses", ", ".join(sorted(missing)))
    refused = await gateway.ask(f"{FIND}?floor=-1")
    assert refused.headers["content-type"] == "application/problem+json"
    gateway.check("what the gateway refuses", ", ".join(sorted(refused.json())))
    full = await gateway.ask(PUT, json={"note": "full"})
    gateway.check("RetryInfo of a service", f"Retry-After: {full.headers.get('retry-after', '-')}")
    broken = await gateway.ask(PUT, json={"note": "fail INTERNAL"})
    gateway.check(
        "the text of INTERNAL, UNKNOWN, DATA_LOSS",
        "told" if "secret" in broken.text else "not told",
    )
    assert "secret" not in (await gateway.ask(PUT, json={"note": "bug"})).text
    alone = await gateway.ask("POST /v1/parcels/7:cancel")
    assert alone.headers["www-authenticate"].startswith("Bearer")


STREAMS: Final = {
    "a stream": ("/v1/updates", {}, ""),
    "its first error": ("/v1/updates?parcelId=none", {}, "404"),
    "a stream for who takes JSON": ("/v1/updates", {"accept": "application/json"}, ""),
    "a stream that can be resumed": ("/v1/parcels/7/updates", {}, ""),
    "its `Last-Event-ID`": ("/v1/parcels/7/updates", {"last-event-id": "1"}, ""),
    "`Last-Event-ID` of the last": ("/v1/parcels/7/updates", {"last-event-id": "3"}, ""),
    "the first error of a stream that can be resumed": ("/v1/parcels/none/updates", {}, ""),
    "a stream's later error": ("/v1/parcels/half/updates", {}, ""),
}


@pytest.mark.parametrize("case", STREAMS)
async def test_streams(gateway: Gateway, case: str) -> None:
    """They are events, whose data are messages."""
    path, headers, same = STREAMS[case]
    headers = {**gateway.issuer.bearer("parcels:read"), **headers}
    gateway.check(case, events(await gateway.ask(f"GET {path}", headers=headers)), same)


@pytest.mark.parametrize(
    "kind", ["application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text"]
)
async def test_grpc_web(gateway: Gateway, kind: str) -> None:
    """Unary and streams, with messages, codes and texts, in all of its encodings."""
    sent = Parcel(parcel_id="7", note="é")
    (got,), code, _ = await gateway.web("FindParcels", framed(sent), kind)
    assert (Parcel.FromString(got), code) == (sent, "OK")
    found, code, _ = await gateway.web("List", framed(WatchRequest(after=1)), kind)
    assert ([Update.FromString(each).sequence for each in found], code) == ([2, 3], "OK")
    none = await gateway.web("FindParcels", framed(Parcel(note="missing")), kind)
    assert none == ([], "NOT_FOUND", "parcel '7' does not exist")
    for bad in (b"", b"\0\0\0\0\2\xff\xff", b"\0\0\0\0\xff"):
        assert (await gateway.web("FindParcels", bad, kind))[1] == "INVALID_ARGUMENT", bad


async def test_grpc(gateway: Gateway) -> None:
    """Envoy has it; `accord.edge` has no HTTP/2."""
    gateway.check("gRPC itself", await gateway.grpc("FindParcels", {}))


async def test_a_header_breaks_nobody_elses_call(gateway: Gateway) -> None:
    """What gRPC cannot parse does not reach the connection that all calls share."""
    bad = {"grpc-timeout": "1x", "grpc-previous-rpc-attempts": "x", "x-a-bin": "!"}
    for name, value in bad.items():
        await gateway.ask(FIND, headers={name: value})
        await gateway.web("FindParcels", framed(Parcel()), **{name: value})
    good = {"x-a-bin": "AAAA", "grpc-previous-rpc-attempts": "1"}
    for timeout in ("1S", "2S", "3S"):
        named = {**good, "grpc-timeout": timeout}
        assert (await gateway.web("FindParcels", framed(Parcel()), **named))[1] == "OK"
    answer = await gateway.ask(FIND, headers={"grpc-timeout": "1x"})
    gateway.check("a `grpc-timeout` that is none, of REST", str(answer.status_code))
    code = (await gateway.web("FindParcels", framed(Parcel()), grpc_timeout="1x"))[1]
    gateway.check("a `grpc-timeout` that is none, of gRPC-Web", code)


def bound(seconds: float) -> str:
    """What has been given, of which some has passed."""
    return f"{next(each for each in (2, 5, 500) if seconds < each + 0.1)} s"


async def left(gateway: Gateway, **headers: str) -> str:
    """How long a service may take."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    value = (await gateway.ask(PUT, json={"note": "left"}, headers=named)).json()["value"]
    return bound(value) if value > 0 else "no bound"


async def test_time_travels(gateway: Gateway) -> None:
    """A caller gives a call less time than its contract, and not more."""
    gateway.check("the time of a REST call, as its service sees it", await left(gateway))
    gateway.check("REST with `Request-Timeout: 2`", await left(gateway, request_timeout="2"))
    gateway.check("REST with `grpc-timeout: 2S`", await left(gateway, grpc_timeout="2S"))
    asked = framed(Parcel(note="left"))
    for case, same in (("gRPC-Web with 2S", "2 s"), ("gRPC-Web with `grpc-timeout: 500S`", "")):
        given = case.strip("`").split()[-1]
        (raw,), _, _ = await gateway.web("FindParcels", asked, grpc_timeout=given)
        gateway.check(case, bound(Parcel.FromString(raw).value), same)
    short = {"request-timeout": "0.05", "grpc-timeout": "50m"}  # each has its own
    assert (await gateway.ask(PUT, json={"note": "wait"}, headers=short)).status_code == 504
    if gateway.name == "embedded":
        assert await left(gateway, request_timeout="500") == "5 s"


async def test_headers_travel(gateway: Gateway) -> None:
    """Trace, request id and key reach the service; whom a call is for nobody outside may say."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {
        "traceparent": trace, "tracestate": "a=b", "x-request-id": "abc-1",
        "idempotency-key": "k-1", "accord-user": "forged", "Accord-Depth": "3",
        "x-edge-user": "forged", "x-accord-bin": "AAAA", "x-other": "1",
    }  # fmt: skip
    write = gateway.issuer.bearer("parcels:write")
    answer = await gateway.ask("POST /v1/parcels", json={}, headers={**write, **headers})
    seen = gateway.seen[-1]
    assert (answer.status_code, answer.headers["x-request-id"], seen["x-request-id"]) == (
        200,
        "abc-1",
        "abc-1",
    )
    assert (seen["traceparent"].split("-")[1], seen["tracestate"]) == (trace.split("-")[1], "a=b")
    assert seen["idempotency-key"] == "k-1"
    assert (
        not {"authorization", "accord-user", "accord-depth", "x-edge-user", "x-accord-bin"}
        & seen.keys()
    )
    gateway.check("other headers", "reach the service" if "x-other" in seen else "do not")
    odd = await gateway.ask(
        "POST /v1/parcels",
        json={},
        headers={**write, "x-request-id": "a b", "idempotency-key": '"k-2"'},
    )
    assert odd.headers["x-request-id"] == gateway.seen[-1]["x-request-id"]
    gateway.check(
        "`X-Request-Id: a b`", "travels" if odd.headers["x-request-id"] == "a b" else "is replaced"
    )
    gateway.check(
        '`Idempotency-Key: "k"`',
        f"travels as {gateway.seen[-1]['idempotency-key'].replace('k-2', 'k')}",
    )
    for key in ({}, {"idempotency-key": "a b"}):
        assert (
            await gateway.ask("POST /v1/parcels", json={}, headers={**write, **key})
        ).status_code == 400


async def test_how_long_answers_are_kept(gateway: Gateway) -> None:
    """By the contract's cache, if at all; nobody else's answer is."""
    read = gateway.issuer.bearer("parcels:read")
    first = await gateway.ask("GET /v1/parcels/kept", headers=read)
    gateway.check("Cache-Control of a GET with a `cache`", first.headers.get("cache-control", "-"))
    gateway.check("of all else", (await gateway.ask(FIND)).headers.get("cache-control", "-"))
    match = {"if-none-match": first.headers.get("etag", "*")}
    again = await gateway.ask("GET /v1/parcels/kept", headers={**read, **match})
    gateway.check("`If-None-Match`", said(again).partition(" ")[0])


async def test_pages_of_other_origins(gateway: Gateway) -> None:
    """A page that is named may call, and is told so without a token; another is not."""
    asks = {
        "access-control-request-method": "PUT",
        "access-control-request-headers": "content-type,idempotency-key",
    }
    for path in ("/v1/parcels/7", f"/{SERVICE}/FindParcels"):
        named = await gateway.ask(f"OPTIONS {path}", headers={"origin": PAGE, **asks})
        assert (named.status_code, named.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "PUT" in named.headers["access-control-allow-methods"]
        assert "idempotency-key" in named.headers["access-control-allow-headers"].lower()
    answer = await gateway.ask(FIND, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "grpc-status-details-bin" in answer.headers["access-control-expose-headers"]
    other = {"origin": "https://evil.example"}
    refused = await gateway.ask("OPTIONS /v1/parcels/7", headers={**other, **asks})
    gateway.check("a pre-flight of another origin", str(refused.status_code))
    for found in (refused, await gateway.ask(FIND, headers=other)):
        assert "access-control-allow-origin" not in found.headers


async def test_rates(gateway: Gateway) -> None:
    """Beyond the contract's burst: 429, and when to come again; other callers go on."""
    both = "parcels:admin parcels:write"
    for who, path, verb in (
        (gateway.issuer.bearer(both), "/v1/parcels/7", "DELETE"),
        ({}, "/v1/track/1", "GET"),
    ):
        answers = [await gateway.ask(f"{verb} {path}", headers=who) for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        assert 50 < int(answers[2].headers["retry-after"]) <= 100
        assert answers[2].headers["content-type"] == "application/problem+json"
    other = gateway.issuer.bearer(both, sub="18")
    assert (await gateway.ask("DELETE /v1/parcels/7", headers=other)).status_code == 200
    same = await gateway.ask("GET /v1/track/1", headers=other)
    gateway.check(
        "another user of the address, at a public route beyond its rate", str(same.status_code)
    )
    mine = gateway.issuer.bearer(both)
    code = (await gateway.web("DeleteParcel", framed(Parcel()), **mine))[1]
    gateway.check("gRPC-Web of who is beyond the rate by REST", code)
    for _ in range(3):
        code = (await gateway.web("DeleteParcel", framed(Parcel()), **mine))[1]
    gateway.check("gRPC-Web beyond the rate", code)
    if gateway.name == "envoy":
        assert await gateway.grpc("DeleteParcel", mine) == "RESOURCE_EXHAUSTED"


async def test_every_difference_is_seen() -> None:
    """The table in the docs has no row that the suite does not ask for."""
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert [case for case in DIFFERENCES if case not in text.replace("\\", "")] == []
