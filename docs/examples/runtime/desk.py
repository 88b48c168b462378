"""The desk: a saga from its contract, and the event that says how it ended."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from acme.depot.v1.depot_pb2 import BookVanRequest, PrintLabelRequest, ReserveShelfRequest
from acme.desk.v1 import desk_pb2 as pb
from acme.desk.v1 import desk_pb2_grpc as rpc
from addresses import addresses

from accord import NotFound, Resource, ServiceError
from accord_runtime import saga
from accord_runtime.database import Tx
from accord_runtime.events.record import RecordReader
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import main
from accord_runtime.saga import Call, Contract, Definition, Local, Sagas
from accord_runtime.service import Runtime, Service

DEPOT = "acme.depot.v1.DepotService"

TABLES = [
    """
    CREATE TABLE parcels (
        parcel_id TEXT NOT NULL PRIMARY KEY,
        grams BIGINT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        label_id TEXT NOT NULL
    )
    """,
]


def change(tx: Tx, parcel_id: str, column: str, value: str) -> None:
    """Write one column of a parcel."""
    sql = f"UPDATE parcels SET {column} = :value WHERE parcel_id = :parcel_id"
    tx.execute(sql, {"value": value, "parcel_id": parcel_id})


class Desk(rpc.DeskServiceServicer):
    """Steps, their order and how they are undone are in the contract of SendParcel."""

    def __init__(self, runtime: Runtime) -> None:
        self._database = runtime.database
        self._outbox = runtime.outbox
        self._record = RecordReader(runtime.database, runtime.notifier)
        self._sagas = runtime.sagas = Sagas(runtime.database, runtime.executor)
        channels = {DEPOT: runtime.mesh.channel("depot")}
        steps = Contract("acme.desk.v1.DeskService/SendParcel", channels).steps(
            Call("shelf", f"{DEPOT}/ReserveShelf", self._shelf),
            Call("label", f"{DEPOT}/PrintLabel", self._label, self._labelled),
            Call("van", f"{DEPOT}/BookVan", self._van),
            Local("sent", self._sent),
        )
        self._saga = Definition("parcel", 1, steps, self._refused, self._undone)
        self._sagas.register(self._saga)

    async def SendParcel(self, request: Any, context: Any) -> Any:
        """Write the parcel down and begin its saga, in one transaction."""
        parcel_id = uuid7()

        def take(tx: Tx) -> Any:
            values = {"parcel_id": parcel_id, "grams": request.grams}
            tx.insert("parcels", {**values, "state": "pending", "reason": "", "label_id": ""})
            self._sagas.begin(tx, self._saga, parcel_id)
            return pb.SendParcelResponse(parcel_id=parcel_id)

        return await commit(self._database, take)

    async def GetParcel(self, request: Any, context: Any) -> Any:
        """Read a row."""
        sql = "SELECT state, reason, label_id FROM parcels WHERE parcel_id = :id"
        row = await self._database.read(lambda tx: tx.one(sql, {"id": request.parcel_id}))
        if row is None:
            raise NotFound("NO_SUCH_PARCEL", Resource("parcel", request.parcel_id))
        return pb.GetParcelResponse(**row)

    async def ReadEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """For who follows the desk, when the broker has lost something."""
        async with aclosing(self._record.read(request, pb.ReadEventsResponse)) as responses:
            async for response in responses:
                yield response

    async def _shelf(self, parcel_id: str) -> ReserveShelfRequest:
        return ReserveShelfRequest(parcel_id=parcel_id)

    async def _label(self, parcel_id: str) -> PrintLabelRequest:
        return PrintLabelRequest(parcel_id=parcel_id)

    def _labelled(self, tx: Tx, parcel_id: str, answer: Any) -> None:
        change(tx, parcel_id, "label_id", answer.label_id)

    async def _van(self, parcel_id: str) -> BookVanRequest:
        sql = "SELECT grams FROM parcels WHERE parcel_id = :id"
        grams = await self._database.read(lambda tx: tx.value(sql, {"id": parcel_id}))
        return BookVanRequest(parcel_id=parcel_id, grams=grams)

    def _sent(self, tx: Tx, parcel_id: str) -> None:
        change(tx, parcel_id, "state", "sent")
        self._outbox.append(tx, pb.ParcelSent(parcel_id=parcel_id))

    def _refused(self, tx: Tx, parcel_id: str, step: str, error: ServiceError) -> None:
        change(tx, parcel_id, "reason", error.reason)

    def _undone(self, tx: Tx, parcel_id: str) -> None:
        change(tx, parcel_id, "state", "refused")


def build(runtime: Runtime) -> None:
    """Put the service on the server."""
    rpc.add_DeskServiceServicer_to_server(Desk(runtime), runtime.server)


SERVICE = Service(
    name="desk",
    contracts=("acme.desk.v1.DeskService",),
    build=build,
    migrations=[*saga.MIGRATIONS, *TABLES],
)

if __name__ == "__main__":
    main(SERVICE, addresses)
