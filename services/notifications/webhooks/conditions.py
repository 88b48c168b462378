"""When a webhook is sent: an expression of CEL over an event.

cel-cpp, by Google's own binding, checks types against the contract and bounds what is evaluated:
32 levels of nesting, 10,000 rounds of all loops of an evaluation together. What is left to bound is
what a round may cost.
"""

import logging
import re
from functools import cache, lru_cache
from typing import Final

from cel_expr_python import cel
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from shop.orders.v1 import events_pb2

log = logging.getLogger(__name__)

EVENTS: Final[dict[str, type[Message]]] = {
    each.DESCRIPTOR.full_name: each
    for each in (
        events_pb2.OrderCreated,
        events_pb2.OrderRejected,
        events_pb2.OrderPaid,
        events_pb2.OrderShipped,
        events_pb2.OrderConfirmed,
        events_pb2.OrderFailed,
        events_pb2.OrderCancelled,
    )
}
"""What outsiders may be told; the other events of orders are about work within the shop."""

MAX_LOOPS: Final = 2
"""Loops of a condition: 10,000 rounds of the costliest take less than a tenth of a second."""

_LOOP: Final = re.compile(r"\b(all|exists|exists_?one|map|filter|transform\w+)\s*\(", re.I)
_MATCH: Final = re.compile(r"\bmatches\s*\(")


def problem(condition: str, event_type: str) -> str:
    """Why this cannot be a condition on events of a type; empty if it can."""
    loops = len(_LOOP.findall(condition))
    if loops > MAX_LOOPS:
        return f"may have {MAX_LOOPS} loops (all, exists, exists_one, map, filter)"
    if loops and _MATCH.search(condition):
        return "may have loops or regular expressions, not both"
    try:
        expression = _compiled(condition, event_type)
        if expression.return_type() != cel.Type.BOOL:
            return f"gives no boolean but {expression.return_type().name()}"
        expression.eval(data={"event": EVENTS[event_type]()})
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if not line.startswith(" |")]
        said = " ".join(lines).partition("<input>:")[2] or str(error)
        return f"does not compile for {event_type}: {said}"[:200]
    return ""


def holds(condition: str, event: Message) -> bool:
    """Whether a condition holds for an event; one that cannot be evaluated does not."""
    if not condition:
        return True
    try:
        value = _compiled(condition, event.DESCRIPTOR.full_name).eval(data={"event": event})
    except RuntimeError as error:
        log.info("a condition cannot be evaluated, and does not hold: %s", error)
        return False
    return value.type() == cel.Type.BOOL and bool(value.value())


@cache
def _environment(event_type: str) -> cel.Env:
    return cel.NewEnv(descriptor_pool.Default(), variables={"event": cel.Type(event_type)})


@lru_cache(256)
def _compiled(condition: str, event_type: str) -> cel.Expression:
    return _environment(event_type).compile(condition)
