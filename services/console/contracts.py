"""The methods of the shop's contracts, who serves them and who may call them."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from google.protobuf.descriptor import MethodDescriptor

import accord
import shop
from services import topology

ME = "spiffe://shop.internal/console"
"""The console's own identity, as contracts name it."""


@cache
def methods() -> Mapping[str, MethodDescriptor]:
    """Full name -> descriptor, of all methods of the shop, by name."""
    modules = pkgutil.walk_packages(shop.__path__, f"{shop.__name__}.")
    found = {
        f"{service.full_name}/{method.name}": method
        for module in modules
        if module.name.endswith("_pb2")
        for service in import_module(module.name).DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    return dict(sorted(found.items()))


def server_of(method: str) -> str:
    """The service that serves a method, by its full name; empty: none of the shop does."""
    parts = method.split(".")
    name = parts[1] if parts[0] == "shop" and len(parts) > 1 else ""
    return name if name in topology.SERVICES else ""


def named(identity: str) -> str:
    """`edge` of `spiffe://shop.internal/edge`."""
    return identity.rpartition("/")[2] or identity


def callers_of(method: str) -> list[str]:
    """Who may call it, as its contract says; by name."""
    return sorted(map(named, accord.method_policy(method).allow))


@cache
def declared_calls() -> frozenset[tuple[str, str]]:
    """Caller and callee, of all calls between parts of the shop that contracts allow."""
    parts = {*topology.SERVICES, topology.EDGE}
    return frozenset(
        (caller, server_of(method))
        for method in methods()
        for caller in callers_of(method)
        if caller in parts and caller != server_of(method)
    )
