"""The contract of a method: its options in the .proto, read once into one frozen policy.

`method_policy("/pkg.Service/Method")` merges the method's `(accord.v1.policy)` with the defaults of
its service field by field (a message field is replaced whole) and keeps the result. A policy acts
where its field is present, and only then; what a message leaves out has the library's defaults. A
policy that contradicts itself raises `ContractError`, which names file, method and field; a server
checks all its services at start-up with `check_service`.
"""

from accord.contract.event import event_policy, read_event
from accord.contract.options_reader import Reading, merge_options, read_method
from accord.contract.policy_types import (
    CompensationPolicy,
    ContractError,
    Dark,
    EventPolicy,
    FloorPolicy,
    Key,
    LimitPolicy,
    MethodPolicy,
    ResumePolicy,
    SagaPolicy,
    StreamPolicy,
)
from accord.contract.registry import LIVE_FIELDS, check_service, live_policy, method_policy

__all__ = [
    "LIVE_FIELDS",
    "CompensationPolicy",
    "ContractError",
    "Dark",
    "EventPolicy",
    "FloorPolicy",
    "Key",
    "LimitPolicy",
    "MethodPolicy",
    "Reading",
    "ResumePolicy",
    "SagaPolicy",
    "StreamPolicy",
    "check_service",
    "event_policy",
    "live_policy",
    "merge_options",
    "method_policy",
    "read_event",
    "read_method",
]
