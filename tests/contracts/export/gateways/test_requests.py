"""What becomes of a request: the same calls to both gateways."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.accord.edge.kit import AUDIENCE, ISSUER, SERVICE, Parcel, framed
from tests.contracts.export.gateways.kit import Gateway, said

pytestmark = pytest.mark.asyncio(loop_scope="package")

Case = tuple[str, str, Any, str]  # a body that is bytes or JSON, or how else httpx sends it
FIND, PUT = "GET /v1/parcels", "PUT /v1/parcels/7"


def typed(kind: str, content: bytes = b"{}", **headers: str) -> dict[str, Any]:  # httpx's
    """A body that is said to be of a type."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"content": content, "headers": {"content-type": kind, **named}}


SEVEN = '200 {"parcelId": "7"}'
# Case, verb and path, body, what comes of it where that is the same.
MAPPED: Final[tuple[Case, ...]] = (
    ("a field of the path", "PUT /v1/parcels/a%20b", {}, '200 {"parcelId": "a b"}'),
    ("its colon", "PUT /v1/parcels/7%3Acancel", {}, '200 {"parcelId": "7:cancel"}'),
    ("its marks of URLs", "PUT /v1/parcels/a%3Fb%23c+;=%25", {}, '200 {"parcelId": "a?b#c+;=%"}'),
    ("its text", "PUT /v1/parcels/%C3%A9", {}, '200 {"parcelId": "é"}'),
    ("an encoded slash in a field of the path", "PUT /v1/parcels/a%2Fb", {}, ""),
    ("an encoded letter of the path", "GET /v1/%70arcels", None, "200"),
    ("fields of the query", f"{FIND}?parcelId=7&fragile=true&tags=a&tags=b&size=SIZE_LARGE"
     "&travel=1.5s&weight=-9007199254740993&sent_at=2026-01-02T03:04:05Z&label=AAE%3D", None,
     '200 {"parcelId": "7", "weight": "-9007199254740993", "fragile": true, "size": "SIZE_LARGE", '
     '"tags": ["a", "b"], "sentAt": "2026-01-02T03:04:05Z", "travel": "1.500s", "label": "AAE="}'),
    ("a space of the query", f"{FIND}?note=a+b%20c%2B", None, '200 {"note": "a b c+"}'),
    ("a field of a field", f"{FIND}?mainItem.quantity=3", None,
     '200 {"mainItem": {"sku": "", "quantity": 3, "parts": []}}'),
    ("an enum by its number", f"{FIND}?size=2", None, '200 {"size": "SIZE_LARGE"}'),
    ("what is no number", f"{FIND}?ratio=NaN&value=-Infinity", None,
     '200 {"value": "-Infinity", "ratio": "NaN"}'),
    ("a field of a list's messages in the query", f"{FIND}?items.sku=1", None, ""),
    ("a body", PUT, {"street": "Wall", "weight": "5", "numbers": [1, "2"], "size": "SIZE_SMALL",
     "counts": {"x": "3"}, "sent_at": "2026-01-02T03:04:05.5+01:00"},
     '200 {"parcelId": "7", "weight": "5", "size": "SIZE_SMALL", "counts": {"x": "3"}, "sentAt": '
     '"2026-01-02T02:04:05.500Z", "numbers": ["1", "2"], "street": "Wall"}'),
    ("an enum that is not known", PUT, {"size": 7}, '200 {"parcelId": "7", "size": 7}'),
    ("a null", PUT, {"note": None}, SEVEN),
    ("an empty body", PUT, b"", SEVEN),
    ("a type in capitals", PUT, typed("Application/JSON; charset=utf-8"), SEVEN),
    ("a verb of the path", "POST /v1/parcels/7:cancel", {}, SEVEN),
    ("a body of another type", PUT, typed("text/plain"), ""),
    ("a body without a type", PUT, {"content": b"{}"}, ""),
    ("a compressed body", PUT, typed("application/json", content_encoding="gzip"), ""),
    ("a body of GET", FIND, {"content": b"{}"}, ""),
    ("a body beyond 1 MiB", PUT, {"note": "a" * 1_100_000}, "413"),
    ("a value that is not the path's", PUT, {"parcelId": "8"}, ""),
    ("a parameter beside a body", f"{PUT}?floor=1", {}, ""),
    ("an unknown field", PUT, {"colour": 1}, ""),
    ("a field twice in a body", PUT, b'{"floor":1,"floor":2}', ""),
    ("null in a list", PUT, {"tags": [None]}, ""),
    ("an unknown parameter", f"{FIND}?colour=1", None, "400"),
    ("a parameter twice", f"{FIND}?floor=1&floor=2", None, ""),
    ("a truth that is none", f"{FIND}?fragile=yes", None, ""),
    ("a parameter without a value", f"{FIND}?floor", None, ""),
    ("a broken escape in the path", "PUT /v1/parcels/%zz", {}, ""),
    ("controls in the path", "PUT /v1/parcels/a%0d%0aX-A:b", {}, ""),
    ("a path that is normal once dots are resolved", "GET /v1/x/../parcels", None, ""),
    ("a backslash in the path", "PUT /v1/parcels/a\\b", {}, ""),
    ("HEAD", "HEAD /v1/parcels", None, ""),
    ("another verb at a path that is known", "PATCH /v1/parcels", {}, ""),
    ("OPTIONS of no page", "OPTIONS /v1/parcels", None, ""),
    ("another type at a path of gRPC", f"POST /{SERVICE}/Track", {}, ""),
    ("gRPC by HTTP/1.1", f"POST /{SERVICE}/FindParcels", typed("application/grpc", b"\0" * 5), ""),
    ("GET of gRPC's path", f"GET /{SERVICE}/FindParcels", None, ""),
    ("a query of 9 KiB", f"{FIND}?{'floor=0&' * 1100}", None, ""),
    ("headers of 40 KB", FIND, {"headers": {"x-a": "a" * 40_000}}, "431"),
    ("a header with an underscore", FIND, {"headers": {"x_a": "a"}}, ""),
    ("another Accept", FIND, {"headers": {"accept": "text/html"}}, ""),
)  # fmt: skip

