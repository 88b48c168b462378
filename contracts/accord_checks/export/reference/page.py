"""The page itself: what the contracts say as data, and what shows it."""

import base64
import hashlib
import html
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Final

from google.protobuf import descriptor as pb

from accord.contract import Key
from accord_checks.contracts import reachable
from accord_checks.declarations import Event, Rpc, Service
from accord_checks.export import Json
from accord_checks.export.json_schema import map_value
from accord_checks.export.reference import policy_table
from accord_checks.export.reference.call_edges import Calls, Kind
from accord_checks.export.reference.inline_text import code, counted, human, link, plain
from accord_checks.export.resolved_contracts import ResolvedContracts
from accord_checks.image import WELL_KNOWN


def export(contracts: ResolvedContracts, *, title: str = "Contracts") -> str:
    """The page as HTML."""
    style, script = _asset("page.css"), _asset("page.js")
    # Nothing is loaded from anywhere, and nothing else is run; the page says so to the browser.
    return Template(_asset("page.html")).substitute(
        title=html.escape(title),
        style=style,
        style_hash=_hash(style),
        services=counted(len(contracts.services), "service"),
        rpcs=counted(sum(1 for _ in contracts.rpcs()), "RPC"),
        events=counted(len(contracts.events), "event"),
        types=counted(len(_types(contracts)), "message"),
        names="".join(map(_names, contracts.services)),
        # Names and comments repeat each other: a tenth is left of them.
        data=base64.b64encode(zlib.compress(_json(_data(contracts)), 9)).decode(),
        script=script,
        script_hash=_hash(script),
    )


Type = pb.Descriptor | pb.EnumDescriptor
_Optioned = (
    Type | pb.ServiceDescriptor | pb.MethodDescriptor | pb.FieldDescriptor | pb.EnumValueDescriptor
)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a content security policy calls an element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(data: Json) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _names(service: Service) -> str:
    """A service with its RPCs, for who reads without scripts."""
    rpcs = "".join(
        f'<li id="{_id(rpc)}">{html.escape(_signature(rpc))}</li>' for rpc in service.rpcs
    )
    return f"<h2>{html.escape(service.name)}</h2><ul>{rpcs}</ul>"


def _id(rpc: Rpc) -> str:
    return html.escape(rpc.name)


def _signature(rpc: Rpc) -> str:
    found = rpc.descriptor
    request = _stream(found.client_streaming) + found.input_type.name
    return f"{rpc.short}: {request} → {_stream(found.server_streaming)}{found.output_type.name}"


def _data(contracts: ResolvedContracts) -> Json:
    """What `page.js` shows. A mark is a word beside a name; a row is a term and text."""
    calls, types = Calls(contracts), _types(contracts)
    return {
        "services": [_service(contracts, found, calls, types) for found in contracts.services],
        "events": [_event(contracts, event, types) for event in contracts.events],
        "errors": _errors(contracts),
        "types": [_entry(contracts, found, types) for found in types.values()],
        "edges": [
            [it.source, it.kind.value, it.target, *([human(it.timeout)] if it.timeout else [])]
            for it in calls.edges
        ],
        "drawn": [kind.value for kind in Kind if kind is not Kind.UNDO] + ["publishes"],
    }


def _types(contracts: ResolvedContracts) -> dict[str, Type]:
    """Every message and enum that an RPC or event uses, by full name, in order of name."""
    used = [event.descriptor for event in contracts.events]
    for rpc in contracts.rpcs():
        used += (rpc.descriptor.input_type, rpc.descriptor.output_type)
    found: dict[str, Type] = {}
    for message in reachable(*used):
        if not message.GetOptions().map_entry:
            found[message.full_name] = message
        for field in message.fields:
            enum = field.enum_type
            if enum is not None and not enum.file.name.startswith(WELL_KNOWN):
                found[enum.full_name] = enum
    return dict(sorted(found.items()))


def _service(
    contracts: ResolvedContracts, service: Service, calls: Calls, types: dict[str, Type]
) -> Json:
    owner = f", owned by {code(service.owner)}" if service.owner else ""
    return {
        "name": service.name,
        "file": f"{code(service.descriptor.file.name)}{owner}",
        "comment": plain(contracts.comment(service.name)),
        "marks": _deprecated(service.descriptor),
        "rpcs": [_rpc(contracts, rpc, calls, types) for rpc in service.rpcs],
    }


