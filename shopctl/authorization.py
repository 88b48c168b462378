"""Who may call what, as the contracts say: one answer with its reason, or all of it as a table."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from accord import method_policy
from accord.context import ANONYMOUS
from accord.server.authorization import EVERYBODY, NO_IDENTITY, denial, opened, ruling
from services.topology import CONSOLE, EDGE, SERVICES
from shopctl.certs import OPERATOR, TRUST_DOMAIN, spiffe_id
from shopctl.options import contracts, find_method

PROTOS: Final = Path(__file__).parents[1] / "protos"
"""Where the contracts are, in a checkout."""

_GRPC: Final = "grpc."
_FOREIGN: Final = "WRONG_TRUST_DOMAIN"

CALLERS: Final = (*SERVICES, "mailer", EDGE, CONSOLE, OPERATOR)
"""The identities of the shop."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a caller may call a method, and why."""

    caller: str
    method: str
    allowed: bool
    reason: str
    """Of the refusal, as the caller gets it; empty: there is none."""
    why: str
    allow: list[str]
    """Whom the contract lists."""
    contract: str
    """Where that stands: `file:line`, or the file where the text is not at hand."""
    override: None = None
    """Live policy in force: there is never any, who may call is not a matter of operation."""


def explain(caller: str, wanted: str) -> Explanation:
    """Whether a caller may call a method of the contracts, or one of gRPC's own.

    Args:
        caller: a SPIFFE id, a name in the shop's trust domain, or "anonymous".
        wanted: the full name of the method, or the end of one.

    Raises:
        typer.BadParameter: there is no such method.
    """
    if wanted.removeprefix("/").startswith(_GRPC):
        path = f"/{wanted.removeprefix('/')}"
    else:
        found = find_method(wanted)
        path = f"/{found.containing_service.full_name}/{found.name}"
    identity = caller if "://" in caller or caller == ANONYMOUS else spiffe_id(caller)
    policy = method_policy(path)
    allow = ruling(policy).allow
    refused = None if opened(path) else denial(policy, identity, identified=True)
    reason, why = "", f"the contract lists {EVERYBODY if EVERYBODY in allow else identity}"
    if opened(path):
        why = "health is everybody's: probes have no certificate"
    elif "://" in caller and not identity.startswith(f"spiffe://{TRUST_DOMAIN}/"):
        reason = _FOREIGN
        why = f"{identity} is of another trust domain than {TRUST_DOMAIN}"
    elif refused is not None:
        reason = refused.reason
        why = (
            "who calls has no identity"
            if reason == NO_IDENTITY
            else "the contract does not list it"
        )
    elif path[1:].startswith(_GRPC):
        why = f"gRPC's own methods are for whoever may call {ruling(policy).method[1:]}"
    where = _where(ruling(policy).method)
    return Explanation(identity, path[1:], not reason, reason, why, sorted(allow), where)


def _where(path: str) -> str:
    """Where the list of a method stands: its own, or that of its service."""
    method = find_method(path[1:])
    file, service = method.containing_service.file.name, method.containing_service.name
    if not (PROTOS / file).is_file():
        return file
    text = (PROTOS / file).read_text()
    start = text.index(f"\nservice {service} {{")
    begin = re.compile(rf"\n  rpc {method.name}\(").search(text, start)
    assert begin is not None  # what is generated has been compared with the text
    own = re.compile(r"\n  }\n|\ballow:").search(text, begin.end())
    at = own if own and own[0] == "allow:" else re.compile(r"\ballow:").search(text, start)
    return f"{file}:{text.count(chr(10), 0, at.start()) + 1}" if at else file


def matrix() -> str:
    """Who may call what: a table in Markdown, with one row for RPCs of a service that are alike."""
    services: dict[str, dict[frozenset[str], list[str]]] = {}
    for name in sorted(contracts()):
        service, _, rpc = name.partition("/")
        allow = method_policy(f"/{name}").allow
        callers = frozenset(each for each in CALLERS if allow & {EVERYBODY, spiffe_id(each)})
        services.setdefault(service, {}).setdefault(callers, []).append(rpc)
    lines = [f"| RPC | {' | '.join(CALLERS)} |", f"|---|{'---|' * len(CALLERS)}"]
    for service, rows in services.items():
        for callers, rpcs in sorted(rows.items(), key=lambda row: row[1]):
            what = "all" if len(rows) == 1 else ", ".join(f"`{rpc}`" for rpc in rpcs)
            marks = " | ".join("x" if each in callers else "" for each in CALLERS)
            lines.append(f"| `{service.rpartition('.')[2]}`: {what} | {marks} |")
    return "\n".join(lines)
