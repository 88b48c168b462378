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
# Words in the names of fields.
_SIZE: Final = frozenset({"size", "limit", "max", "maximum", "count", "top", "per"})
_TOKEN: Final = frozenset({"token", "cursor", "marker", "continuation"})
# With these a caller goes on by itself.
_PLACE: Final = frozenset({"offset", "page", "after"})
_NEXT: Final = frozenset({"next", "more", "last"})
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
    purpose="A unary RPC that lists takes the size and the token of a page, and answers the next.",
    why="its answer grows until it no longer fits into a message, or ends where nobody can go on",
    bad=rpc_example("ListThings", TIMEOUT, ANYBODY, level=READS) + _LISTED,
    good=rpc_example("ListThings", TIMEOUT, ANYBODY, level=READS) + _PAGED,
)
def paged(contracts: Contracts) -> Iterator[Finding]:
    """RPCs called List... or Search... (as in AIP-158) whose answers hold a list.

    Under whatever names: a limit and a cursor, an offset, the number of a page; in the request or
    in a message that it holds. A server that gives out tokens may choose the size itself; the best
    matches of a search need no token. A list that its rules bound, or of an enum, does not grow.
    """
    validation = Validation(contracts)
    for rpc in contracts.own_rpcs:
        if not rpc.unary or not _LIST.match(rpc.short):
            continue
        if not any(_grows(field, validation) for field in rpc.descriptor.output_type.fields):
            continue
        asked = [_words(field) for field in _singles(rpc.descriptor.input_type)]
        sized = any(words & _SIZE for words in asked)
        tokens = [words for words in asked if words & (_TOKEN | _PLACE) and not words & _SIZE]
        answered = [_words(field) for field in _singles(rpc.descriptor.output_type)]
        goes_on = any(words & (_TOKEN | _NEXT) for words in answered)
        if (tokens and goes_on) or (sized and rpc.short.startswith("Search")):
            continue
        lacking = {
            "a page size": not sized,
            "a page token": not tokens,
            "the next token": not goes_on and all(words & _TOKEN for words in tokens),
        }
        missing = [name for name, lacks in lacking.items() if lacks]
        if missing:
            yield Finding(
                rpc.place,
                f"{rpc.short} answers a list without {', '.join(missing)}",
                "write `int32 page_size` and `string page_token` in the request and "
                "`string next_page_token` in the response, or stream",
            )


def _words(field: pb.FieldDescriptor) -> frozenset[str]:
    """Of its name: "maximumPageSize" has "maximum", "page" and "size"."""
    return frozenset(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", field.name).lower()))


def _singles(message: pb.Descriptor) -> Iterator[pb.FieldDescriptor]:
    """Its single fields, and those of the messages in them, not of what it lists."""
    for field in message.fields:
        if not field.is_repeated:
            yield field
            if field.message_type is not None:
                yield from (inner for inner in field.message_type.fields if not inner.is_repeated)


def _grows(field: pb.FieldDescriptor, validation: Validation) -> bool:
    return field.is_repeated and field.enum_type is None and not validation.counted(field)
