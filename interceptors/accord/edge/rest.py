"""REST: a request of HTTP becomes one of an RPC, and the answer JSON."""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message
from grpc import StatusCode

from accord.edge.calls import Endpoint, Metadata
from accord.edge.headers import accepts, etag, kept, matches
from accord.edge.http import Request
from accord.edge.limits import EdgeLimits
from accord.edge.printing import to_json
from accord.edge.problem import EdgeError
from accord.edge.sse import EVENTS

JSON: Final = "application/json"
BODILESS: Final = frozenset({"GET", "DELETE"})
"""Verbs whose requests have no body: their fields are in path and query."""

_NO_STORE: Final = ((b"cache-control", b"no-store"),)
_CHARSETS: Final = frozenset({"", "charset=utf-8", 'charset="utf-8"'})


def check(endpoint: Endpoint, request: Request) -> None:
    """That the client takes what is answered, and sends what is understood. Raises EdgeError."""
    kind, code = EVENTS if endpoint.route.streaming else JSON, StatusCode.INVALID_ARGUMENT
    if not accepts(request.headers.get("accept", ""), kind):
        raise EdgeError(406, code, "NOT_ACCEPTABLE", f"the answer is {kind}")
    if not request.has_body:
        return
    if endpoint.route.verb in BODILESS:
        text = f"a {endpoint.route.verb} has no body"
        raise EdgeError(400, code, "UNEXPECTED_BODY", text, {"connection": "close"})
    sent, _, parameter = request.headers.get("content-type", "").lower().partition(";")
    coding = request.headers.get("content-encoding", "identity").lower()
    if sent.strip() != JSON or parameter.strip() not in _CHARSETS or coding != "identity":
        text = f"the body has to be {JSON} in UTF-8, and not compressed"
        headers = {"accept": JSON, "connection": "close"}
        raise EdgeError(415, code, "UNSUPPORTED_MEDIA_TYPE", text, headers)


async def message_of(
    endpoint: Endpoint, request: Request, values: Sequence[str], limits: EdgeLimits
) -> Message:
    """The request of the RPC. Raises EdgeError, InvalidArgument, Gone."""
    body = None
    if endpoint.route.verb not in BODILESS:
        body = await request.body(limits) if request.has_body else b""
    return endpoint.transcoder.request(values, request.query.decode("latin-1"), body)


async def unary(
    endpoint: Endpoint,
    request: Request,
    message: Message,
    metadata: Metadata,
    seconds: float | None,
) -> None:
    """Call and answer. Raises as the call does; `seconds`: that the client gives it."""
    found, trailers = await endpoint.answer(request, message, metadata, seconds)
    body = to_json(found).encode()
    if not endpoint.cached:
        await request.answer(200, body, JSON.encode(), _NO_STORE)
        return
    tag = etag(body)
    headers = ((b"etag", tag.encode()), *kept(endpoint.route.policy, trailers))
    if matches(request.headers.get("if-none-match"), tag):
        await request.begin(304, headers)
        await request.write(b"", more=False)
    else:
        await request.answer(200, body, JSON.encode(), headers)
