"""How the notifications service is put together."""

from accord_runtime.service import Runtime, Service
from services.notifications.mail import MailServer
from services.notifications.servicer import Notifications
from services.notifications.steps import MailSteps
from services.notifications.store import MIGRATIONS
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.notifications.v1.notifications_pb2_grpc import (
    add_NotificationServiceServicer_to_server,
)


def build(runtime: Runtime) -> None:
    """Put the servicer on the server and receive the events of the orders."""
    steps = MailSteps(
        runtime.database,
        runtime.executor,
        CustomerServiceStub(runtime.mesh.channel("customers")),
        MailServer.of(runtime.settings.mail_server),
        runtime.clock,
    )
    runtime.subscribe("ORDERS", steps.handlers)
    add_NotificationServiceServicer_to_server(Notifications(runtime.database), runtime.server)


SERVICE = Service(
    name="notifications",
    migrations=MIGRATIONS,
    build=build,
    contracts=("shop.notifications.v1.NotificationService",),
)
