"""How the shipping service is put together."""

from accord_runtime.service import Runtime, Service
from services.shipping.carrier import SandboxCarrier
from services.shipping.servicer import Shipping
from services.shipping.store import MIGRATIONS
from shop.shipping.v1.shipping_pb2_grpc import add_ShippingServiceServicer_to_server


def build(runtime: Runtime) -> None:
    """Put the servicer on the server, with the sandbox's carrier behind it."""
    servicer = Shipping(
        runtime.database,
        runtime.executor,
        SandboxCarrier(runtime.mesh.channel("sandbox")),
        runtime.clock,
    )
    add_ShippingServiceServicer_to_server(servicer, runtime.server)


SERVICE = Service(
    name="shipping",
    migrations=MIGRATIONS,
    build=build,
    contracts=("shop.shipping.v1.ShippingService",),
)
