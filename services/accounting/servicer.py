"""The RPCs of `shop.accounting.v1.AccountingService`."""

import math
from collections import Counter
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from services.accounting import posting, store
from services.accounting.reconciling import Reconciliation
from shop.accounting.v1 import accounting_pb2 as pb
from shop.accounting.v1.accounting_pb2_grpc import (
    AccountingServiceServicer,
    add_AccountingServiceServicer_to_server,
)
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub


class Accounting(AccountingServiceServicer):
    """Answers from the ledger."""

    def __init__(self, runtime: Runtime) -> None:
        channel = runtime.mesh.channel
        self._database = runtime.database
        self._reconciliation = Reconciliation(
            runtime.database,
            OrderServiceStub(channel("orders")),
            PaymentServiceStub(channel("payments")),
        )

    async def GetTrialBalance(
        self, request: pb.GetTrialBalanceRequest, context: Context
    ) -> pb.GetTrialBalanceResponse:
        as_of = _until(request.as_of if request.HasField("as_of") else None)
        found = await self._database.read(partial(store.balances, as_of=as_of))
        sums = Counter[str]()
        for each in found:
            sums[each.currency_code] += each.debit - each.credit
        return pb.GetTrialBalanceResponse(balances=found, balanced=not any(sums.values()))

    async def GetAccount(
        self, request: pb.GetAccountRequest, context: Context
    ) -> pb.GetAccountResponse:
        as_of = _until(request.as_of if request.HasField("as_of") else None)
        read = partial(store.balances, as_of=as_of, account=request.account)
        found = await self._database.read(read)
        return pb.GetAccountResponse(balances=found)

    async def ListTransactions(
        self, request: pb.ListTransactionsRequest, context: Context
    ) -> pb.ListTransactionsResponse:
        asked = Page(request, order_id=request.order_id)
        read = partial(store.transactions, asked=asked, order_id=request.order_id)
        page, token = await self._database.read(read)
        return pb.ListTransactionsResponse(transactions=page, next_page_token=token)

    async def Reconcile(
        self, request: pb.ReconcileRequest, context: Context
    ) -> pb.ReconcileResponse:
        return await self._reconciliation.page(request)


def _until(moment: Timestamp | None) -> float:
    return math.inf if moment is None else moment.ToNanoseconds() / 1e9


def build(runtime: Runtime) -> None:
    """Keep the books, and put the servicer on the server."""
    posting.subscribe(runtime)
    add_AccountingServiceServicer_to_server(Accounting(runtime), runtime.server)


SERVICE = Service(
    name="accounting",
    contracts=("shop.accounting.v1.AccountingService",),
    migrations=store.MIGRATIONS,
    build=build,
)
