"""An AsyncAPI 3.0 document: the events, where they are published, by whom, and what is in them.

Payloads are described by JSON Schema (draft 7) of protobuf's JSON form, with each field's number
beside it; on the wire they are protobuf.
"""

from typing import Final

from google.protobuf import descriptor as pb

from accord_checks.export import schema
from accord_checks.export.catalog import Catalog, Event
from accord_checks.export.output import Json, text

VERSION: Final = "3.0.0"
CONTENT_TYPE: Final = "application/protobuf"


def export(catalog: Catalog, *, title: str = "Events", release: str = "unreleased") -> str:
    """The document as JSON.

    Args:
        catalog: the contracts.
        title: what the document is called.
        release: the version of the contracts as a whole.
    """
    schemas: dict[str, Json] = {}
    for event in catalog.events:
        _describe(catalog, event.descriptor, schemas)
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
        "channels": {_id(event): _channel(event) for event in catalog.events},
        "operations": {f"publish-{_id(event)}": _operation(event) for event in catalog.events},
        "components": {
            "messages": {_id(event): _message(event) for event in catalog.events},
            "schemas": dict(sorted(schemas.items())),
        },
    }
    return text(document)


def _id(event: Event) -> str:
    """The name of an event's channel, message and operation: that of its message, which is unique.

    Its subject need not be.
    """
    return event.name


def _key(event: Event) -> pb.FieldDescriptor:
    return event.descriptor.fields_by_name[event.policy.key]


def _channel(event: Event) -> Json:
    key = _key(event)
    return {
        "address": f"{event.policy.subject}.{{{key.name}}}",
        "title": event.policy.subject,
        "messages": {event.descriptor.name: {"$ref": f"#/components/messages/{_id(event)}"}},
        "parameters": {
            key.name: {
                "description": "The event's key as one token: percent-encoded, a dot as %2E.",
                "location": f"$message.payload#/{key.json_name}",
            }
        },
    }


def _operation(event: Event) -> Json:
    operation: Json = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_id(event)}"},
        "title": f"Publish {event.descriptor.name}",
        "messages": [{"$ref": f"#/channels/{_id(event)}/messages/{event.descriptor.name}"}],
    }
    if event.publishers:
        operation["tags"] = [{"name": publisher} for publisher in event.publishers]
    return operation


def _message(event: Event) -> Json:
    message: Json = {
        "name": event.name,
        "title": event.descriptor.name,
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{event.name}"},
        "x-version": event.policy.version,
        "x-key": event.policy.key,
        "x-publishers": list(event.publishers),
        "x-file": event.descriptor.file.name,
    }
    if event.comment:
        message["description"] = event.comment
    return message


def _describe(catalog: Catalog, message: pb.Descriptor, schemas: dict[str, Json]) -> None:
    """Add a message's schema, and those of all that it refers to."""
    if message.full_name in schemas or message.full_name in schema.WELL_KNOWN:
        return
    schemas[message.full_name] = {}
    schemas[message.full_name] = schema.of_message(message, catalog.comment)
    for field in message.fields:
        used = (schema.map_value(field) or field).message_type
        if used is not None:
            _describe(catalog, used, schemas)
