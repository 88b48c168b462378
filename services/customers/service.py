"""How the customers service is put together."""

from accord_runtime.service import Runtime, Service
from services.customers.servicer import Customers
from services.customers.store import MIGRATIONS
from shop.customers.v1.customers_pb2_grpc import add_CustomerServiceServicer_to_server


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    add_CustomerServiceServicer_to_server(Customers(runtime.database), runtime.server)


SERVICE = Service(
    name="customers",
    migrations=MIGRATIONS,
    build=build,
    contracts=("shop.customers.v1.CustomerService",),
)
