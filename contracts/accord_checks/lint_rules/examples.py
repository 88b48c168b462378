"""Parts of contracts that show what rules refuse and what they ask for."""

import textwrap
from collections.abc import Sequence
from typing import Final

READS: Final = "NO_SIDE_EFFECTS"
IDEMPOTENT: Final = "IDEMPOTENT"
TIMEOUT: Final = "timeout: {seconds: 2}"
KEYED: Final = "idempotency: {key: KEY_REQUIRED}"
NATURAL: Final = "idempotency: {key: KEY_NATURAL}"
RETRY: Final = "retry: {max_attempts: 3}"
ANYBODY: Final = 'allow: ["*"]'


def block(option: str, *parts: str) -> str:
    """An option that is a message, a line or several for each of its parts."""
    return f"{option}: {{\n" + textwrap.indent("\n".join(parts), "  ") + "\n}"


def call_example(method: str, timeout: str) -> str:
    """A call of another RPC of the example."""
    return block("calls", f'method: "example.v1.ThingService/{method}"', f"timeout: {timeout}")


def compensation_example(source: str, method: str = "DropThing") -> str:
    """How the example's AddThing is undone."""
    fill = block("fill", 'field: "thing_id"', f'from: "{source}"')
    return block("compensation", f'method: "example.v1.ThingService/{method}"', fill)


def rpc_example(
    name: str,
    *options: str,
    level: str | None = None,
    stream: bool = False,
    edge: Sequence[str] = (),
) -> str:
    """An RPC that states these options of its policy, each a line or several, and of its route."""
    written = f"  option idempotency_level = {level};\n" if level else ""
    if edge:
        route = textwrap.indent("\n".join(edge), "    ")
        written += f"  option (accord.v1.edge) = {{\n{route}\n  }};\n"
    policy = textwrap.indent("\n".join(options), "    ")
    response = f"stream {name}Response" if stream else f"{name}Response"
    return (
        f"rpc {name}({name}Request) returns ({response}) {{\n"
        f"{written}  option (accord.v1.policy) = {{\n{policy}\n  }};\n}}\n"
    )


def get_thing(*options: str) -> str:
    """The example's GetThing: it only reads, has a timeout, these options, and any caller."""
    return rpc_example("GetThing", TIMEOUT, *options, ANYBODY, level=READS)


def allowing(*callers: str) -> str:
    """The example's GetThing with a list of callers."""
    listed = ", ".join(f'"{caller}"' for caller in callers)
    return rpc_example("GetThing", TIMEOUT, f"allow: [{listed}]", level=READS)


def service_example(*options: str) -> str:
    """A service with one RPC, that states these options of its own."""
    policy = textwrap.indent("\n".join(options), "    ")
    stated = f"  option (accord.v1.service) = {{\n{policy}\n  }};\n\n" if options else ""
    return (
        f"service ThingService {{\n{stated}"
        "  rpc GetThing(GetThingRequest) returns (GetThingResponse) {\n"
        f"    option idempotency_level = {READS};\n  }}\n}}\n"
    )
