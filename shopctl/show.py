"""Prints protobuf messages."""

import json
from datetime import UTC

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def as_json(message: Message, **more: str) -> None:
    """One line of protobuf's JSON, with the field names of the contract, and `more` before them.

    Fields that are not set are there with their default, so that scripts can rely on them; an
    int64 is a string, as protobuf prescribes.
    """
    fields = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    typer.echo(json.dumps({**more, **fields}))


def moment(stamp: Timestamp) -> str:
    """Local date and time to the second; `-` when it is not set."""
    if not stamp.seconds:
        return "-"
    return stamp.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def fields(**values: str) -> None:
    """One `name  value` line each; empty values are left out."""
    width = max(map(len, values))
    for name, value in values.items():
        if value:
            typer.echo(f"{name.replace('_', ' '):<{width}}  {value}")
