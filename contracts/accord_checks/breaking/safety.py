"""What callers may rely on after a failure: repeats, undoing, resuming, reasons."""

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from accord.contract import Key
from accord_checks.breaking.change import Found, Risk, parts, rpc_rule
from accord_checks.elements import Rpc

_LEVELS = descriptor_pb2.MethodOptions.DESCRIPTOR.enum_types_by_name["IdempotencyLevel"]


def _promise(rpc: Rpc) -> int:
    """How much a repeat may rely on: nothing, a key, being natural, having no effect."""
    if rpc.reads:
        return 3
    if rpc.policy.safe or rpc.policy.key is Key.NATURAL:
        return 2
    return 1 if rpc.policy.key is Key.REQUIRED else 0


def said(rpc: Rpc) -> str:
    """What an RPC promises about repeats, as it is written."""
    level = _LEVELS.values_by_number[rpc.level].name
    return level if rpc.policy.key is Key.NONE else f"{level} with KEY_{rpc.policy.key.name}"


@rpc_rule(
    "POLICY_IDEMPOTENCY_WEAKENED",
    Risk.BREAKING,
    purpose="No RPC promises less about repeats than before.",
    why="callers that repeat it may act twice",
    before="idempotency: {key: KEY_REQUIRED}",
    after="idempotency: {key: KEY_UNSPECIFIED}",
)
def weakened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """By level or by key; a key that is required where none was is another rule's."""
    if _promise(new) < _promise(old) and not _demands(old, new):
        yield Found(
            f"{new.short} went from {said(old)} to {said(new)}",
            "keep the promise, or add another RPC beside it",
            ("idempotency",),
        )


@rpc_rule(
    "POLICY_KEY_REQUIRED",
    Risk.BREAKING,
    purpose="No RPC requires an idempotency key that it did not require before.",
    why="callers that send no key are refused with INVALID_ARGUMENT",
    before="idempotency: {key: KEY_UNSPECIFIED}",
    after="idempotency: {key: KEY_REQUIRED}",
)
def demanded(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Whatever it promised before."""
    if _demands(old, new):
        yield Found(
            f"{new.short} went from {said(old)} to {said(new)}",
            "see that all callers send a key before the servers require it",
            ("idempotency",),
        )


def _demands(old: Rpc, new: Rpc) -> bool:
    return new.policy.key is Key.REQUIRED and old.policy.key is not Key.REQUIRED


@rpc_rule(
    "POLICY_COMPENSATION_CHANGED",
    Risk.BREAKING,
    purpose="No compensation is taken away, replaced or filled otherwise.",
    why="sagas that are under way undo something else, or nothing",
    before="""
compensation: {
  method: "example.v1.ThingService/DropThing"
  fill: {field: "thing_id" from: "request.thing_id"}
}
""",
    after="""
compensation: {
  method: "example.v1.ThingService/DropThing"
  fill: {field: "thing_id" from: "response.thing_id"}
}
""",
)
def compensation(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Any change of one that was there."""
    then, now = old.policy.compensation, new.policy.compensation
    if then is not None:
        instead = "keep it until no saga that began with it is under way"
        yield from parts(new, "compensation", then, now, instead)


@rpc_rule(
    "POLICY_SAGA_CHANGED",
    Risk.RISKY,
    purpose="Steps, pivot and timeout of a saga stay as they are.",
    why="sagas under way were begun with other steps",
    before="""
saga: {
  timeout: {seconds: 60}
  steps: ["example.v1.ThingService/AddThing"]
}
""",
    after="""
saga: {
  timeout: {seconds: 30}
  steps: ["example.v1.ThingService/AddThing"]
}
""",
)
def saga(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Any change of it."""
    then, now = old.policy.saga, new.policy.saga
    if then is not None:
        instead = "let sagas that are under way end with the definition they began with"
        yield from parts(new, "saga", then, now, instead)


@rpc_rule(
    "POLICY_RESUME_CHANGED",
    Risk.BREAKING,
    purpose="A stream that can be resumed stays so, with the same tokens.",
    why="callers whose stream breaks have a gap, or send a token that is not understood",
    before='resume: {request_field: "after_sequence" response_field: "sequence"}',
    after='stream: {not_resumable: "it shows the present only"}',
)
def resume(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Any change of one that was there."""
    then, now = old.policy.resume, new.policy.resume
    if then is not None:
        instead = "keep the old tokens and add another RPC beside it"
        yield from parts(new, "resume", then, now, instead)


@rpc_rule(
    "POLICY_ERROR_REMOVED",
    Risk.BREAKING,
    purpose="No reason of an error is taken away or renamed.",
    why="callers that act on it no longer see it",
    before='errors: ["THING_GONE"]',
    after="",
)
def error_removed(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Reasons that were declared."""
    gone = sorted(old.policy.errors - new.policy.errors)
    if gone:
        yield Found(
            f"the errors of {new.short} no longer hold {', '.join(gone)}",
            "keep the reason, or agree with the callers that act on it",
            ("errors",),
        )


@rpc_rule(
    "POLICY_ERROR_ADDED",
    Risk.RISKY,
    purpose="No reason of an error is added.",
    why="callers do not know it and treat it as any other failure",
    before='errors: ["THING_GONE"]',
    after='errors: ["THING_GONE", "THING_LOCKED"]',
)
def error_added(old: Rpc, new: Rpc) -> Iterator[Found]:
    """Reasons that were not declared."""
    for reason in sorted(new.policy.errors - old.policy.errors):
        yield Found(
            f"{new.short} may answer {reason} now",
            "tell its callers what to do about it",
            ("errors", list(new.written.errors).index(reason)),
        )
