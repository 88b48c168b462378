"""What callers may rely on when they repeat a call."""

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from accord.contract import Key
from accord_checks.breaking_rules.change import Found, Risk, change_rule
from accord_checks.declarations import Rpc

_LEVELS = descriptor_pb2.MethodOptions.DESCRIPTOR.enum_types_by_name["IdempotencyLevel"]


def _promise(rpc: Rpc) -> int:
    """How much a repeat without a key may rely on: nothing, being natural, having no effect."""
    if rpc.reads:
        return 2
    return 1 if rpc.policy.safe or rpc.policy.key is Key.NATURAL else 0


def _forgets(old: Rpc, new: Rpc) -> bool:
    """Whether a repeat is recognised otherwise than before: by its key, which callers send."""
    return old.policy.key is not Key.NONE and new.policy.key is not old.policy.key


def said(rpc: Rpc) -> str:
    """What an RPC promises about repeats, as it is written."""
    level = _LEVELS.values_by_number[rpc.level].name
    return level if rpc.policy.key is Key.NONE else f"{level} with KEY_{rpc.policy.key.name}"


@change_rule(
    "POLICY_IDEMPOTENCY_WEAKENED",
    Risk.BREAKING,
    purpose="No RPC promises less about repeats than before.",
    why="callers that repeat it may act twice",
    before="idempotency: {key: KEY_REQUIRED}",
    after="idempotency: {key: KEY_UNSPECIFIED}",
)
def weakened(old: Rpc, new: Rpc) -> Iterator[Found]:
    """By level, or a key that is given up; one that is required now is another rule's.

    Whatever takes the place of a key: the handler has relied on it, and repeats were never seen.
    """
    if (_promise(new) < _promise(old) or _forgets(old, new)) and not _demands(old, new):
        yield _said(old, new, "keep the promise, or add another RPC beside it")


@change_rule(
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
        yield _said(old, new, "see that all callers send a key before the servers require it")


def _said(old: Rpc, new: Rpc, instead: str) -> Found:
    value = f"{said(old)} to {said(new)}"
    return Found(f"{new.short} went from {value}", instead, value, ("idempotency",))


def _demands(old: Rpc, new: Rpc) -> bool:
    return new.policy.key is Key.REQUIRED and old.policy.key is not Key.REQUIRED