BAD_BODIES: Final = (
    b'{"note":', b"[]", b"{} {}", b"null", b"[" * 20_000, b'{"value":NaN}', b'{"value":1e400}',
    b'{"floor":-1}', b'{"floor":"many"}', b'{"size":"HUGE"}', b'{"note":"\xff"}', b'{"sentAt":"x"}',
    b'{"street":"a","box":"b"}', b"\xef\xbb\xbf{}", b'{"weight":9223372036854775808}',
    b'{"note":"\\ud800"}',
    b'{"anything":' + b"[" * 500 + b"]" * 500 + b"}",
)  # fmt: skip
BAD_PATHS: Final = (
    f"{FIND}?floor=-1", f"{FIND}?size=HUGE", f"{FIND}?sentAt=yesterday", f"{FIND}?parcelId=%ff",
    "PUT /v1/parcels/%ff", "PUT /v1/parcels/%00", "PUT /v1/parcels/..%2F..%2Fetc",
)  # fmt: skip
NOWHERE: Final = (
    "/", "/v2/parcels", "/v1/parcels/", "/v1/parcels/?note=a", "//v1/parcels", "/v1",
    "/v1//parcels", "/V1/parcels", "/v1/parcels/7/8/9", "/v1/parcels;a=b", f"/{SERVICE}/Hidden",
)  # fmt: skip


def sent(body: Any) -> dict[str, Any]:
    """How httpx sends a body."""
    if body is None or (isinstance(body, dict) and body.keys() & {"content", "headers"}):
        return dict(body or {})
    headers = {"content-type": "application/json"}
    return {"content": body if isinstance(body, bytes) else json.dumps(body), "headers": headers}


@pytest.mark.parametrize(("case", "what", "body", "same"), MAPPED, ids=[each[0] for each in MAPPED])
async def test_requests(gateway: Gateway, case: str, what: str, body: Any, same: str) -> None:
    """Path, query and body become the message, or are refused and call nothing."""
    how, calls = sent(body), len(gateway.seen)
    how["headers"] = {**gateway.issuer.bearer("parcels:write"), **how.get("headers", {})}
    answer = await gateway.ask(what, **how)
    gateway.check(case, said(answer), same)
    assert (len(gateway.seen) > calls) == (answer.status_code == 200)


async def test_all_fields_are_there(gateway: Gateway) -> None:
    """What has no presence is in an answer although it is empty, under its name in camelCase."""
    answer = await gateway.ask(FIND)
    assert answer.json() == {
        "parcelId": "", "weight": "0", "floor": 0, "fragile": False, "value": 0,
        "size": "SIZE_UNSPECIFIED", "items": [], "tags": [], "counts": {}, "label": "",
        "ratio": 0, "numbers": [],
    }  # fmt: skip


async def test_what_is_no_message_is_400(gateway: Gateway) -> None:
    """Of a body, a query or a path; nothing is called."""
    calls = len(gateway.seen)
    for body in BAD_BODIES:
        assert (await gateway.ask(PUT, **sent(body))).status_code == 400, body
    for what in BAD_PATHS:
        assert (
            await gateway.ask(what, **sent({} if what[0] == "P" else None))
        ).status_code == 400, what
    assert len(gateway.seen) == calls


async def test_what_has_no_route_is_404(gateway: Gateway) -> None:
    """With a token and without one; nothing is called."""
    calls, token = len(gateway.seen), gateway.issuer.bearer("parcels:read")
    for path in NOWHERE:
        for headers in ({}, token):
            assert (await gateway.ask(f"GET {path}", headers=headers)).status_code == 404, path
    unreached = await gateway.web("Hidden", framed(Parcel()), **token)
    assert unreached[1] == "UNIMPLEMENTED"
    assert len(gateway.seen) == calls


