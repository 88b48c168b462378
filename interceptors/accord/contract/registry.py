"""The policies of the methods that this process has descriptors of, each read once, then kept."""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool

from accord.contract.names import described, meant, method_name, services
from accord.contract.options_reader import Reader
from accord.contract.policy_types import ContractError, Dark, MethodPolicy, too_few, too_short
from accord.v1 import policy_pb2

LIVE_FIELDS: Final = frozenset(
    {
        "timeout",
        "attempt_timeout",
        "retry",
        "hedge",
        "breaker",
        "limit",
        "cache",
        "stream",
        "max_depth",
    }
)
"""What live policy may change. The rest is meaning (keys, resume tokens) or security."""

_policies: dict[str, MethodPolicy] = {}


def method_policy(method: str) -> MethodPolicy:
    """The policy of a method, "/pkg.Service/Method" or without the first slash; found once.

    Of a method that the process has no descriptor of nothing is declared. Raises ContractError, and
    ValueError if this is not the name of a method.
    """
    return travelling_policy(method if method.startswith("/") else method_name(method))


def travelling_policy(path: str) -> MethodPolicy:
    """The policy of a method as it travels, which may be any text. Raises ContractError."""
    policy = _policies.get(path)
    if policy is None:
        found = described(path)
        if found is None:
            return _stranger(path)  # not kept: its descriptor may still be imported
        policy = _policies[path] = Reader(found).policy()
    return policy


def known(method: str) -> bool:
    """Whether its policy has been found: but for live policy it stays as it is."""
    return method in _policies


def live_policy(
    method: str, changes: policy_pb2.MethodPolicy, dark: Iterable[Dark], source: str
) -> MethodPolicy:
    """The policy of a method with live changes on top, checked as a contract is.

    Scalars and lists replace the contract's, messages are merged with it. One attempt is a valid
    change ("no retries"). `source` names where the changes come from.

    Raises:
        ContractError: they contradict themselves, go below the contract's floor, or touch what is
            not a matter of operation; the error names source, method and field.
        KeyError: the process does not know the method.
    """

    def refuse(field: str, problem: str) -> ContractError:
        return ContractError(source, method[1:], field, problem)

    found = described(method)
    if found is None:
        raise KeyError(method)
    for descriptor, _ in changes.ListFields():
        if descriptor.name not in LIVE_FIELDS:
            raise refuse(descriptor.name, "cannot be changed by live policy")
    policy = replace(Reader(found, changes, source).policy(), dark=frozenset(dark))
    shortest = min(policy.floor.timeout, method_policy(method).attempt_timeout or math.inf)
    if policy.attempt_timeout is not None and policy.attempt_timeout < shortest:
        raise refuse("", too_short("an attempt_timeout", policy.attempt_timeout, shortest))
    if Dark.RETRY in policy.dark and policy.floor.max_attempts > 1:
        problem = too_few(1, policy.floor.max_attempts)
        raise refuse("", f"in dark mode no retry is made, and {problem}")
    return policy


def pure(method: str) -> bool:
    """Whether the contract says NO_SIDE_EFFECTS of a method, "/pkg.Service/Method"."""
    found = described(method)
    return found is not None and (
        found.GetOptions().idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    )


def check_service(service: str) -> tuple[MethodPolicy, ...]:
    """Read the policies of all methods of a service, "pkg.Service".

    Raises ContractError if one is invalid, KeyError if the service is not known.
    """
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise KeyError(f"there is no service {service!r}{meant(service, services())}") from None
    return tuple(method_policy(f"/{service}/{method.name}") for method in found.methods)


@lru_cache(maxsize=1024)
def _stranger(method: str) -> MethodPolicy:
    return MethodPolicy(method)
