"""How the inventory service is put together."""

from accord_runtime.service import Runtime, Service
from services.inventory.servicer import Inventory
from services.inventory.store import MIGRATIONS
from shop.inventory.v1.inventory_pb2_grpc import add_InventoryServiceServicer_to_server


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    add_InventoryServiceServicer_to_server(Inventory(runtime.database), runtime.server)


SERVICE = Service(
    name="inventory",
    migrations=MIGRATIONS,
    build=build,
    contracts=("shop.inventory.v1.InventoryService",),
)
