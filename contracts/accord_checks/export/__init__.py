"""What others can read of a contract: `accord contracts export TARGET SOURCE`.

One module a target. All of them read `ResolvedContracts`, whose policies are those that the library
enforces, and give the same bytes for the same contracts. Here is how JSON is written down.
"""

import json
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


def json_text(document: Json) -> str:
    """A JSON document; keys stay in the order in which they were put."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def json_duration(seconds: float) -> str:
    """Seconds as JSON of google.protobuf.Duration: `0.25s`."""
    digits = f"{seconds:.9f}".rstrip("0").rstrip(".")
    return f"{digits}s"
