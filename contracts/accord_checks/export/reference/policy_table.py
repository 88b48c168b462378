"""The policy of an RPC in words: rows of a table."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from accord.contract import FloorPolicy, Key, StreamPolicy
from accord.policies.types import Priority
from accord_checks.declarations import Rpc
from accord_checks.export.reference.call_edges import EVERYONE, Calls, Kind
from accord_checks.export.reference.inline_text import code, counted, human, link, plain

Row: TypeAlias = tuple[str, str]
"""What it is about, and text that says it."""

_KEYS: Final = {
    Key.REQUIRED: f"the caller must send {code('idempotency-key')}; a repeat gets the first answer",
    Key.NATURAL: "the request says it all; a key is obeyed when it is sent",
}


def rows(rpc: Rpc, calls: Calls) -> Iterator[Row]:
    """What a contract says about an RPC."""
    yield from _outside(rpc)
    yield from _time(rpc)
    yield from _safety(rpc, calls)
    yield from _load(rpc)
    yield from _callers(rpc, calls)
    yield from _later(rpc, calls)


def _outside(rpc: Rpc) -> Iterator[Row]:
    edge = rpc.policy.edge
    if edge is None:
        return
    scopes = ", ".join(map(code, sorted(edge.scopes)))
    often = f"; {edge.rate.per_second:g} calls a second for each user" if edge.rate else ""
    needs = f"with a token for {scopes}" if scopes else "for everybody"
    yield "From outside", f"{code(f'{edge.verb} {edge.path}')}, {needs}{often}"


def _time(rpc: Rpc) -> Iterator[Row]:
    policy = rpc.policy
    if policy.timeout is not None:
        yield "Timeout", human(policy.timeout)
    if policy.attempt_timeout is not None:
        yield "Timeout of one attempt", human(policy.attempt_timeout)
    if policy.server_streaming and policy.stream != StreamPolicy():
        # A stream of requests alone has a timeout, like a unary call.
        stream = policy.stream
        yield (
            "Stream",
            f"lives up to {human(stream.max_lifetime)}, idle up to {human(stream.idle)}, keepalive"
            f" every {human(stream.keepalive)}",
        )
    if policy.resume is not None:
        seen, sent = code(policy.resume.response_field), code(policy.resume.request_field)
        yield "Resume", f"send the last {seen} seen as {sent}"
    if policy.stream.not_resumable and policy.server_streaming:
        yield "Not resumable", plain(policy.stream.not_resumable)
    if policy.floor != FloorPolicy():
        least = [f"timeout {human(policy.floor.timeout)}"] if policy.floor.timeout else []
        if policy.floor.max_attempts:
            least.append(f"{policy.floor.max_attempts} attempts")
        yield "Floor of live policy", ", ".join(least)


def _safety(rpc: Rpc, calls: Calls) -> Iterator[Row]:
    policy = rpc.policy
    if policy.safe:
        yield "Idempotent", "by itself"
    if policy.key is not Key.NONE:
        yield "Idempotency key", _KEYS[policy.key]
    if rpc.retry is not None:
        retry = rpc.retry
        codes = ", ".join(code(it.name) for it in sorted(retry.codes))
        yield (
            "Retry",
            f"{retry.max_attempts} attempts on {codes}, waiting up to"
            f" {human(retry.initial_backoff)}, doubled each time up to {human(retry.max_backoff)}",
        )
    elif policy.retry is not None:
        reason = "a stream of requests is not kept" if policy.idempotent else "a repeat is not safe"
        yield "Retry", f"never: {reason}"
    if policy.hedge is not None:
        hedge = policy.hedge
        yield (
            "Hedge",
            f"a second attempt after the {hedge.percentile:g}th percentile of its latency, at least"
            f" {human(hedge.min_delay)}",
        )
    if policy.breaker is not None:
        breaker = policy.breaker
        yield (
            "Circuit breaker",
            f"opens at {breaker.failure_percent} % of at least {breaker.min_calls} calls in"
            f" {human(breaker.window)}, or {breaker.consecutive_failures} failures in a row; for"
            f" {human(breaker.open)} to {human(breaker.max_open)};"
            f" {counted(breaker.probes, 'probe')} then",
        )
    if policy.cache is not None:
        dropped = ", ".join(rpc_link(name, calls) for name in policy.cache.invalidated_by)
        kept = f"for {human(policy.cache.ttl)}"
        yield "Cache", f"{kept}; dropped by {dropped}" if dropped else kept


def _load(rpc: Rpc) -> Iterator[Row]:
    limit = rpc.policy.limit
    if limit is None:
        return
    if limit.priority is not Priority.DEFAULT:
        yield "Priority", plain(limit.priority.name.lower())
    if limit.rate is not None:
        yield (
            "Rate limit",
            f"{limit.rate.per_second:g} calls a second for each caller, bursts of"
            f" {limit.rate.burst}",
        )


def _callers(rpc: Rpc, calls: Calls) -> Iterator[Row]:
    policy = rpc.policy
    if policy.allow:
        names = sorted(policy.allow)
        said = (
            ("anybody whose identity is verified" if it == EVERYONE else code(it)) for it in names
        )
        yield "Callers", ", ".join(said)
    if policy.calls:
        yield "Calls", _listed(policy.calls.items(), calls)
    if callers := calls.made_to(policy.method, Kind.CALL):
        yield "Called by", _listed(callers, calls)
    if policy.max_depth is not None:
        yield "Depth", f"at most {counted(policy.max_depth, 'hop')} below the edge"


def _later(rpc: Rpc, calls: Calls) -> Iterator[Row]:
    policy = rpc.policy
    if policy.saga is not None:
        pivot = policy.saga.pivot
        steps = [
            rpc_link(step, calls) + (" (no way back after it)" if step == pivot else "")
            for step in policy.saga.steps
        ]
        yield "Saga", f"within {human(policy.saga.timeout)}: {' → '.join(steps)}"
    if sagas := calls.made_to(policy.method, Kind.SAGA):
        yield "Step of", _listed(sagas, calls)
    if policy.compensation is not None:
        undo = policy.compensation
        filled = ", ".join(f"{code(field)} from {code(source)}" for field, source in undo.fill)
        yield "Undone by", rpc_link(undo.method, calls) + (f" with {filled}" if filled else "")
    if undone := calls.made_to(policy.method, Kind.UNDO):
        yield "Undoes", _listed(undone, calls)
    if policy.errors:
        yield "Errors", ", ".join(link(f"error-{it}", it) for it in sorted(policy.errors))


def _listed(ends: Iterable[tuple[str, float | None]], calls: Calls) -> str:
    return ", ".join(
        rpc_link(name, calls) + (f" ({human(allowed)})" if allowed is not None else "")
        for name, allowed in ends
    )


def rpc_link(name: str, calls: Calls, *, short: bool = True) -> str:
    """An RPC, with or without its package; it leads to where it is explained, if it is."""
    text = name.rpartition(".")[2] if short else name.removeprefix("/")
    return link(name, text) if name in calls.known else code(text)
