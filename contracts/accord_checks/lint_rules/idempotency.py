"""What makes it safe to send a request twice."""

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from accord.contract import Key
from accord_checks.contracts import Contracts
from accord_checks.declarations import Place, Rpc
from accord_checks.lint_rules.examples import (
    ANYBODY,
    IDEMPOTENT,
    KEYED,
    NATURAL,
    READS,
    TIMEOUT,
    call_example,
    rpc_example,
)
from accord_checks.lint_rules.rule import Finding, rule

_UNKNOWN = descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN
_IDEMPOTENT = descriptor_pb2.MethodOptions.IDEMPOTENT
_NATURAL = (TIMEOUT, NATURAL, ANYBODY)


def _calling(*keyed: str, level: str | None = None) -> str:
    caller = rpc_example(
        "GetThing", TIMEOUT, *keyed, ANYBODY, call_example("AddThing", "{seconds: 1}"), level=level
    )
    return caller + rpc_example("AddThing", "timeout: {seconds: 1}", KEYED, ANYBODY)


@rule(
    "ACCORD_MUTATION_KEY",
    purpose="An RPC that changes something requires a key, or is idempotent by nature.",
    why="a caller whose answer was lost cannot ask again without acting twice",
    bad=rpc_example("AddThing", TIMEOUT, ANYBODY),
    good=rpc_example("AddThing", TIMEOUT, KEYED, ANYBODY),
)
def mutation(contracts: Contracts) -> Iterator[Finding]:
    """RPCs that promise nothing: neither a level nor a key."""
    for rpc in contracts.own_rpcs:
        repeats = rpc.own is not None and (rpc.own.HasField("retry") or rpc.own.HasField("hedge"))
        # Of an RPC that states how it is repeated, ACCORD_RETRY_IDEMPOTENT says it.
        if rpc.level == _UNKNOWN and rpc.policy.key is Key.NONE and not repeats:
            yield Finding(
                rpc.at("idempotency", inherited=False),
                f"{rpc.short} may change something and requires no key",
                "write `idempotency: {key: KEY_REQUIRED}`, or `option idempotency_level = "
                "NO_SIDE_EFFECTS` if it only reads",
            )


@rule(
    "ACCORD_IDEMPOTENCY_AGREES",
    purpose="The key of an RPC and protobuf's own `idempotency_level` say the same.",
    why="clients other than Accord's go by the level and will do otherwise",
    bad=rpc_example("PutThing", *_NATURAL),
    good=rpc_example("PutThing", *_NATURAL, level=IDEMPOTENT),
)
def agrees(contracts: Contracts) -> Iterator[Finding]:
    """A read that takes a key; a level and a key that contradict each other."""
    for rpc in contracts.own_rpcs:
        key, place = rpc.policy.key, rpc.at("idempotency", inherited=False)
        if rpc.reads and key is not Key.NONE:
            yield Finding(
                place,
                f"{rpc.short} has NO_SIDE_EFFECTS and yet a key",
                "take `idempotency` away, or the level if it does change something",
            )
        elif key is Key.NATURAL and rpc.level == _UNKNOWN:
            yield Finding(
                place,
                f"{rpc.short} is KEY_NATURAL but not IDEMPOTENT",
                "write `option idempotency_level = IDEMPOTENT`",
            )
        elif key is Key.REQUIRED and rpc.level == _IDEMPOTENT:
            yield Finding(
                place,
                f"{rpc.short} is IDEMPOTENT and yet refuses a call without a key",
                "write KEY_NATURAL, or take the level away",
            )


@rule(
    "ACCORD_READS_ONLY",
    purpose="An RPC that is declared to have no side effects sets nothing off that has some.",
    why="it is repeated, hedged and answered from a cache as if it changed nothing",
    bad=_calling(level=READS),
    good=_calling(KEYED),
)
def reads(contracts: Contracts) -> Iterator[Finding]:
    """Calls of RPCs that may change something, sagas and compensations of RPCs that only read."""
    for rpc in contracts.own_rpcs:
        if not rpc.reads:
            continue
        for index, callee in contracts.calls.calls(rpc):
            # What a service without a policy does to its data, nobody has said.
            if not callee.reads and callee.declared:
                place = rpc.at("calls", index, "method", inherited=False)
                yield _reads(rpc, place, f"calls {callee.short}, which may change something")
        if rpc.written.HasField("saga"):
            yield _reads(rpc, rpc.at("saga", inherited=False), "sets off a saga")
        if rpc.written.HasField("compensation"):
            yield _reads(rpc, rpc.at("compensation", inherited=False), "has a compensation")


def _reads(rpc: Rpc, place: Place, does: str) -> Finding:
    instead = "take the level away, or what has an effect"
    return Finding(place, f"{rpc.short} has NO_SIDE_EFFECTS and {does}", instead)
