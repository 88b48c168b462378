"""REST: what goes in, what comes out, and what is refused."""

from pathlib import Path
from typing import Any

import grpc

import accord
from accord.errors import Resource
from tests.accord.edge.kit import echo, serving

UNARY = "GetParcel FindParcels CreateParcel PutParcel DeleteParcel CancelParcel Track"
ALL = dict.fromkeys(UNARY.split(), echo)


async def test_path_query_and_body_become_the_request(tmp_path: Path) -> None:
    """Each verb gives its RPC the fields of path, query and body, and answers with JSON."""
    async with serving(tmp_path, ALL) as served:
        read, write = served.bearer("parcels:read"), served.bearer("parcels:write")
        got = await served.http.get("/v1/parcels/a%2Fb%20c", headers=read)
        assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
        assert got.json()["parcelId"] == "a/b c"
        assert got.json()["tags"] == []  # what has no presence is there
        found = await served.http.get(
            "/v1/parcels?parcelId=7&fragile=true&tags=a&tags=b&main_item.quantity=3"
            "&size=SIZE_LARGE&weight=-9007199254740993&sentAt=2026-01-02T03:04:05Z&insured=false"
        )
        assert found.status_code == 200, found.text
        wanted = {
            "parcelId": "7", "fragile": True, "tags": ["a", "b"], "size": "SIZE_LARGE",
            "weight": "-9007199254740993", "sentAt": "2026-01-02T03:04:05Z", "insured": False,
        }  # fmt: skip
        assert wanted.items() <= found.json().items()
        assert found.json()["mainItem"]["quantity"] == 3
        put = await served.http.put("/v1/parcels/7", json={"street": "Wall", "floor": 3})
        assert (put.json()["parcelId"], put.json()["street"], put.json()["floor"]) == (
            "7",
            "Wall",
            3,
        )
        ended = await served.http.post("/v1/parcels/7:cancel", headers=write)
        assert ended.json()["parcelId"] == "7"
        made = await served.http.post(
            "/v1/parcels", json={"parcel_id": "8"}, headers={**write, "idempotency-key": '"k-1"'}
        )
        assert made.json()["parcelId"] == "8"
        assert served.metadata[-1]["idempotency-key"] == "k-1"
        both = served.bearer("parcels:write parcels:admin")
        assert (await served.http.delete("/v1/parcels/7", headers=both)).status_code == 200
        assert (await served.http.head("/v1/parcels")).content == b""


async def test_a_bad_body_is_refused(tmp_path: Path) -> None:
    """It is 400, says which field is wrong, and nothing is called."""
    async with serving(tmp_path, ALL) as served:
        answer = await served.http.put("/v1/parcels/7", json={"mainItem": {"colour": 1}})
        assert (answer.status_code, served.metadata) == (400, [])
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem.pop("requestId") == answer.headers["x-request-id"]
        violation = {"field": "mainItem.colour", "description": "is no field of the request"}
        assert problem == {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "mainItem.colour: is no field of the request",
            "instance": "/v1/parcels/7",
            "code": "INVALID_ARGUMENT",
            "reason": "INVALID_REQUEST",
            "domain": "edge",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "INVALID_REQUEST",
                    "domain": "edge",
                },
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [violation],
                },
            ],
        }


