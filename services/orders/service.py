"""What the orders process is made of."""

from accord_runtime import saga
from accord_runtime.saga import Sagas
from accord_runtime.service import Runtime, Service
from services.orders import customers, store
from services.orders.customers import KnownCustomers
from services.orders.servicer import OrderServicer
from services.orders.steps import OrderSteps
from services.orders.store import Orders
from shop.orders.v1 import events_pb2  # noqa: F401 - ReadEvents serves these messages
from shop.orders.v1.orders_pb2_grpc import add_OrderServiceServicer_to_server


def build(runtime: Runtime) -> None:
    """Put it together."""
    channel = runtime.mesh.channel
    runtime.mesh.fallback(customers.GET, KnownCustomers(runtime.database).fallback)
    orders = Orders(runtime.outbox, runtime.clock)
    steps = OrderSteps(
        runtime.database, orders, channel("inventory"), channel("payments"), channel("shipping")
    )
    sagas = runtime.sagas = Sagas(runtime.database, runtime.executor, runtime.clock)
    definition = steps.definition()
    sagas.register(definition)
    servicer = OrderServicer(
        runtime.database,
        orders,
        sagas,
        definition,
        runtime.executor,
        runtime.notifier,
        channel("customers"),
    )
    add_OrderServiceServicer_to_server(servicer, runtime.server)


SERVICE = Service(
    name="orders",
    contracts=("shop.orders.v1.OrderService",),
    migrations=(*saga.MIGRATIONS, *store.MIGRATIONS),
    build=build,
)
