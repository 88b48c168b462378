"""The RPCs of the sandbox: card processor, carrier, and what tests may ask."""

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, TypeVar

from accord.errors import FailedPrecondition, InvalidArgument, Unavailable
from accord_runtime.database import Database, Tx
from accord_runtime.grpc.types import Context
from accord_runtime.service import Runtime, Service
from services.sandbox import captures, domain, parcels, store
from services.sandbox.behavior import Behaviors
from services.sandbox.domain import CaptureState, Conduct, ParcelState
from services.sandbox.mail import serve_mail
from services.topology import HOST, smtp_port
from shop.sandbox.v1 import sandbox_pb2 as pb
from shop.sandbox.v1.sandbox_pb2_grpc import (
    CardProcessorServiceServicer,
    CarrierServiceServicer,
    SandboxServiceServicer,
    add_CardProcessorServiceServicer_to_server,
    add_CarrierServiceServicer_to_server,
    add_SandboxServiceServicer_to_server,
)

T = TypeVar("T")

PAGE: Final = 500
"""Entries of the ledger read at a time; no transaction is open while they are sent."""


class _Base:
    """What the parties of the outside world, who behave as is set, and their commander share."""

    def __init__(self, database: Database, behaviors: Behaviors) -> None:
        self._database = database
        self._behaviors = behaviors

    async def _change(self, party: "pb.Party.ValueType", change: Callable[[Tx, Conduct], T]) -> T:
        """Change what the party knows: given the transaction, and how to behave."""

        async def work(conduct: Conduct) -> T:
            return await self._database.write(lambda tx: change(tx, conduct))

        return await self._behaviors.perform(party, work)


class CardProcessor(_Base, CardProcessorServiceServicer):
    """Takes and gives back money that does not exist."""

    async def Capture(self, request: pb.CaptureRequest, context: Context) -> pb.CaptureResponse:
        async def work(conduct: Conduct) -> domain.Capture:
            await self._stumble(request)
            capture, fresh = await self._database.write(
                partial(
                    captures.capture,
                    key=request.key,
                    reference=request.reference,
                    amount=request.amount,
                    decline_reason=domain.decline_reason(request.card_token, conduct),
                    now=time.time(),
                )
            )
            if fresh and request.card_token == domain.TOKEN_LOST:
                raise Unavailable(message="the first answer for this card is lost")
            return capture

        slow = domain.SLOW_DELAY if request.card_token == domain.TOKEN_SLOW else 0.0
        capture = await self._behaviors.perform(pb.PARTY_CARD_PROCESSOR, work, delay=slow)
        if capture.state in (CaptureState.REVERSED, CaptureState.BLOCKED):
            raise FailedPrecondition("KEY_REVERSED", "the key was reversed")
        if capture.amount != request.amount:
            raise InvalidArgument(("key", "was used for another amount"))
        if capture.state is CaptureState.DECLINED:
            raise FailedPrecondition("CARD_DECLINED", capture.decline_reason)
        return pb.CaptureResponse(capture_id=capture.capture_id)

    async def _stumble(self, request: pb.CaptureRequest) -> None:
        if request.card_token != domain.TOKEN_FLAKY:
            return
        calls = await self._database.write(partial(captures.count_call, key=request.key))
        if calls <= domain.FLAKY_FAILURES:
            raise Unavailable(message=f"this card fails {domain.FLAKY_FAILURES} times")

    async def Reverse(self, request: pb.ReverseRequest, context: Context) -> pb.ReverseResponse:
        capture = await self._change(
            pb.PARTY_CARD_PROCESSOR,
            lambda tx, _: captures.reverse(tx, request.key, request.reference, time.time()),
        )
        if capture.state is not CaptureState.REVERSED:
            return pb.ReverseResponse()
        return pb.ReverseResponse(amount=capture.amount)


class Carrier(_Base, CarrierServiceServicer):
    """Books and cancels parcels that never travel."""

    async def BookParcel(
        self, request: pb.BookParcelRequest, context: Context
    ) -> pb.BookParcelResponse:
        parcel = await self._change(
            pb.PARTY_CARRIER,
            lambda tx, conduct: parcels.book(
                tx,
                request.key,
                request.reference,
                request.units,
                time.time(),
                refused=domain.is_refused(request.ship_to.country_code, conduct),
            ),
        )
        if parcel.state in (ParcelState.CANCELLED, ParcelState.BLOCKED):
            raise FailedPrecondition("KEY_CANCELLED", "the key was cancelled")
        if parcel.units != request.units:
            raise InvalidArgument(("key", "was used for another number of units"))
        if parcel.state is ParcelState.REFUSED:
            raise FailedPrecondition("DESTINATION_NOT_SERVED", "no parcels go there")
        return pb.BookParcelResponse(tracking_number=parcel.tracking_number)

    async def CancelParcel(
        self, request: pb.CancelParcelRequest, context: Context
    ) -> pb.CancelParcelResponse:
        parcel = await self._change(
            pb.PARTY_CARRIER,
            lambda tx, conduct: parcels.cancel(
                tx,
                request.key,
                request.reference,
                time.time(),
                handed_over=conduct.behavior == pb.BEHAVIOR_DECLINE,
            ),
        )
        if parcel.state is ParcelState.HANDED_OVER:
            raise FailedPrecondition("PARCEL_HANDED_OVER", "the parcel is on its way")
        cancelled = parcel.state is ParcelState.CANCELLED
        return pb.CancelParcelResponse(units=parcel.units if cancelled else 0)


class Sandbox(_Base, SandboxServiceServicer):
    """Takes commands and shows the ledger."""

    async def SetBehavior(
        self, request: pb.SetBehaviorRequest, context: Context
    ) -> pb.SetBehaviorResponse:
        conduct = Conduct(request.behavior, request.delay.ToMicroseconds() / 1e6)
        await self._behaviors.set(request.party, conduct, request.calls)
        return pb.SetBehaviorResponse()

    async def ReadLedger(
        self, request: pb.ReadLedgerRequest, context: Context
    ) -> AsyncIterator[pb.ReadLedgerResponse]:
        last = request.after_number
        head = await self._database.read(store.ledger_head)
        while page := await self._database.read(
            partial(
                store.read_entries, after=last, up_to=head, reference=request.reference, limit=PAGE
            )
        ):
            for entry in page:
                yield entry
            last = page[-1].number


def build(runtime: Runtime) -> None:
    """Put the three parties on the server and start the mail server beside it."""
    database, server = runtime.database, runtime.server
    behaviors = Behaviors(database)
    runtime.closing.append(behaviors.close)
    add_CardProcessorServiceServicer_to_server(CardProcessor(database, behaviors), server)
    add_CarrierServiceServicer_to_server(Carrier(database, behaviors), server)
    add_SandboxServiceServicer_to_server(Sandbox(database, behaviors), server)
    folder, port = runtime.settings.home / "mails", smtp_port(runtime.settings.port_offset)
    runtime.background.append(("mail", lambda: serve_mail(folder, HOST, port)))


SERVICE = Service(
    name="sandbox",
    migrations=store.MIGRATIONS,
    build=build,
    contracts=(
        "shop.sandbox.v1.CardProcessorService",
        "shop.sandbox.v1.CarrierService",
        "shop.sandbox.v1.SandboxService",
    ),
)
