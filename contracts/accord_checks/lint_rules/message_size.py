"""How much a request may hold, and an answer."""

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf import descriptor as pb

from accord_checks.contracts import Contracts, reachable
from accord_checks.declarations import Rpc
from accord_checks.lint_rules.examples import ANYBODY, READS, TIMEOUT, get_thing, rpc_example
from accord_checks.lint_rules.rule import Finding, rule
from accord_checks.protovalidate import Validation

_LIST = re.compile(r"(List|Search)([A-Z]|$)")
_INTEGERS: Final = (
    pb.FieldDescriptor.TYPE_INT32,
    pb.FieldDescriptor.TYPE_UINT32,
    pb.FieldDescriptor.TYPE_INT64,
    pb.FieldDescriptor.TYPE_UINT64,
)
_REQUEST: Final = """
message GetThingRequest {{
  string name = 1{};
}}
"""
_LISTED: Final = """
message ListThingsRequest {}
message ListThingsResponse {
  repeated string things = 1;
}
"""
_PAGED: Final = """
message ListThingsRequest {
  int32 page_size = 1;
  string page_token = 2 [(buf.validate.field).string.max_len = 256];
}
message ListThingsResponse {
  repeated string things = 1;
  string next_page_token = 2;
}
"""


@rule(
    "ACCORD_FIELD_LIMITED",
    purpose="Strings, bytes, lists and maps in requests have an upper bound (buf.validate).",
    why="one request can take all the memory of a server",
    bad=get_thing() + _REQUEST.format(""),
    good=get_thing() + _REQUEST.format(" [(buf.validate.field).string.max_len = 200]"),
)
def limited(contracts: Contracts) -> Iterator[Finding]:
    """Fields without a bound, of messages that judged RPCs receive.

    Only of RPCs whose service, or request, is in a file that imports buf/validate/validate.proto:
    whoever has not begun to state bounds is not asked for them.
    """
    validation = Validation(contracts)
    for message, rpc in _received(contracts, validation):
        if contracts.files[message.file.name].imported:
            continue
        for found in message.fields:
            missing = validation.unbounded(found)
            if missing is None:
                continue
            yield Finding(
                contracts.files[message.file.name].place(found.full_name),
                f"{message.name}.{found.name}, which {rpc.short} receives, has no upper bound",
                f"write `[(buf.validate.field).{missing}]`",
            )


def _received(contracts: Contracts, validation: Validation) -> list[tuple[pb.Descriptor, Rpc]]:
    """The messages that RPCs receive, each with the first that does. A map's entry is none."""
    found: dict[str, tuple[pb.Descriptor, Rpc]] = {}
    for rpc in contracts.own_rpcs:
        request = rpc.descriptor.input_type
        if any(map(validation.spoken, (rpc.service.file, contracts.files[request.file.name]))):
            for message in reachable(request):
                if not message.GetOptions().map_entry:
                    found.setdefault(message.full_name, (message, rpc))
    return list(found.values())


@rule(
    "ACCORD_LIST_PAGED",
    purpose="A unary RPC that lists takes a page size and a token, and answers the next token.",
    why="its answer grows with the data until it no longer fits into a message",
    bad=rpc_example("ListThings", TIMEOUT, ANYBODY, level=READS) + _LISTED,
    good=rpc_example("ListThings", TIMEOUT, ANYBODY, level=READS) + _PAGED,
)
def paged(contracts: Contracts) -> Iterator[Finding]:
    """RPCs called List... or Search... (as in AIP-158) whose answers hold a list."""
    for rpc in contracts.own_rpcs:
        if not rpc.unary or not _LIST.match(rpc.short):
            continue
        request, response = rpc.descriptor.input_type, rpc.descriptor.output_type
        if not any(field.is_repeated for found in reachable(response) for field in found.fields):
            continue
        missing = [
            name
            for message, name, types in (
                (request, "page_size", _INTEGERS),
                (request, "page_token", (pb.FieldDescriptor.TYPE_STRING,)),
                (response, "next_page_token", (pb.FieldDescriptor.TYPE_STRING,)),
            )
            if name not in message.fields_by_name
            or message.fields_by_name[name].type not in types
            or message.fields_by_name[name].is_repeated
        ]
        if missing:
            yield Finding(
                rpc.place,
                f"{rpc.short} answers a list without {', '.join(missing)}",
                "write `int32 page_size` and `string page_token` in the request and "
                "`string next_page_token` in the response, or stream",
            )
