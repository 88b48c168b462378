"""How an RPC is undone."""

from collections.abc import Iterator

from google.protobuf import descriptor as pb

from accord_checks.contracts import Contracts, field_type
from accord_checks.declarations import Rpc
from accord_checks.lint_rules.examples import (
    ANYBODY,
    IDEMPOTENT,
    KEYED,
    NATURAL,
    RETRY,
    TIMEOUT,
    compensation_example,
    rpc_example,
)
from accord_checks.lint_rules.rule import Finding, rule
from accord_checks.protovalidate import Validation


def _example(
    method: str = "DropThing", source: str = "response.thing_id", retry: tuple[str, ...] = (RETRY,)
) -> str:
    add = rpc_example("AddThing", TIMEOUT, KEYED, ANYBODY, compensation_example(source, method))
    return add + rpc_example("DropThing", TIMEOUT, *retry, NATURAL, ANYBODY, level=IDEMPOTENT)


def _undoing(contracts: Contracts) -> Iterator[tuple[Rpc, Rpc]]:
    """Each judged RPC that names what undoes it, with that, if it exists."""
    for rpc in contracts.own_rpcs:
        found = contracts.rpcs.get(rpc.written.compensation.method)
        if found is not None and found is not rpc:
            yield rpc, found


@rule(
    "ACCORD_COMPENSATION_EXISTS",
    purpose="A compensation is another RPC of these contracts.",
    why="a saga that has to turn back cannot",
    bad=_example(method="RemoveThing"),
    good=_example(),
)
def exists(contracts: Contracts) -> Iterator[Finding]:
    """Compensations that are unknown, or the RPC itself."""
    for rpc in contracts.own_rpcs:
        if not rpc.written.HasField("compensation"):
            continue
        name = rpc.written.compensation.method
        if name not in contracts.rpcs or name == rpc.name:
            wrong = (
                "itself" if name == rpc.name else f"{name!r}, which is no RPC of these contracts"
            )
            yield Finding(
                rpc.at("compensation", "method"),
                f"{rpc.short} is undone by {wrong}",
                'write the full name of the RPC that undoes it, such as "pkg.v1.Service/Method"',
            )


@rule(
    "ACCORD_COMPENSATION_FILLED",
    purpose="The request of a compensation can be filled from the step's request and response.",
    why="the compensation is called with a request that it refuses, or undoes something else",
    bad=_example(source="response.thing"),
    good=_example(),
)
def filled(contracts: Contracts) -> Iterator[Finding]:
    """Paths that lead nowhere or to another type, and fields that may not stay empty."""
    validation = Validation(contracts)
    for rpc, undo in _undoing(contracts):
        sides = {"request": rpc.descriptor.input_type, "response": rpc.descriptor.output_type}
        request, named = undo.descriptor.input_type, set()
        for index, fill in enumerate(rpc.written.compensation.fill):
            source = getattr(fill, "from")
            side, _, path = source.partition(".")
            target, origin = _field(request, fill.field), _field(sides.get(side), path)
            named.add(fill.field.partition(".")[0])
            if target is None:
                yield Finding(
                    rpc.at("compensation", "fill", index, "field"),
                    f"{undo.short}, which undoes {rpc.short}, has no field {fill.field!r}",
                    f"name a field of {request.full_name}",
                )
            elif origin is None:
                yield Finding(
                    rpc.at("compensation", "fill", index, "from"),
                    f"{source!r}, from which {rpc.short} is undone, leads to no field",
                    f"name a field of {rpc.short}, such as `request.{fill.field}`",
                )
            elif field_type(target) != field_type(origin):
                yield Finding(
                    rpc.at("compensation", "fill", index, "from"),
                    f"{source!r} has not the type of {fill.field!r} in {request.full_name}",
                    "name a field of the same type",
                )
        for field in request.fields:
            if field.name not in named and validation.refuses_empty(field):
                yield Finding(
                    rpc.at("compensation"),
                    f"{undo.short}, which undoes {rpc.short}, refuses an empty {field.name!r}",
                    f'write `fill: {{field: "{field.name}" from: "request...."}}`',
                )
        if request.fields and not rpc.written.compensation.fill:
            yield Finding(
                rpc.at("compensation"),
                f"nothing tells {undo.short} what of {rpc.short} to undo",
                f'write `fill: {{field: "{request.fields[0].name}" from: "request...."}}`',
            )


def _field(message: pb.Descriptor | None, path: str) -> pb.FieldDescriptor | None:
    """The field that a dotted path leads to."""
    found: pb.FieldDescriptor | None = None
    for name in path.split("."):
        found = message.fields_by_name.get(name) if message is not None else None
        message = found.message_type if found is not None and not found.is_repeated else None
    return found


@rule(
    "ACCORD_COMPENSATION_SAFE",
    purpose="A compensation changes something, is idempotent and is retried.",
    why="what was begun stays half undone when its first attempt fails",
    bad=_example(retry=()),
    good=_example(),
)
def safe(contracts: Contracts) -> Iterator[Finding]:
    """Compensations that read only, are not idempotent, or give up at once."""
    for rpc, undo in _undoing(contracts):
        wrong = []
        if undo.reads:
            wrong.append("changes nothing")
        if not undo.policy.idempotent:
            wrong.append("is not idempotent")
        if not undo.written.HasField("retry"):
            wrong.append("is not retried")
        if wrong:
            promise = "a `retry` and `idempotency: {key: KEY_REQUIRED}` or KEY_NATURAL"
            yield Finding(
                rpc.at("compensation", "method"),
                f"{undo.short}, which undoes {rpc.short}, {' and '.join(wrong)}",
                f"name an RPC that undoes {rpc.short}"
                if undo.reads
                else f"give {undo.short} {promise}",
            )
