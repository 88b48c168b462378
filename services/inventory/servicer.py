"""The RPCs of `shop.inventory.v1.InventoryService`."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from accord.errors import NotFound
from accord_runtime.database import Database, Tx
from accord_runtime.grpc.idempotency import commit, key
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from services.inventory import reservations, store
from services.inventory.domain import Line, Price, Product, State
from shop.common.v1.money_pb2 import Money
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1.inventory_pb2_grpc import (
    InventoryServiceServicer,
    add_InventoryServiceServicer_to_server,
)

PAGE: Final = 200
"""Products read at a time; no transaction is open while they are sent."""


class Inventory(InventoryServiceServicer):
    """Answers from the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def UpsertProduct(
        self, request: pb.UpsertProductRequest, context: Context
    ) -> pb.UpsertProductResponse:
        def upsert(tx: Tx) -> pb.UpsertProductResponse:
            price = _price(request.price)
            product = store.upsert(tx, request.sku, request.name, price, request.on_hand)
            return pb.UpsertProductResponse(product=_product(product))

        return await commit(self._database, upsert)

    async def ReserveStock(
        self, request: pb.ReserveStockRequest, context: Context
    ) -> pb.ReserveStockResponse:
        lines = [Line(line.sku, line.quantity, _price(line.unit_price)) for line in request.lines]
        used = key()

        def reserve(tx: Tx) -> pb.ReserveStockResponse:
            state = reservations.reserve(tx, request.order_id, lines, used)
            return pb.ReserveStockResponse(reservation=_reservation(request.order_id, state))

        return await commit(self._database, reserve)

    async def ReleaseStock(
        self, request: pb.ReleaseStockRequest, context: Context
    ) -> pb.ReleaseStockResponse:
        def release(tx: Tx) -> pb.ReleaseStockResponse:
            state = reservations.release(tx, request.order_id)
            return pb.ReleaseStockResponse(reservation=_reservation(request.order_id, state))

        return await commit(self._database, release)

    async def CommitStock(
        self, request: pb.CommitStockRequest, context: Context
    ) -> pb.CommitStockResponse:
        def take_out(tx: Tx) -> pb.CommitStockResponse:
            state = reservations.commit(tx, request.order_id)
            return pb.CommitStockResponse(reservation=_reservation(request.order_id, state))

        return await commit(self._database, take_out)

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        product = await self._database.read(lambda tx: store.find(tx, request.sku))
        if product is None:
            raise NotFound("product", request.sku)
        return pb.GetStockResponse(product=_product(product))

    async def ListStock(
        self, request: pb.ListStockRequest, context: Context
    ) -> AsyncIterator[pb.ListStockResponse]:
        last = request.after_sku
        while page := await self._database.read(partial(store.page, after=last, most=PAGE)):
            for product in page:
                yield pb.ListStockResponse(product=_product(product))
            last = page[-1].sku


def _price(money: Money) -> Price:
    return Price(money.minor_units, money.currency_code)


def _product(product: Product) -> pb.Product:
    price = product.price
    return pb.Product(
        sku=product.sku,
        name=product.name,
        price=Money(minor_units=price.minor_units, currency_code=price.currency_code),
        on_hand=product.on_hand,
        reserved=product.reserved,
        available=product.available,
    )


def _reservation(order_id: str, state: State) -> pb.Reservation:
    name = pb.ReservationState.Value(f"RESERVATION_STATE_{state}")
    return pb.Reservation(order_id=order_id, state=name)


def build(runtime: Runtime) -> None:
    """Put the servicer on the server."""
    add_InventoryServiceServicer_to_server(Inventory(runtime.database), runtime.server)


SERVICE = Service(
    name="inventory",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=("shop.inventory.v1.InventoryService",),
)
