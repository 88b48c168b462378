"""How the sandbox is put together."""

from accord_runtime.service import Runtime, Service
from services.sandbox.behavior import Behaviors
from services.sandbox.mail import serve_mail
from services.sandbox.servicer import CardProcessor, Carrier, Sandbox
from services.sandbox.store import MIGRATIONS
from services.topology import HOST, smtp_port
from shop.sandbox.v1.sandbox_pb2_grpc import (
    add_CardProcessorServiceServicer_to_server,
    add_CarrierServiceServicer_to_server,
    add_SandboxServiceServicer_to_server,
)


def build(runtime: Runtime) -> None:
    """Put the three parties on the server and start the mail server beside it."""
    database, clock, server = runtime.database, runtime.clock, runtime.server
    behaviors = Behaviors(database)
    runtime.on_close(behaviors.close)
    add_CardProcessorServiceServicer_to_server(CardProcessor(database, behaviors, clock), server)
    add_CarrierServiceServicer_to_server(Carrier(database, behaviors, clock), server)
    add_SandboxServiceServicer_to_server(Sandbox(database, behaviors), server)
    folder, port = runtime.settings.home / "mails", smtp_port(runtime.settings.port_offset)
    runtime.spawn(lambda: serve_mail(folder, HOST, port), "mail")


SERVICE = Service(
    name="sandbox",
    migrations=MIGRATIONS,
    build=build,
    contracts=(
        "shop.sandbox.v1.CardProcessorService",
        "shop.sandbox.v1.CarrierService",
        "shop.sandbox.v1.SandboxService",
    ),
)