async def test_a_body_in_chunks_is_bounded(gateway: Gateway) -> None:
    """A client that goes on sending reads 413."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(15):
            yield b" " * 100_000

    answer = await gateway.ask(PUT, content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


async def test_headers_that_hide_others(gateway: Gateway) -> None:
    """What one server reads in another way than the next is refused, and calls nothing."""
    calls = len(gateway.seen)
    for headers in (
        b"x-a: a\0b\r\n",
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 2\r\ncontent-length: 3\r\n",
        b"x-a : b\r\n",
    ):
        request = b"PUT /v1/parcels/7 HTTP/1.1\r\nhost: e\r\ncontent-type: application/json\r\n"
        answer = await gateway.raw(request + headers + b"connection: close\r\n\r\n{}")
        assert answer.split()[1] == b"400", headers
    assert len(gateway.seen) == calls


def tokens(gateway: Gateway) -> dict[str, tuple[str, str]]:
    """Case -> a header Authorization, and how it ends where that is the same."""
    issuer, now = gateway.issuer, time.time()
    own = {"iss": ISSUER, "aud": AUDIENCE, "sub": "17", "exp": now + 60, "scope": "parcels:write"}
    good = issuer.token("parcels:write")
    head, claims, signature = good.split(".")

    def bearer(scope: object = "parcels:write", **claims: Any) -> str:
        return f"Bearer {issuer.token(scope, **claims)}"

    def signed(key: Any, algorithm: str) -> str:
        return f"Bearer {jwt.encode(own, key, algorithm, headers={'kid': '1'})}"

    return {
        "no token": ("", "401"),
        "a good one": (f"Bearer {good}", "200"),
        "one that is no JWT": ("Bearer x", "401"),
        "two": (f"Bearer {good}, Bearer {good}", "401"),
        "no signature": (f"Bearer {head}.{claims}.", "401"),
        "another signature": (f"Bearer {head}.{claims}.{signature[:-6]}AAAAAA", "401"),
        "of another key": (signed(ec.generate_private_key(ec.SECP256R1()), "ES256"), "401"),
        "alg none": (signed("", "none"), "401"),
        "a shared secret": (signed("s" * 32, "HS256"), "401"),
        "an old one": (bearer(exp=now - 60), "401"),
        "not yet": (bearer(nbf=now + 60), "401"),
        "without an end": (bearer(exp=None), "401"),
        "of another issuer": (bearer(iss="https://evil.test"), "401"),
        "for several audiences": (bearer(aud=["others", AUDIENCE]), "200"),
        "without scopes": (bearer(""), "403"),
        "with another scope": (bearer("parcels:read"), "403"),
        "a scope within another": (bearer("xparcels:write parcels:writex parcels-write"), "403"),
        "scopes with other things between": (bearer("a\nparcels:write\tb"), "403"),
        "one scope of several": (bearer("a parcels:write b"), "200"),
        "a token for another audience": (bearer(aud="others"), ""),
        "a token without an audience": (bearer(aud=None), ""),
        "a token without a subject": (bearer(sub=None), ""),
        "a subject with spaces or controls": (bearer(sub="a b\r\nx-a: b"), ""),
        "a token from the future (`iat`)": (bearer(iat=now + 600), ""),
        "a token of more than 8 KiB": (bearer(pad="a" * 9000), ""),
        "scopes as a list": (bearer(["parcels:write"]), ""),
        "`bearer`": (f"bearer {good}", ""),
    }  # fmt: skip


async def test_who_may_call(gateway: Gateway) -> None:
    """The same for REST, gRPC-Web and gRPC: no path leaves another open."""
    codes = {"200": "OK", "401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED"}
    for case, (header, same) in tokens(gateway).items():
        named, calls = {"authorization": header} if header else {}, len(gateway.seen)
        found = (await gateway.ask("POST /v1/parcels/7:cancel", headers=named)).status_code
        gateway.check(case, str(found), same)
        code = (await gateway.web("CancelParcel", framed(Parcel()), **named))[1]
        assert code == codes[str(found)], case
        if gateway.name == "envoy":
            assert await gateway.grpc("CancelParcel", named) == code
        assert (len(gateway.seen) > calls) == (found == 200), case
    query = gateway.issuer.token("parcels:write")
    assert (await gateway.ask(f"POST /v1/parcels/7:cancel?access_token={query}")).status_code == 401


async def test_public_routes(gateway: Gateway) -> None:
    """They need no token; one that is there has to be good, by clocks that may differ."""
    calls = len(gateway.seen)
    late = gateway.issuer.bearer(exp=time.time() - 1)
    assert (await gateway.ask(FIND, headers=late)).status_code == 200
    stale = gateway.issuer.bearer(exp=time.time() - 60)
    assert (await gateway.ask(FIND, headers=stale)).status_code == 401
    assert len(gateway.seen) == calls + 1
    basic = await gateway.ask(FIND, headers={"authorization": "Basic YTpi"})
    gateway.check("`Basic` at a public route", str(basic.status_code))


async def test_all_scopes_are_needed(gateway: Gateway) -> None:
    """Of a route that has two."""
    for scope, status in (
        ("parcels:write", 403),
        ("parcels:admin", 403),
        ("parcels:write parcels:admin", 200),
    ):
        headers = gateway.issuer.bearer(scope, sub="admin")
        answer = await gateway.ask("DELETE /v1/parcels/7", headers=headers)
        assert answer.status_code == status
