"""Every RPC that a service of the shop serves, as its descriptors have them."""

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from google.protobuf.descriptor import MethodDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import accord.ops.v1
import shop
from accord.v1 import policy_pb2


@dataclass(frozen=True)
class Rpc:
    """One RPC, and whom its contract allows: read here from its options, and not by the library."""

    method: MethodDescriptor
    allow: frozenset[str]
    """Empty: nobody, or nothing is said."""

    @property
    def path(self) -> str:
        """As it travels."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def _modules() -> Iterator[str]:
    for package in (shop, accord.ops.v1):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("_pb2"):
                yield found.name


def _rpcs() -> list[Rpc]:
    """All of the shop's and of the operator's contracts, and gRPC's own."""
    modules = [*map(import_module, _modules()), channelz_pb2, health_pb2, reflection_pb2]
    services = [each for m in modules for each in m.DESCRIPTOR.services_by_name.values()]
    return [_rpc(method) for service in services for method in service.methods]


def _rpc(method: MethodDescriptor) -> Rpc:
    own = method.GetOptions().Extensions[policy_pb2.policy]
    service = method.containing_service.GetOptions().Extensions[policy_pb2.service]
    return Rpc(method, frozenset(own.allow or service.defaults.allow))


RPCS: Final = _rpcs()
"""All of them."""
