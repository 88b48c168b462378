"""Whatever is sent is answered, by a status that is no fault of the edge."""

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accord
from accord.edge import Edge, routes_of
from tests.accord.edge.kit import SERVICE, Issuer

HEADERS = """
accept accept-encoding authorization content-encoding content-length content-type grpc-timeout
idempotency-key if-none-match last-event-id origin request-timeout traceparent tracestate baggage
transfer-encoding x-request-id accord-user accord-depth grpc-status
"""
VALUES = """
* */* text/event-stream application/json application/grpc-web-text 0 1 1.5 1S -1 gzip chunked
"" W/"a" Bearer Basic a,b é ;;; 99999999999999999999 00-1-1-01
"""
PATHS = """
/v1/parcels /v1/parcels/7 /v1/parcels/7:cancel /v1/parcels/7/updates /v1/updates /v1/track/1
/accordtest.v1.ParcelService/FindParcels /accordtest.v1.ParcelService/Hidden / * //
/v1/parcels/%2e%2e /v1/parcels/%
"""
VERBS = "GET PUT POST DELETE PATCH HEAD OPTIONS TRACE CONNECT BREW"

values = st.sampled_from([*VALUES.split(), "\x00", "\r\n"]) | st.text(
    st.characters(max_codepoint=255), max_size=20
)
paths = st.sampled_from(PATHS.split()) | st.text(
    st.characters(min_codepoint=1, max_codepoint=255), max_size=20
)
queries = st.sampled_from([b"", b"weight=1", b"x", b"&&=&", b"floor=-1", b"a=%"]) | st.binary(
    max_size=10
)
bodies = st.sampled_from([b"", b"{}", b"[]", b"\0\0\0\0\0", b"AAAAAAA="]) | st.binary(max_size=20)


def edge(folder: Path) -> Edge:
    """One whose calls are answered with what was asked, without a service."""

    class Call:
        def __init__(self, message: Any, **_: Any) -> None:
            self.message = message

        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return self.message

        async def __aiter__(self) -> Any:
            for _ in range(2):
                yield self.message

        def cancel(self) -> None:
            pass

        async def trailing_metadata(self) -> None:
            pass

    mesh = accord.Mesh("edge", targets={"parcels": "127.0.0.1:1"})
    authenticator = Issuer(folder / "jwks.json").authenticator()
    found = Edge(
        mesh, routes_of(SERVICE), targets={SERVICE: "parcels"}, authenticator=authenticator
    )
    for endpoint in found._endpoints.values():
        endpoint.call = Call
    return found


@given(
    st.sampled_from(VERBS.split()),
    paths,
    queries,
    st.lists(st.tuples(st.sampled_from(HEADERS.split()), values), max_size=5),
    bodies,
)
@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_request_is_answered(
    tmp_path: Path,
    verb: str,
    path: str,
    query: bytes,
    headers: list[tuple[str, str]],
    body: bytes,
) -> None:
    """Once, with headers that can be sent, and a body that is what they say."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def asked() -> None:
        app = edge(tmp_path)
        await app(
            {
                "type": "http",
                "method": verb,
                "path": path,
                "raw_path": path.encode("latin-1"),
                "query_string": query,
                "client": ("::1%lo", 1),
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            },
            receive,
            send,
        )
        await app.close()

    asyncio.run(asked())
    start, *parts = sent
    assert [each["type"] for each in sent].count("http.response.start") == 1
    assert [each.get("more_body", False) for each in parts][-1] is False
    assert 200 <= start["status"] < 500 or start["status"] == 501
    found = dict(start["headers"])
    assert all(
        value.isascii() and value.isprintable() for value in map(bytes.decode, found.values())
    )
    content = b"".join(each["body"] for each in parts)
    if b"json" in found.get(b"content-type", b"") and verb != "HEAD":
        assert isinstance(json.loads(content), dict)
        assert int(found[b"content-length"]) == len(content)