def _rpc(contracts: ResolvedContracts, rpc: Rpc, calls: Calls, types: dict[str, Type]) -> Json:
    found, marks = rpc.descriptor, _deprecated(rpc.descriptor)
    if not rpc.policy.declared:
        marks.append("no policy stated")
    if rpc.policy.key is Key.REQUIRED:
        marks.append("needs a key")
    return {
        "name": rpc.short,
        "request": _stream(found.client_streaming) + _named(found.input_type, types),
        "response": _stream(found.server_streaming) + _named(found.output_type, types),
        "marks": marks,
        "comment": plain(contracts.comment(found.full_name)),
        "rows": list(policy_table.rows(rpc, calls)),
    }


def _stream(streamed: bool) -> str:
    return "stream of " if streamed else ""


def _deprecated(found: _Optioned) -> list[str]:
    return ["deprecated"] if found.GetOptions().deprecated else []


def _named(found: Type, types: dict[str, Type]) -> str:
    return link(found.full_name, found.name) if found.full_name in types else code(found.full_name)


def _event(contracts: ResolvedContracts, event: Event, types: dict[str, Type]) -> Json:
    publishers = contracts.publishers(event)
    return {
        "name": event.name,
        "subject": plain(event.policy.subject),
        "version": event.policy.version,
        "message": _named(event.descriptor, types),
        "key": code(event.policy.key),
        "by": publishers,
        "publishers": ", ".join(link(it, it) for it in publishers) or "nobody in its package",
        "comment": plain(contracts.comment(event.name)),
        "marks": _deprecated(event.descriptor),
    }


def _errors(contracts: ResolvedContracts) -> list[tuple[str, str]]:
    """Each reason, and who answers it."""
    users: dict[str, list[str]] = defaultdict(list)
    for rpc in contracts.rpcs():
        for reason in rpc.policy.errors:
            users[reason].append(link(rpc.name, rpc.name.rpartition(".")[2]))
    return [(plain(reason), ", ".join(rpcs)) for reason, rpcs in sorted(users.items())]


def _entry(contracts: ResolvedContracts, found: Type, types: dict[str, Type]) -> Json:
    """A message or an enum; a row of it is name, number, type, meaning and whether deprecated."""
    message = isinstance(found, pb.Descriptor)
    rows = [
        [part.name, part.number, *said, *([1] if part.GetOptions().deprecated else [])]
        for part, said in _parts(contracts, found, types)
    ]
    return {
        "name": found.full_name,
        "columns": ["Field", "Number", "Type", "Meaning"] if message else _OF_ENUM,
        "comment": plain(contracts.comment(found.full_name)),
        "marks": _deprecated(found),
        "rows": rows,
    }


_OF_ENUM: Final = ["Value", "Number", "Meaning"]


def _parts(
    contracts: ResolvedContracts, found: Type, types: dict[str, Type]
) -> Iterable[tuple[pb.FieldDescriptor | pb.EnumValueDescriptor, tuple[str, str]]]:
    """The fields of a message, or the values of an enum, with type and meaning."""
    if isinstance(found, pb.EnumDescriptor):
        for value in found.values:
            yield value, ("", plain(contracts.comment(f"{found.full_name}.{value.name}")))
        return
    for field in found.fields:
        yield field, (_type(field, types), plain(contracts.comment(field.full_name)))


def _type(field: pb.FieldDescriptor, types: dict[str, Type]) -> str:
    value = map_value(field)
    if value is not None and field.message_type is not None:
        key = field.message_type.fields_by_name["key"]
        return f"map of {_type(key, types)} to {_type(value, types)}"
    used = field.message_type or field.enum_type
    name = _SCALARS[field.type] if used is None else _named(used, types)
    oneof = field.containing_oneof
    if oneof is not None and len(oneof.fields) > 1:
        name += f" (one of {oneof.name})"
    return f"list of {name}" if field.is_repeated else name


_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(pb.FieldDescriptor).items()
    if name.startswith("TYPE_")
}
