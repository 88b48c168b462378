"""How exports are written down."""

import json
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


def text(document: Json) -> str:
    """A JSON document; keys stay in the order in which they were put."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def duration(seconds: float) -> str:
    """Seconds as JSON of google.protobuf.Duration: `0.25s`."""
    digits = f"{seconds:.9f}".rstrip("0").rstrip(".")
    return f"{digits}s"
