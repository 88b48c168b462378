"""Which contracts the edge serves, as far as they have routes, and who serves them in the mesh."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shop.customers.v1 import customers_pb2
from shop.inventory.v1 import inventory_pb2
from shop.orders.v1 import orders_pb2

_MODULES: Final = {
    "customers": customers_pb2,
    "inventory": inventory_pb2,
    "orders": orders_pb2,
}

TARGETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        service.full_name: target
        for target, module in _MODULES.items()
        for service in module.DESCRIPTOR.services_by_name.values()
    }
)
"""Full name of a service -> target of the mesh."""
