"""The page itself, from the parts that the other modules make."""

from collections import defaultdict
from collections.abc import Iterable
from importlib import resources
from itertools import chain
from string import Template
from typing import Final

from google.protobuf import descriptor as pb

from accord.contract import Key
from accord_checks.contracts import reachable
from accord_checks.declarations import Event, Rpc, Service
from accord_checks.export.json_schema import map_value
from accord_checks.export.reference import policy_table
from accord_checks.export.reference.call_edges import Calls, Edge
from accord_checks.export.reference.call_graph_svg import picture
from accord_checks.export.reference.html_parts import (
    anchor,
    attribute,
    code,
    counted,
    escaped,
    human,
    link,
    prose,
    table,
)
from accord_checks.export.resolved_contracts import ResolvedContracts
from accord_checks.image import WELL_KNOWN


def export(contracts: ResolvedContracts, *, title: str = "Contracts") -> str:
    """The page as HTML."""
    calls = Calls(contracts)
    types = _types(contracts)
    sections = [
        _graph(contracts, calls),
        *(_service(contracts, service, calls, types) for service in contracts.services),
        _events(contracts, types),
        _errors(contracts),
        _messages(contracts, types),
    ]
    # Nothing is loaded from anywhere; the page says so to the browser.
    return Template(_asset("page.html")).substitute(
        title=escaped(title),
        style=_asset("page.css"),
        navigation=_navigation(contracts, types),
        services=counted(len(contracts.services), "service"),
        rpcs=counted(sum(1 for _ in contracts.rpcs()), "RPC"),
        events=counted(len(contracts.events), "event"),
        sections="\n".join(section for section in sections if section),
        script=_asset("page.js"),
    )


Type = pb.Descriptor | pb.EnumDescriptor
_Optioned = (
    Type | pb.ServiceDescriptor | pb.MethodDescriptor | pb.FieldDescriptor | pb.EnumValueDescriptor
)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _types(contracts: ResolvedContracts) -> dict[str, Type]:
    """Every message and enum that an RPC or event uses, by full name, in order of name."""
    used = [event.descriptor for event in contracts.events]
    for rpc in contracts.rpcs():
        used += (rpc.descriptor.input_type, rpc.descriptor.output_type)
    found: dict[str, Type] = {}
    for message in chain.from_iterable(map(reachable, used)):
        if not message.GetOptions().map_entry:
            found[message.full_name] = message
        for field in message.fields:
            enum = field.enum_type
            if enum is not None and not enum.file.name.startswith(WELL_KNOWN):
                found[enum.full_name] = enum
    return dict(sorted(found.items()))


def _navigation(contracts: ResolvedContracts, types: dict[str, Type]) -> str:
    services = "".join(
        f'<li><a href="#{anchor(service.name)}">{escaped(service.short)}</a>'
        f' <span class="dim">{escaped(service.descriptor.file.package)}</span></li>'
        for service in contracts.services
    )
    parts = [("who-calls-whom", "Who calls whom")]
    if contracts.events:
        parts.append(("events", f"Events ({len(contracts.events)})"))
    if any(rpc.policy.errors for rpc in contracts.rpcs()):
        parts.append(("errors", "Errors"))
    if types:
        parts.append(("messages", f"Messages ({len(types)})"))
    listed = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in parts)
    return f'<nav aria-label="Contents"><ul>{listed}</ul><h2>Services</h2><ul>{services}</ul></nav>'


def _graph(contracts: ResolvedContracts, calls: Calls) -> str:
    heading = '<section id="who-calls-whom"><h2>Who calls whom</h2>'
    if not calls.edges:
        return f"{heading}<p>No contract says whom it calls or who may call it.</p></section>"
    rows = "".join(_edge(edge, calls) for edge in calls.edges)
    return (
        f"{heading}{picture(contracts, calls.edges)}"
        f"<details><summary>The same as a table ({len(calls.edges)} rows)</summary>"
        f"{table(('From', 'Why', 'To', 'Time allowed'), rows)}</details></section>"
    )


def _edge(edge: Edge, calls: Calls) -> str:
    source = policy_table.rpc_link(edge.source, calls, short=False)
    allowed = "" if edge.timeout is None else human(edge.timeout)
    target = policy_table.rpc_link(edge.target, calls, short=False)
    cells = (source, edge.kind.value, target, allowed)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _service(
    contracts: ResolvedContracts, service: Service, calls: Calls, types: dict[str, Type]
) -> str:
    owner = f", owned by {code(service.owner)}" if service.owner else ""
    rpcs = "".join(_rpc(contracts, rpc, calls, types) for rpc in service.rpcs)
    return (
        f'<section id="{anchor(service.name)}" data-group><h2>{escaped(service.name)}'
        f"{_badges(_deprecated(service.descriptor))}</h2>"
        f'<p class="dim">{code(service.descriptor.file.name)}{owner}</p>'
        f"{prose(contracts.comment(service.name))}"
        f"{rpcs or '<p>It has no RPCs.</p>'}</section>"
    )


