"""An AsyncAPI 3.0 document: the events, where they are published, by whom, and what is in them.

Payloads are described by JSON Schema (draft 7) of protobuf's JSON form, with each field's number
beside it; on the wire they are protobuf.
"""

from typing import Final

from google.protobuf import descriptor as pb

from accord_checks.declarations import Event
from accord_checks.export import Json, json_schema, json_text
from accord_checks.export.resolved_contracts import ResolvedContracts

VERSION: Final = "3.0.0"
CONTENT_TYPE: Final = "application/protobuf"


def export(
    contracts: ResolvedContracts, *, title: str = "Events", release: str = "unreleased"
) -> str:
    """The document as JSON; `release` is the version of the contracts as a whole."""
    schemas: dict[str, Json] = {}
    for event in contracts.events:
        json_schema.describe(event.descriptor, contracts.comment, schemas)
    document: Json = {
        "asyncapi": VERSION,
        "info": {
            "title": title,
            "version": release,
            "description": "Made from the protobuf contracts. Events with the same key are"
            " delivered in the order in which they were written. A new field may appear in any"
            " event at any time.",
        },
        "defaultContentType": CONTENT_TYPE,
        # An event's channel, message and operation have its name, which is unique. Its subject need
        # not be.
        "channels": {event.name: _channel(event) for event in contracts.events},
        "operations": {
            f"publish-{event.name}": _operation(contracts, event) for event in contracts.events
        },
        "components": {
            "messages": {event.name: _message(contracts, event) for event in contracts.events},
            "schemas": dict(sorted(schemas.items())),
        },
    }
    return json_text(document)


def _key(event: Event) -> pb.FieldDescriptor:
    return event.descriptor.fields_by_name[event.policy.key]


def _channel(event: Event) -> Json:
    key = _key(event)
    return {
        "address": f"{event.policy.subject}.{{{key.name}}}",
        "title": event.policy.subject,
        "messages": {event.short: {"$ref": f"#/components/messages/{event.name}"}},
        "parameters": {
            key.name: {
                "description": "The event's key as one token: percent-encoded, a dot as %2E.",
                "location": f"$message.payload#/{key.json_name}",
            }
        },
    }


def _operation(contracts: ResolvedContracts, event: Event) -> Json:
    operation: Json = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{event.name}"},
        "title": f"Publish {event.short}",
        "messages": [{"$ref": f"#/channels/{event.name}/messages/{event.short}"}],
    }
    if publishers := contracts.publishers(event):
        operation["tags"] = [{"name": publisher} for publisher in publishers]
    return operation


def _message(contracts: ResolvedContracts, event: Event) -> Json:
    message: Json = {
        "name": event.name,
        "title": event.short,
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{event.name}"},
        "x-version": event.policy.version,
        "x-key": event.policy.key,
        "x-publishers": contracts.publishers(event),
        "x-file": event.descriptor.file.name,
    }
    if comment := contracts.comment(event.name):
        message["description"] = comment
    return message
