"""An OpenAPI 3.1 document: what is reached from outside, `(accord.v1.edge)`, as REST.

Sources: spec.openapis.org/oas/v3.1.1, RFC 9457 (problem details), RFC 6750 (bearer tokens), the
draft of the IETF on `Idempotency-Key`, html.spec.whatwg.org (server-sent events).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from accord.contract import EdgePolicy, Key
from accord_checks.contracts import reachable
from accord_checks.declarations import Rpc
from accord_checks.export import Json, json_schema, json_text
from accord_checks.export.resolved_contracts import ResolvedContracts

VERSION: Final = "3.1.0"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
EVENTS: Final = "text/event-stream"

_SECONDS: Final = r"^([1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])$"
_IN_QUERY: Final = ("GET", "DELETE")
_PROBLEM: Final = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong, by RFC 9457, with gRPC's `code`, the `reason` for programs and"
    " its `domain`, and google.rpc `details`. New members may appear at any time.",
    "properties": {
        **{
            name: {"type": "string"}
            for name in (
                *("type", "title", "detail", "instance"),
                *("code", "reason", "domain", "requestId"),
            )
        },
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "details": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["title", "status"],
}
_RESPONSES: Final = {
    "Unauthorized": ("No token, or one that is not valid.", {"WWW-Authenticate": "string"}),
    "Forbidden": ("The token lacks a scope, or its user may not do that.", {}),
    "TooManyRequests": ("Too many calls; wait so many seconds.", {"Retry-After": "integer"}),
    "Unavailable": ("It cannot be answered now; wait so many seconds.", {"Retry-After": "integer"}),
    "Late": ("The time of the call was up.", {}),
    "Problem": ("Anything else that went wrong.", {}),
}


def export(
    contracts: ResolvedContracts,
    *,
    title: str = "API",
    release: str = "unreleased",
    servers: Sequence[str] = ("/",),
) -> str:
    """The document as JSON; `release` is the version of the contracts, `servers` their URLs."""
    routes = contracts.routes()
    schemas: dict[str, Json] = {"Problem": _PROBLEM}
    paths: dict[str, Json] = {}
    for rpc, edge in routes:
        paths.setdefault(edge.path, {})[edge.verb.lower()] = _operation(contracts, rpc, edge)
        bodies = [] if edge.verb in _IN_QUERY else [rpc.descriptor.input_type]
        for message in (*bodies, rpc.descriptor.output_type):
            json_schema.describe(message, contracts.comment, schemas, contracts.validation)
    _close(routes, schemas)
    names = Counter(rpc.short for rpc, _ in routes)
    for rpc, edge in routes:
        if names[rpc.short] > 1:
            paths[edge.path][edge.verb.lower()]["operationId"] = rpc.name.replace("/", ".")
    tags = {rpc.service.short: contracts.comment(rpc.service.name) for rpc, _ in routes}
    document: Json = {
        "openapi": VERSION,
        "info": {
            "title": title,
            "version": release,
            "description": "Made from the protobuf contracts. A new field may appear in any answer"
            " at any time.",
        },
        "servers": [{"url": server} for server in servers],
        "tags": [{"name": it, "description": said} for it, said in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {
                name: _failure(said, headers) for name, (said, headers) in _RESPONSES.items()
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A JWT whose claim `scope` has the scopes of the operation.",
                }
            },
        },
    }
    return json_text(document)


def _failure(said: str, headers: dict[str, str]) -> Json:
    failure: Json = {
        "description": said,
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if headers:
        failure["headers"] = {name: {"schema": {"type": kind}} for name, kind in headers.items()}
    return failure


def _close(routes: list[tuple[Rpc, EdgePolicy]], schemas: dict[str, Json]) -> None:
    """A request with a field that nobody knows is refused; an answer may have any."""
    bodies = [rpc.descriptor.input_type for rpc, edge in routes if edge.verb not in _IN_QUERY]
    for message in reachable(*bodies):
        if message.full_name in schemas:
            schemas[message.full_name]["additionalProperties"] = False


def _operation(contracts: ResolvedContracts, rpc: Rpc, edge: EdgePolicy) -> Json:
    said = contracts.comment(rpc.descriptor.full_name)
    responses: dict[str, Json] = {"200": {"description": "The answer.", "content": _content(rpc)}}
    if rpc.policy.resume is not None:
        responses["204"] = {"description": "The stream has ended, and all of it has been seen."}
    if rpc.policy.cache is not None and edge.verb == "GET":
        responses["304"] = {"description": "It is what the caller has, by `If-None-Match`."}
    if not edge.public:
        responses["401"] = _ref("responses", "Unauthorized")
        responses["403"] = _ref("responses", "Forbidden")
    responses["429"] = _ref("responses", "TooManyRequests")
    responses["503"] = _ref("responses", "Unavailable")
    responses["504"] = _ref("responses", "Late")
    responses["default"] = _ref("responses", "Problem")
    operation: Json = {
        "operationId": rpc.short,
        "tags": [rpc.service.short],
        "summary": " ".join(said.partition(".")[0].split()),
        "description": said,
        "x-rpc": rpc.name,
        "security": [] if edge.public else [{"bearer": sorted(edge.scopes)}],
        "parameters": list(_parameters(contracts, rpc, edge)),
        "responses": responses,
    }
    if rpc.descriptor.GetOptions().deprecated:
        operation["deprecated"] = True
    if edge.verb not in _IN_QUERY:
        operation["requestBody"] = _body(contracts, rpc, edge)
    return operation


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _content(rpc: Rpc) -> Json:
    answer = _ref("schemas", rpc.descriptor.output_type.full_name)
    if not rpc.descriptor.server_streaming:
        return {JSON: {"schema": answer}}
    # Of each event, as 3.2 has them; 3.1 has no other word for it (`itemSchema`).
    problem = _ref("schemas", "Problem")
    kinds = {"message": answer, "error": problem, "end": {"type": "object"}}
    return {
        EVENTS: {
            "schema": {
                "type": "object",
                "description": "Each event; `end` is the last, or `error`.",
                "properties": {"id": {"type": "string"}, "event": {"type": "string"}},
                "required": ["event", "data"],
                "oneOf": [_event(kind, data) for kind, data in kinds.items()],
            }
        }
    }


def _event(kind: str, data: Json) -> Json:
    said = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
    return {"properties": {"event": {"const": kind}, "data": said}}


def _parameters(contracts: ResolvedContracts, rpc: Rpc, edge: EdgePolicy) -> Iterator[Json]:
    fields = rpc.descriptor.input_type.fields
    asked = [it for it in fields if it.name in edge.fields or edge.verb in _IN_QUERY]
    for field in sorted(asked, key=lambda it: (it.name not in edge.fields, it.number)):
        inside = field.name in edge.fields
        schema = json_schema.of_field(field, contracts.comment, contracts.validation)
        if inside and schema.get("type") == "string":
            schema.setdefault("minLength", 1)
        parameter: Json = {
            "name": field.name if inside else field.json_name,
            "in": "path" if inside else "query",
            "required": inside or json_schema.needs(field, contracts.validation),
            "schema": schema,
        }
        if said := schema.pop("description", ""):
            parameter["description"] = said
        yield parameter
    if rpc.policy.key is Key.REQUIRED:
        said = "Of the caller's choice; a repeat with the same key gets the first answer."
        schema = {"type": "string", "pattern": "^[!-~]+$", "maxLength": 255}
        yield _header("Idempotency-Key", said, schema, required=True)
    said = "Seconds that the caller waits at most."
    yield _header("Request-Timeout", said, {"type": "string", "pattern": _SECONDS})
    if rpc.policy.resume is not None:
        said = "The `id` of the last event seen: the stream goes on after it."
        yield _header("Last-Event-ID", said, {"type": "string", "pattern": "^[0-9]{1,19}$"})


def _header(name: str, said: str, schema: Json, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": said,
        "schema": schema,
    }


def _body(contracts: ResolvedContracts, rpc: Rpc, edge: EdgePolicy) -> Json:
    """The request, without what is in the path."""
    message = rpc.descriptor.input_type
    schema = _ref("schemas", message.full_name)
    if edge.fields:
        schema = json_schema.of_message(
            message, contracts.comment, contracts.validation, without=edge.fields
        )
        schema["additionalProperties"] = False
    left = [field for field in message.fields if field.name not in edge.fields]
    required = any(json_schema.needs(field, contracts.validation) for field in left)
    return {"required": required, "content": {JSON: {"schema": schema}}}
