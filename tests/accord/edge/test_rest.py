"""REST: what goes in, what comes out, and what is refused."""

from pathlib import Path
from typing import Any

import accord
from tests.accord.edge.kit import echo, serving

UNARY = "GetParcel FindParcels CreateParcel PutParcel DeleteParcel CancelParcel Track"
ALL = dict.fromkeys(UNARY.split(), echo)


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


async def test_rates_are_per_caller_and_route(tmp_path: Path) -> None:
    """The contract's rate holds for each address or user; 429 says when to come again."""
    now = [0.0]
    async with serving(tmp_path, ALL, clock=lambda: now[0]) as served:
        statuses = [(await served.http.get("/v1/track/1")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await served.http.get("/v1/track/1")
        assert refused.headers["retry-after"] == "100"
        assert refused.json()["reason"] == "RATE_LIMITED"
        mine = served.bearer()
        assert (await served.http.get("/v1/track/1", headers=mine)).status_code == 200
        now[0] += 100
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
