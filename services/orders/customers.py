"""Who may order while the customers service cannot be asked."""

from typing import Final

import grpc

from accord_runtime.database import Database
from services.orders import store
from shop.customers.v1.customers_pb2 import Customer, GetCustomerRequest, GetCustomerResponse

GET: Final = "shop.customers.v1.CustomerService/GetCustomer"


class KnownCustomers:
    """Customers of whom there is an order, in the service's own record.

    A customer is never removed, so who has ordered before still is one. Of others nothing is
    known: they get the error.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fallback(
        self, request: GetCustomerRequest, error: grpc.RpcError
    ) -> GetCustomerResponse | None:
        """The answer to `GetCustomer` when there is none; see `accord.Mesh.fallback`."""
        customer_id = request.customer_id
        if not await self._database.read(lambda tx: store.has_ordered(tx, customer_id)):
            return None
        return GetCustomerResponse(customer=Customer(customer_id=customer_id), fallback=True)
