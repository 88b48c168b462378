"""The depot: steps of the desk's saga, how they are undone, and a handler of its events."""

from functools import partial
from typing import Any

from acme.depot.v1 import depot_pb2 as pb
from acme.depot.v1 import depot_pb2_grpc as rpc
from acme.desk.v1.desk_pb2 import ParcelSent, ReadEventsRequest
from acme.desk.v1.desk_pb2_grpc import DeskServiceStub
from addresses import addresses

from accord import FailedPrecondition
from accord_runtime.database import Tx
from accord_runtime.events.audit import reading
from accord_runtime.events.inbox import Received
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.ids import uuid7
from accord_runtime.process import main
from accord_runtime.service import Runtime, Service
from accord_runtime.work.table import Effect

HEAVIEST = 30_000

TABLES = [
    "CREATE TABLE shelves (parcel_id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL)",
    """
    CREATE TABLE labels (
        label_id TEXT NOT NULL PRIMARY KEY, parcel_id TEXT NOT NULL, state TEXT NOT NULL
    )
    """,
    # No keys: what happened twice would show.
    "CREATE TABLE vans (parcel_id TEXT NOT NULL)",
    "CREATE TABLE sent (parcel_id TEXT NOT NULL)",
]


class Depot(rpc.DepotServiceServicer):
    """Each command is one transaction, through `commit`."""

    def __init__(self, runtime: Runtime) -> None:
        self._database = runtime.database

    async def ReserveShelf(self, request: Any, context: Any) -> Any:
        """A parcel whose shelf was released before is refused."""

        def reserve(tx: Tx) -> Any:
            values = {"parcel_id": request.parcel_id, "state": "reserved"}
            if not tx.insert("shelves", values, on_conflict="DO NOTHING"):
                raise FailedPrecondition("SHELF_RELEASED", "the shelf was released already")
            return pb.ReserveShelfResponse()

        return await commit(self._database, reserve)

    async def ReleaseShelf(self, request: Any, context: Any) -> Any:
        """Comes before ReserveShelf, too, and then there will be none."""

        def release(tx: Tx) -> Any:
            values = {"parcel_id": request.parcel_id, "state": "released"}
            again = "(parcel_id) DO UPDATE SET state = excluded.state"
            tx.insert("shelves", values, on_conflict=again)
            return pb.ReleaseShelfResponse()

        return await commit(self._database, release)

    async def PrintLabel(self, request: Any, context: Any) -> Any:
        """A label has an id of its own, by which it is made void."""
        label_id = uuid7()

        def label(tx: Tx) -> Any:
            values = {"label_id": label_id, "parcel_id": request.parcel_id, "state": "printed"}
            tx.insert("labels", values)
            return pb.PrintLabelResponse(label_id=label_id)

        return await commit(self._database, label)

    async def VoidLabel(self, request: Any, context: Any) -> Any:
        """Its id is known only after it was printed."""

        def void(tx: Tx) -> Any:
            sql = "UPDATE labels SET state = 'void' WHERE label_id = :label_id"
            tx.execute(sql, {"label_id": request.label_id})
            return pb.VoidLabelResponse()

        return await commit(self._database, void)

    async def BookVan(self, request: Any, context: Any) -> Any:
        """Refuses what no van can carry."""

        def book(tx: Tx) -> Any:
            if request.grams > HEAVIEST:
                raise FailedPrecondition("TOO_HEAVY", f"more than {HEAVIEST} g")
            tx.insert("vans", {"parcel_id": request.parcel_id})
            return pb.BookVanResponse()

        return await commit(self._database, book)

    async def GetParcel(self, request: Any, context: Any) -> Any:
        """All there is, in one snapshot."""

        def read(tx: Tx) -> Any:
            one = {"id": request.parcel_id}
            return pb.GetParcelResponse(
                shelf=tx.value("SELECT state FROM shelves WHERE parcel_id = :id", one),
                label=tx.value("SELECT state FROM labels WHERE parcel_id = :id", one),
                vans=tx.value("SELECT COUNT(*) FROM vans WHERE parcel_id = :id", one),
                sent=tx.value("SELECT COUNT(*) FROM sent WHERE parcel_id = :id", one),
            )

        return await self._database.read(read)


async def parcel_sent(event: Received[ParcelSent]) -> Effect:
    """Handle an event: what is written commits with its completion."""
    return partial(note, parcel_id=event.payload.parcel_id)


def note(tx: Tx, parcel_id: str) -> None:
    """Note that a parcel was sent."""
    tx.insert("sent", {"parcel_id": parcel_id})


def build(runtime: Runtime) -> None:
    """Put the service on the server, and follow the desk."""
    rpc.add_DepotServiceServicer_to_server(Depot(runtime), runtime.server)
    desk = DeskServiceStub(runtime.mesh.channel("desk"))
    record = reading(desk.ReadEvents, ReadEventsRequest)
    runtime.subscribe("DESK", {ParcelSent: parcel_sent}, record=record)


SERVICE = Service(
    name="depot", contracts=("acme.depot.v1.DepotService",), build=build, migrations=TABLES
)

if __name__ == "__main__":
    main(SERVICE, addresses)
