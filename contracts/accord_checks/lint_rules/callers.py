"""Who may call an RPC."""

import re
from collections.abc import Iterator
from typing import Final

from accord_checks.contracts import Contracts
from accord_checks.lint_rules.examples import READS, TIMEOUT, allowing, rpc_example
from accord_checks.lint_rules.rule import Finding, once, rule, unstated

_EVERYBODY: Final = "*"
# SPIFFE-ID, section 2: a trust domain, and a path of a workload without empty or dotted parts.
_IDENTITY: Final = re.compile(
    r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+", re.ASCII
)


@rule(
    "ACCORD_CALLERS_STATED",
    purpose="Every RPC names the identities that may call it.",
    why="everybody may call it, or nobody where identities are wanted",
    bad=rpc_example("GetThing", TIMEOUT, level=READS),
    good=allowing("spiffe://example.org/orders"),
)
def stated(contracts: Contracts) -> Iterator[Finding]:
    """RPCs whose list of callers is empty."""
    for place, name in unstated(contracts, lambda _: True, lambda rpc: bool(rpc.written.allow)):
        yield Finding(
            place,
            f"no caller is named for {name}",
            'write `allow: ["spiffe://..."]`, or `allow: ["*"]` for every verified identity',
        )


@rule(
    "ACCORD_CALLERS_VALID",
    purpose='Who may call is listed as SPIFFE identities, or as "*" alone.',
    why="the list admits other callers than it seems to",
    bad=allowing("orders"),
    good=allowing("spiffe://example.org/orders"),
)
@once
def valid(contracts: Contracts) -> Iterator[Finding]:
    """Entries that are no identity (SPIFFE-ID, section 2), and names beside "*"."""
    allowed = (
        (rpc, *entry) for rpc in contracts.own_rpcs for entry in enumerate(rpc.written.allow)
    )
    for rpc, index, caller in allowed:
        holder = rpc.holder("allow")
        place = rpc.at("allow", index)
        if caller == _EVERYBODY:
            if len(set(rpc.written.allow)) > 1:
                what = f'allow of {holder} has "*" beside names, which then mean nothing'
                yield Finding(place, what, "take the names away, or the `*`")
        elif caller.strip() and not _IDENTITY.fullmatch(caller):
            what = f"allow of {holder} has {caller!r}, which no certificate can say"
            yield Finding(place, what, 'write "spiffe://<trust domain>/<path>", or "*"')
