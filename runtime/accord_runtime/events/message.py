"""An event as a message: what is wrong with its headers, and how it is kept as work."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from accord_runtime.events.publisher import subject

CAME: Final = "nats-subject"
"""Beside the headers of an event that came by the broker: the subject on which it came."""

_NUMBER: Final = re.compile("[0-9]{1,18}")


def problem(headers: Mapping[str, str], handled: Mapping[str, str], service: str) -> str:
    """Why headers are not those of an event that a service handles; empty if they are.

    `handled`: full name of an event -> the subject of its kind.
    """
    for name in ("ce-id", "ce-type", "ce-subject"):
        if not headers.get(name):
            return f"no event: it has no {name}"
    for name, value in (("ce-sequence", ""), ("ce-dataversion", "1")):
        if not _NUMBER.fullmatch(value := headers.get(name, value)):
            return f"no event: its {name} is {value[:20]!r}"
    kind = headers["ce-type"]
    if kind not in handled:
        return f"a {kind[:200]}, which this version of {service} does not handle"
    due = subject(handled[kind], headers["ce-subject"])
    if (came := headers.get(CAME, due)) != due:
        return f"a {kind} on {came[:200]}, and its subject is {due}"
    return ""


def occurred(headers: Mapping[str, str]) -> float | None:
    """When an event happened, Unix seconds; None if it does not say."""
    try:
        return datetime.fromisoformat(headers["ce-time"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None


def pack(headers: Mapping[str, str], payload: bytes) -> bytes:
    """An event as the payload of a row of work."""
    kept = {name: value for name, value in headers.items() if name.startswith(("ce-", CAME))}
    return json.dumps(kept).encode() + b"\n" + payload


def unpack(packed: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and payload of a row of work."""
    head, _, payload = packed.partition(b"\n")
    return json.loads(head), payload
