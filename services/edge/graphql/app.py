"""GraphQL over HTTP: POST of one operation as JSON, and nothing else.

A browser sends `application/json` to another origin only if that one says that it may (CORS), so
no page of others can ask in the name of who looks at it. There is no explorer: GraphiQL would be
loaded from elsewhere. Source: GraphQL over HTTP (graphql.github.io/graphql-over-http).
"""

import json
from typing import Any, Final, NamedTuple

from grpc import StatusCode
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

import accord
from accord.edge.headers import accepts, timeout
from accord.edge.problem import EdgeError, failure
from accord.errors import ServiceError
from services.edge.graphql.errors import DOMAIN, describe, told
from services.edge.graphql.request import Access, Request, Services
from services.edge.graphql.schema import schema

TIMEOUT: Final = 5.0
"""Seconds that all calls of a request have together."""

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body."""

JSON: Final = "application/json"
GRAPHQL: Final = "application/graphql-response+json"


def graphql_app(
    mesh: accord.Mesh, access: Access, *, development: bool = False, seconds: float = TIMEOUT
) -> ASGIApp:
    """An ASGI app that answers queries, at whatever path it is put.

    Args:
        mesh: what the services are called through.
        access: who a request is from, and what that one may do.
        development: whether the schema may be asked for, and misspelt names get suggestions.
        seconds: that all calls of a request have together; `Request-Timeout` may shorten it.
    """
    return _App(Services(mesh), access, development, seconds)


class _Operation(NamedTuple):
    query: str
    variables: dict[str, Any] | None
    name: str | None


class _App:
    def __init__(
        self, services: Services, access: Access, development: bool, seconds: float
    ) -> None:
        self._services = services
        self._access = access
        self._schema = schema(development=development)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HttpRequest(scope, receive)
        kind, headers = JSON, {}
        try:
            kind = _accepted(request)
            status, answer = await self._answer(request)
        except ServiceError as error:
            refused = failure(error, DOMAIN)
            status, headers = refused.http, dict(refused.headers)
            answer = {"errors": [told(refused)]}
        except ClientDisconnect:
            return
        await JSONResponse(answer, status, headers, media_type=kind)(scope, receive, send)

    async def _answer(self, request: HttpRequest) -> tuple[int, dict[str, Any]]:
        operation = _operation(await _body(request))
        caller = await self._access.caller(request.scope)
        context = Request(self._services, self._access, request.scope, caller)
        asked = timeout(request.headers, "request-timeout")
        with accord.deadline(min(self._seconds, asked or self._seconds)):
            try:
                result = await self._schema.execute(
                    operation.query, operation.variables, context, operation_name=operation.name
                )
            except (CannotGetOperationTypeError, InvalidOperationTypeError) as error:
                raise _bad(str(error)) from None
        answer: dict[str, Any] = {} if result.data is None else {"data": result.data}
        if result.errors:
            answer["errors"] = [describe(error) for error in result.errors]
        return 400 if result.data is None else 200, answer


def _refused(status: int, reason: str, text: str, **headers: str) -> EdgeError:
    return EdgeError(status, StatusCode.INVALID_ARGUMENT, reason, text, headers)


def _bad(text: str) -> EdgeError:
    return _refused(400, "INVALID_REQUEST", text)


def _accepted(request: HttpRequest) -> str:
    """The form of the answer; of a request that is no POST of JSON it says what it must be."""
    if request.method != "POST":
        raise _refused(405, "METHOD_NOT_ALLOWED", "only POST is possible", allow="POST")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON or "content-encoding" in request.headers:
        text = f"the body must be {JSON}, not compressed"
        raise _refused(415, "UNSUPPORTED_MEDIA_TYPE", text, accept=JSON)
    for kind in (JSON, GRAPHQL):
        if accepts(request.headers.get("accept", ""), kind):
            return kind
    raise _refused(406, "NOT_ACCEPTABLE", f"the answer is {JSON} or {GRAPHQL}")


async def _body(request: HttpRequest) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            text = f"the body has more than {MAX_BODY} bytes"
            raise _refused(413, "BODY_TOO_LARGE", text, connection="close")
    return bytes(body)


def _operation(body: bytes) -> _Operation:
    """The operation that a body asks for."""
    try:
        found = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise _bad("the JSON is nested too deeply") from None
    except ValueError as error:
        raise _bad(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise _bad("the body must be a JSON object: one operation")
    query, variables, name = (found.get(key) for key in ("query", "variables", "operationName"))
    if not isinstance(query, str) or not query.strip():
        raise _bad("query must be a string that is not empty")
    if not isinstance(variables, dict | None) or not isinstance(name, str | None):
        raise _bad("variables must be an object, and operationName a string")
    return _Operation(query, variables, name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
