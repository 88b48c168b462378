"""How long an RPC may take."""

from collections.abc import Iterator

from accord_checks.contracts import Contracts
from accord_checks.declarations import Rpc
from accord_checks.lint_rules.examples import ANYBODY, READS, get_thing, rpc_example
from accord_checks.lint_rules.rule import Finding, rule, unstated
from accord_checks.lint_rules.startup_errors import startup_errors


@rule(
    "ACCORD_TIMEOUT_STATED",
    purpose="Every RPC states how long it may take; a server stream, how long it may live.",
    why="callers wait for a default that nobody has chosen",
    bad=rpc_example("GetThing", ANYBODY, level=READS),
    good=get_thing(),
)
def stated(contracts: Contracts) -> Iterator[Finding]:
    """An own timeout, that of the service's defaults, or the longest life of a stream."""
    for place, name in unstated(contracts, _answers_once, lambda r: r.written.HasField("timeout")):
        yield Finding(
            place,
            f"no timeout is stated for {name}",
            "write `timeout: {seconds: 2}` in its policy or in the defaults of the service",
        )
    for place, name in unstated(contracts, lambda rpc: not _answers_once(rpc), _ends):
        yield Finding(
            place,
            f"no longest life is stated for the stream of {name}",
            "write `stream: {max_lifetime: {seconds: 3600}}`",
        )


def _answers_once(rpc: Rpc) -> bool:
    return not rpc.descriptor.server_streaming


def _ends(stream: Rpc) -> bool:
    own = stream.own is not None and stream.own.HasField("timeout")
    return own or stream.written.stream.HasField("max_lifetime")


@rule(
    "ACCORD_TIMEOUT_VALID",
    purpose="A timeout lies between 1 ms and 1 h, and an attempt's is not longer than the call's.",
    why="a server refuses to start with it",
    bad=get_thing("attempt_timeout: {seconds: 3}"),
    good=get_thing("attempt_timeout: {nanos: 600000000}"),
)
def valid(contracts: Contracts) -> Iterator[Finding]:
    """What the library itself refuses."""
    instead = "write a time between 1 ms and 1 h, an attempt's not longer than `timeout`"
    return startup_errors(contracts, instead, "timeout", "attempt_timeout")