def _rpc(contracts: ResolvedContracts, rpc: Rpc, calls: Calls, types: dict[str, Type]) -> str:
    found = rpc.descriptor
    request = _stream(found.client_streaming) + _named(found.input_type, types)
    response = _stream(found.server_streaming) + _named(found.output_type, types)
    badges = _deprecated(found)
    if not rpc.policy.declared:
        badges.append("no policy stated")
    if rpc.policy.key is Key.REQUIRED:
        badges.append("needs a key")
    rows = "".join(
        f"<dt>{escaped(name)}</dt><dd>{said}</dd>" for name, said in policy_table.rows(rpc, calls)
    )
    return (
        f'<article id="{anchor(rpc.policy.method)}" data-search="{_words(rpc.service.name)}">'
        f"<h3>{escaped(rpc.short)}{_badges(badges)}</h3>"
        f"<p>{request} → {response}</p>{prose(contracts.comment(found.full_name))}"
        f"<dl>{rows}</dl></article>"
    )


def _stream(streamed: bool) -> str:
    return "stream of " if streamed else ""


def _deprecated(found: _Optioned) -> list[str]:
    return ["deprecated"] if found.GetOptions().deprecated else []


def _badges(texts: Iterable[str]) -> str:
    return "".join(f'<span class="badge">{text}</span>' for text in texts)


def _words(*names: str) -> str:
    """What an entry is found by besides what it shows."""
    return attribute(" ".join(names).lower())


def _named(found: Type, types: dict[str, Type]) -> str:
    return link(found.full_name, found.name) if found.full_name in types else code(found.full_name)


def _events(contracts: ResolvedContracts, types: dict[str, Type]) -> str:
    if not contracts.events:
        return ""
    events = "".join(_event(contracts, event, types) for event in contracts.events)
    return f'<section id="events" data-group><h2>Events</h2>{events}</section>'


def _event(contracts: ResolvedContracts, event: Event, types: dict[str, Type]) -> str:
    publishers = (
        ", ".join(link(it, it) for it in contracts.publishers(event)) or "nobody in its package"
    )
    badges = _badges([*_deprecated(event.descriptor), f"version {event.policy.version}"])
    return (
        f'<article id="event-{attribute(event.name)}" data-search="{_words(event.name, "event")}">'
        f"<h3>{escaped(event.policy.subject)}{badges}</h3>"
        f"{prose(contracts.comment(event.name))}"
        f"<dl><dt>Message</dt><dd>{_named(event.descriptor, types)}</dd>"
        f"<dt>Ordered by</dt><dd>{code(event.policy.key)}</dd>"
        f"<dt>Published by</dt><dd>{publishers}</dd></dl></article>"
    )


def _errors(contracts: ResolvedContracts) -> str:
    users: dict[str, list[Rpc]] = defaultdict(list)
    for rpc in contracts.rpcs():
        for reason in rpc.policy.errors:
            users[reason].append(rpc)
    if not users:
        return ""
    rows = "".join(
        f'<tr id="error-{attribute(reason)}" data-search="error"><td>{code(reason)}</td><td>'
        + ", ".join(link(it.policy.method, it.policy.method.rpartition(".")[2]) for it in rpcs)
        + "</td></tr>"
        for reason, rpcs in sorted(users.items())
    )
    return (
        '<section id="errors" data-group><h2>Errors</h2>'
        f"{table(('Reason', 'Answered by'), rows)}</section>"
    )


def _messages(contracts: ResolvedContracts, types: dict[str, Type]) -> str:
    if not types:
        return ""
    entries = "".join(
        _enum(contracts, found)
        if isinstance(found, pb.EnumDescriptor)
        else _message(contracts, found, types)
        for found in types.values()
    )
    return f'<section id="messages" data-group><h2>Messages</h2>{entries}</section>'


def _message(contracts: ResolvedContracts, message: pb.Descriptor, types: dict[str, Type]) -> str:
    rows = "".join(
        f"<tr><td>{code(field.name)}{_badges(_deprecated(field))}</td><td>{field.number}</td>"
        f"<td>{_type(field, types)}</td><td>"
        f"{prose(contracts.comment(field.full_name))}</td></tr>"
        for field in message.fields
    )
    return _entry(contracts, message, ("Field", "Number", "Type", "Meaning"), rows)


def _enum(contracts: ResolvedContracts, enum: pb.EnumDescriptor) -> str:
    rows = "".join(
        f"<tr><td>{code(value.name)}{_badges(_deprecated(value))}</td><td>{value.number}</td><td>"
        f"{prose(contracts.comment(f'{enum.full_name}.{value.name}'))}</td></tr>"
        for value in enum.values
    )
    return _entry(contracts, enum, ("Value", "Number", "Meaning"), rows)


def _entry(contracts: ResolvedContracts, found: Type, columns: Iterable[str], rows: str) -> str:
    return (
        f'<article id="{anchor(found.full_name)}" data-search="message">'
        f"<h3>{escaped(found.full_name)}{_badges(_deprecated(found))}</h3>"
        f"{prose(contracts.comment(found.full_name))}"
        f"{table(columns, rows) if rows else '<p>It is empty.</p>'}</article>"
    )


def _type(field: pb.FieldDescriptor, types: dict[str, Type]) -> str:
    value = map_value(field)
    if value is not None and field.message_type is not None:
        key = field.message_type.fields_by_name["key"]
        return f"map of {_type(key, types)} to {_type(value, types)}"
    used = field.message_type or field.enum_type
    name = escaped(_SCALARS[field.type]) if used is None else _named(used, types)
    oneof = field.containing_oneof
    if oneof is not None and len(oneof.fields) > 1:
        name += f' <span class="dim">one of {escaped(oneof.name)}</span>'
    return f"list of {name}" if field.is_repeated else name


_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(pb.FieldDescriptor).items()
    if name.startswith("TYPE_")
}
