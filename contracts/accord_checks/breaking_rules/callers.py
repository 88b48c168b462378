"""Who may call an RPC."""

from collections.abc import Iterator
from typing import Final

from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc

# Without a list everybody may call, or nobody: that is for the process to say (`authorize`).
_EVERYBODY: Final = frozenset({"*"})


@change_rule(
    "POLICY_CALLER_REMOVED",
    Risk.BREAKING,
    purpose="Nobody who may call an RPC is taken off its list.",
    why="their calls are refused with PERMISSION_DENIED",
    before='allow: ["spiffe://example.org/orders", "spiffe://example.org/mail"]',
    after='allow: ["spiffe://example.org/orders"]',
)
def removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" does not cover either; none are left where the list is taken away."""
    then, now = old.policy.allow, new.policy.allow
    gone = set() if "*" in now or now == then else (then or _EVERYBODY) - now
    if gone:
        what = f"{', '.join(sorted(map(_who, gone)))} may no longer call {new.short}"
        value = ", ".join(sorted(gone))
        yield Found(what, "see that it no longer does, then take it off", value, ("allow",))


@change_rule(
    "POLICY_CALLER_ADDED",
    Risk.RISKY,
    purpose="Nobody new is named who may call an RPC.",
    why="more services depend on it, and more can reach what it protects",
    before='allow: ["spiffe://example.org/orders"]',
    after='allow: ["spiffe://example.org/orders", "spiffe://example.org/mail"]',
)
def added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Identities that "*" did not cover before; anybody where nobody was named."""
    for caller in _added(old, new):
        if not _opens(old, new, caller):
            yield _may_call(new, caller)


@change_rule(
    "POLICY_CALLERS_OPENED",
    Risk.BREAKING,
    purpose="No RPC that names its callers is opened to every identity, to another trust domain's, "
    "or by the defaults of its service.",
    why="whoever gets in there can reach what the list protected",
    before='allow: ["spiffe://example.org/orders"]',
    after='allow: ["*"]',
)
def opened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """By "*", by a list that is taken away, or where nobody looks who reads the RPC."""
    for caller in _added(old, new):
        if _opens(old, new, caller):
            yield _may_call(new, caller)


def _opens(old: Rpc, new: Rpc, caller: str) -> bool:
    """Whether somebody who is new was kept out by a list, and is not let in by name."""
    domains = {_domain(known) for known in old.policy.allow}
    by_name = new.own is not None and caller in new.own.allow and _domain(caller) in domains
    return bool(domains) and not by_name


def _domain(caller: str) -> str:
    return caller.removeprefix("spiffe://").partition("/")[0]


def _added(old: Rpc, new: Rpc) -> list[str]:
    then, now = old.policy.allow, new.policy.allow
    return [] if "*" in then or now == then else sorted((now or _EVERYBODY) - then)


def _may_call(rpc: Rpc, caller: str) -> Found:
    listed = list(rpc.written.allow)
    return Found(
        f"{_who(caller)} may call {rpc.short} now",
        "ask whoever answers for its data",
        caller,
        ("allow", listed.index(caller)) if caller in listed else ("allow",),
    )


def _who(caller: str) -> str:
    return "any verified identity" if caller == "*" else caller