REFUSED: tuple[tuple[str, str, dict[str, Any], int, str], ...] = (
    ("GET", "/v2/parcels", {}, 404, "NO_ROUTE"),
    ("GET", "/v1/parcels/", {}, 404, "NO_ROUTE"),
    ("GET", "//v1/parcels", {}, 404, "NO_ROUTE"),
    ("GET", "/v1/parcels/7/8/9", {}, 404, "NO_ROUTE"),
    ("POST", "/v1/parcels/7:eat", {}, 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/v1/parcels/7:cancel", {}, 405, "METHOD_NOT_ALLOWED"),
    ("PATCH", "/v1/parcels", {}, 405, "METHOD_NOT_ALLOWED"),
    ("OPTIONS", "/v1/parcels", {}, 405, "METHOD_NOT_ALLOWED"),
    ("HEAD", "/v1/updates", {}, 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/accordtest.v1.ParcelService/Track", {}, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/accordtest.v1.ParcelService/Track", {"json": {}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("POST", "/accordtest.v1.ParcelService/Hidden", {"json": {}}, 404, "NO_ROUTE"),
    ("GET", "/v1/parcels/..%2F..%2Fetc", {}, 400, "MALFORMED_PATH"),
    ("GET", "/v1/%2e%2e/parcels", {}, 400, "MALFORMED_PATH"),
    ("GET", "/v1/parcels/a%0d%0ab", {}, 400, "MALFORMED_PATH"),
    ("GET", "/v1/parcels/%ff", {}, 400, "MALFORMED_PATH"),
    ("GET", "/v1/parcels/%zz", {}, 400, "MALFORMED_PATH"),
    ("GET", "/v1/track/heavy", {}, 400, "INVALID_REQUEST"),
    ("GET", "/v1/parcels", {"headers": {"accept": "text/html"}}, 406, "NOT_ACCEPTABLE"),
    ("GET", "/v1/parcels", {"headers": {"accept": "application/json;q=0"}}, 406, "NOT_ACCEPTABLE"),
    ("GET", "/v1/updates", {"headers": {"accept": "application/json"}}, 406, "NOT_ACCEPTABLE"),
    ("GET", "/v1/parcels", {"content": b"{}"}, 400, "UNEXPECTED_BODY"),
    ("PUT", "/v1/parcels/7", {"content": b"{}"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("PUT", "/v1/parcels/7", {"data": {"a": "b"}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("PUT", "/v1/parcels/7", {"json": {}, "headers": {"content-encoding": "gzip"}}, 415,
     "UNSUPPORTED_MEDIA_TYPE"),
    ("PUT", "/v1/parcels/7?floor=1", {"json": {}}, 400, "INVALID_REQUEST"),
    ("PUT", "/v1/parcels/7", {"json": {"note": "a" * 1_100_000}}, 413, "BODY_TOO_LARGE"),
    ("GET", "/v1/parcels?note=" + "a" * 9000, {}, 414, "TARGET_TOO_LONG"),
    ("GET", "/v1/parcels", {"headers": {"x-a": "a" * 40_000}}, 431, "HEADERS_TOO_LARGE"),
    ("GET", "/v1/parcels", {"headers": {"request-timeout": "soon"}}, 400, "INVALID_HEADER"),
    ("GET", "/v1/parcels", {"headers": {"request-timeout": "0"}}, 400, "INVALID_HEADER"),
    ("GET", "/v1/parcels", {"headers": {"idempotency-key": "a b"}}, 400, "INVALID_HEADER"),
    ("GET", "/v1/parcels/7", {}, 401, "TOKEN_MISSING"),
)  # fmt: skip


async def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    """Each has its own status and reason, in the same form, and calls nothing."""
    async with serving(tmp_path, ALL) as served:
        for verb, path, how, status, reason in REFUSED:
            answer = await served.http.request(verb, path, **how)
            assert answer.status_code == status, (verb, path, answer.text)
            if verb != "HEAD":
                assert (answer.json()["reason"], answer.json()["domain"]) == (reason, "edge")
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-request-id"]
            assert ("allow" in answer.headers) == (status == 405)
        assert not served.metadata


async def test_a_body_in_chunks_is_bounded_too(tmp_path: Path) -> None:
    """Without a Content-Length 413 comes as soon as it is too much."""
    sent = 0

    async def body() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b" " * 100_000

    async with serving(tmp_path, ALL) as served:
        headers = {"content-type": "application/json"}
        answer = await served.http.put("/v1/parcels/7", content=body(), headers=headers)
        assert answer.status_code == 413
        assert sent < 2_000_000


CODES = {
    "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503, "DATA_LOSS": 500,
}  # fmt: skip


async def test_each_code_has_its_status(tmp_path: Path) -> None:
    """As google.rpc.code has it, and nothing is told of what happens inside."""

    async def fail(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode[request.note], "secret at 10.0.0.7")

    async with serving(tmp_path, {"FindParcels": fail}) as served:
        for code, status in CODES.items():
            answer = await served.http.get(f"/v1/parcels?note={code}")
            problem = answer.json()
            assert (answer.status_code, problem["status"]) == (status, status), code
            if status == 500:
                untold = {"type", "title", "status", "instance", "code", "requestId"}
                assert set(problem) == untold
            if status == 401:
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_details_are_told_and_a_delay_is(tmp_path: Path) -> None:
    """Reason, domain and details of google.rpc are in the problem, RetryInfo in Retry-After."""

    async def find(request: Any, context: Any) -> Any:
        if request.weight:
            raise accord.ResourceExhausted("FULL", retry_after=2.3)
        raise accord.NotFound("NO_SUCH_PARCEL", Resource("parcel", "7"))

    async with serving(tmp_path, {"FindParcels": find}) as served:
        problem = (await served.http.get("/v1/parcels")).json()
        assert (problem["reason"], problem["domain"]) == ("NO_SUCH_PARCEL", "parcels")
        assert problem["detail"] == "parcel '7' does not exist"
        assert problem["details"][1]["resourceName"] == "7"
        full = await served.http.get("/v1/parcels?weight=1")
        assert (full.status_code, full.headers["retry-after"]) == (429, "3")


async def test_a_bug_tells_nothing(tmp_path: Path) -> None:
    """An exception of a handler, or an address that nobody listens at, names nothing inside."""

    async def find(request: Any, context: Any) -> Any:
        raise RuntimeError("secret")

    async with serving(tmp_path, {"FindParcels": find}) as served:
        answer = await served.http.get("/v1/parcels")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        served.mesh._targets = {"parcels": "127.0.0.1:1"}
        await served.mesh.close()
    async with serving(tmp_path, {}) as served:
        gone = await served.http.get("/v1/parcels")
        assert gone.status_code == 501
        assert "127.0.0.1" not in gone.text


async def test_what_travels_on(tmp_path: Path) -> None:
    """Trace, request id, key and deadline reach the service; an id is echoed, or made."""
    left: list[float] = []

    async def find(request: Any, context: Any) -> Any:
        left.append(context.time_remaining())
        return request

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(tmp_path, {"FindParcels": find}) as served:
        headers = {"traceparent": trace, "x-request-id": "abc-1", "request-timeout": "1.5"}
        answer = await served.http.get("/v1/parcels", headers=headers)
        assert answer.headers["x-request-id"] == "abc-1"
        assert served.metadata[0]["x-request-id"] == "abc-1"
        assert served.metadata[0]["traceparent"].split("-")[1] == trace.split("-")[1]
        assert 0 < left[0] <= 1.5
        await served.http.get("/v1/parcels", headers={"request-timeout": "500"})
        assert 0 < left[1] <= 6  # the contract's is not exceeded
        bad = await served.http.get("/v1/parcels", headers={"x-request-id": "a b\tc"})
        assert len(bad.headers["x-request-id"]) == 32


async def test_answers_that_may_be_kept(tmp_path: Path) -> None:
    """By the contract's cache: ETag, how long, less if the service says so, and 304."""

    async def get(request: Any, context: Any) -> Any:
        if request.parcel_id == "open":
            context.set_trailing_metadata(accord.cache_for(0))
        return request

    async with serving(tmp_path, {**ALL, "GetParcel": get}) as served:
        read = served.bearer("parcels:read")
        first = await served.http.get("/v1/parcels/7", headers=read)
        assert first.headers["cache-control"] == "private, max-age=30"
        assert first.headers["vary"] == "authorization"
        again = await served.http.get(
            "/v1/parcels/7", headers={**read, "if-none-match": f'"x", W/{first.headers["etag"]}'}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "private, no-cache"  # kept here, for some time
        assert len(served.metadata) == 1
        moving = await served.http.get("/v1/parcels/open", headers=read)
        assert moving.headers["cache-control"] == "private, no-cache"
        plain = await served.http.get("/v1/parcels")
        assert plain.headers["cache-control"] == "no-store"
        assert "etag" not in plain.headers


async def test_cors_is_closed_until_it_is_opened(tmp_path: Path) -> None:
    """Pages of other origins read nothing, unless theirs is named."""
    asked = {"origin": "https://shop.example", "access-control-request-method": "PUT",
             "access-control-request-headers": "content-type,idempotency-key"}  # fmt: skip
    async with serving(tmp_path, ALL) as served:
        refused = await served.http.options("/v1/parcels/7", headers=asked)
        assert refused.status_code == 405
        assert "access-control-allow-origin" not in refused.headers
    async with serving(tmp_path, ALL, cors_origins=["https://shop.example"]) as served:
        allowed = await served.http.options("/v1/parcels/7", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        answer = await served.http.get("/v1/parcels", headers={"origin": "https://shop.example"})
        assert "grpc-status-details-bin" in answer.headers["access-control-expose-headers"]
        other = await served.http.get("/v1/parcels", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_rates_are_per_caller_and_route(tmp_path: Path) -> None:
    """The contract's rate holds for each address or user; 429 says when to come again."""
    now = [0.0]
    async with serving(tmp_path, ALL, clock=lambda: now[0]) as served:
        statuses = [(await served.http.get("/v1/track/1")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await served.http.get("/v1/track/1")
        assert refused.headers["retry-after"] == "2"
        assert refused.json()["reason"] == "RATE_LIMITED"
        mine = served.bearer()
        assert (await served.http.get("/v1/track/1", headers=mine)).status_code == 200
        now[0] += 2
        assert (await served.http.get("/v1/track/1")).status_code == 200
        assert (await served.http.get("/v1/parcels")).status_code == 200


async def test_mounts(tmp_path: Path) -> None:
    """Another application gets its paths, with a bounded body, and can ask who calls."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = await served.edge.caller(scope)
        seen.append((caller, served.edge.metadata(scope, caller)))
        route = served.edge.routes["/accordtest.v1.ParcelService/GetParcel"]
        served.edge.permit(scope, caller, route)
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async with serving(tmp_path, ALL, mounts={"/graphql": app}) as served:
        read = served.bearer("parcels:read", roles=["clerk"])
        answer = await served.http.post("/graphql/x", json={}, headers=read)
        assert (answer.status_code, answer.text) == (200, "/graphql/x")
        assert (seen[0][0].subject, seen[0][0].roles) == ("17", {"clerk"})
        assert dict(seen[0][1])["x-request-id"]
        assert (await served.http.post("/graphql", json={})).status_code == 401
        large = await served.http.post("/graphql", content=b"a" * 1_100_000, headers=read)
        assert large.status_code == 413
        assert (await served.http.post("/graphqlx", json={})).status_code == 404
