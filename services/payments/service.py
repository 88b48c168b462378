"""How the payments service is put together."""

from accord_runtime.service import Runtime, Service
from services.payments.processor import SandboxProcessor
from services.payments.servicer import Payments
from services.payments.store import MIGRATIONS
from shop.payments.v1.payments_pb2_grpc import add_PaymentServiceServicer_to_server


def build(runtime: Runtime) -> None:
    """Put the servicer on the server, with the sandbox's card processor behind it."""
    servicer = Payments(
        runtime.database,
        runtime.executor,
        SandboxProcessor(runtime.mesh.channel("sandbox")),
        runtime.clock,
    )
    add_PaymentServiceServicer_to_server(servicer, runtime.server)


SERVICE = Service(
    name="payments",
    migrations=MIGRATIONS,
    build=build,
    contracts=("shop.payments.v1.PaymentService",),
)
