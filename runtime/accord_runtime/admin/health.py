"""Whether the work of a process gets done: its database commits, the broker takes its events.

What `grpc.health.v1` says of it follows the database alone (docs/decisions/019). A failed
transaction is no proof that nothing commits: a probe is, which writes as much as a large
transaction does, and goes on until one is committed.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from grpc_health.v1.health_pb2 import HealthCheckResponse
from opentelemetry import metrics
from opentelemetry.metrics import Observation

from accord.identity import Identity
from accord.ops.v1 import health_pb2 as pb
from accord.ops.v1.health_pb2_grpc import HealthServiceServicer
from accord.ops.v1.work_pb2 import QueueStatus
from accord_runtime.database import Database, DatabaseCorrupt, DatabaseError, Tx
from accord_runtime.events.outbox import committed
from accord_runtime.grpc.types import Context, duration
from accord_runtime.ticks import until_next
from accord_runtime.work import backlog
from accord_runtime.work.backlog import LOOK, Backlog

log = logging.getLogger(__name__)

MIGRATIONS: Final = ["CREATE TABLE health (id BIGINT NOT NULL PRIMARY KEY, probe BLOB NOT NULL)"]

PROBE: Final = 1.0
"""Seconds between two probes."""
PROBE_TIMEOUT: Final = 5.0
LATE: Final = 10.0
"""Seconds after which an event that waits is worth a warning."""
AGAIN: Final = 60.0
"""Seconds between two such warnings."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Events that are committed and that the broker has not acknowledged."""

    events: int = 0
    oldest: float = 0.0
    """Seconds that the oldest of them has been waiting."""


def lag(tx: Tx, stream: str, now: float) -> Lag:
    """How far the broker is behind the record, of which `stream` is fed."""
    acked = tx.value("SELECT position FROM relay WHERE stream = :stream", {"stream": stream}) or 0
    events = committed(tx) - acked
    since = tx.value(
        "SELECT occurred_at FROM events WHERE position > :acked ORDER BY position LIMIT 1",
        {"acked": acked},
    ) or tx.value("SELECT MIN(occurred_at) FROM events WHERE position IS NULL")
    return Lag(events, max(0.0, now - since)) if since else Lag()


class Health(HealthServiceServicer):
    """The health of one process, and the RPCs of `accord.ops.v1.HealthService`.

    `tell` is told its status for gRPC when that changes, `where` names the database in the log,
    `why` says why the broker takes no events, `work` is told how much waits, `refusal` says what
    the broker refuses: wrong until its permissions change. `identity` and `routes` are asked.
    """

    def __init__(
        self,
        database: Database,
        where: str,
        stream: str,
        tell: Callable[[int], Awaitable[None]],
        why: Callable[[], str],
        work: Backlog | None = None,
        refusal: Callable[[], str] = lambda: "",
        identity: Identity | None = None,
        routes: Callable[[], list[str]] = list,
    ) -> None:
        self.database_problem = ""
        """Why the database cannot commit; empty while it does."""
        self.lag = Lag()
        self._database = database
        self._where = where
        self._stream = stream
        self._tell = tell
        self._why = why
        self._work = work or Backlog()
        self._refusal = refusal
        self._identity = identity
        self._routes = routes
        self._told: int = HealthCheckResponse.SERVING
        self._damage = ""
        self._doubt = asyncio.Event()
        database.on_failure = self._doubted
        meter = metrics.get_meter("accord_runtime")
        for name, unit, text, read in (
            ("database.commits", "1", "1 while it does.", lambda: int(not self.database_problem)),
            ("relay.waiting", "{event}", "Events to be published.", lambda: self.lag.events),
            ("relay.oldest_age", "s", "Wait of the oldest of them.", lambda: self.lag.oldest),
        ):
            observe = [lambda _, read=read: [Observation(read())]]
            meter.create_observable_gauge(f"accord.{name}", observe, unit, text)

    @property
    def broker_problem(self) -> str:
        """How many events wait, for how long and why, if one does for long."""
        if refused := self._refusal():
            return refused
        events, oldest = self.lag.events, self.lag.oldest
        said = f"{events} events wait for the broker, the oldest for {oldest:.0f} s: {self._why()}"
        return said if oldest > LATE else ""

    @property
    def identity_problem(self) -> str:
        """What is wrong with the files of the certificate."""
        return (self._identity and self._identity.problem) or ""

    def _expired(self) -> bool:
        """Whether nobody accepts the certificate any more, by the clock here."""
        identity = self._identity
        return identity is not None and identity.bundle.not_after < identity.clock()

    async def watch_database(self) -> None:
        """Find out whether it commits whenever there is doubt, until it is damaged."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            problem = self._damage or await self._probe()
            if problem and not self.database_problem:
                log.error("not serving, the database cannot commit: %s", problem)
            elif self.database_problem and not problem:
                log.info("serving again, the database commits")
            self.database_problem = problem
            await self._tell_status()
            if self._damage:
                return
            if problem:
                self._doubt.set()
            await asyncio.sleep(PROBE)

    async def _tell_status(self) -> None:
        wrong = self.database_problem or self._refusal() or self._expired()
        status = HealthCheckResponse.NOT_SERVING if wrong else HealthCheckResponse.SERVING
        if status != self._told:
            self._told = status
            await self._tell(status)

    def _doubted(self, error: DatabaseError) -> None:
        if isinstance(error, DatabaseCorrupt) and not self._damage:
            self._damage = f"{self._where} is damaged: {error}"
            log.critical("%s; see docs/operations.md, Damaged databases", self._damage)
        self._doubt.set()

    async def _probe(self) -> str:
        values = {"id": 1, "probe": os.urandom(65536)}
        again = "(id) DO UPDATE SET probe = excluded.probe"
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._database.write(
                    lambda tx: tx.insert("health", values, on_conflict=again)
                )
        except TimeoutError:
            return f"a commit takes more than {PROBE_TIMEOUT:g} s"
        except DatabaseError as error:
            return str(error)
        return ""

    async def watch_backlog(self) -> None:
        """Look how much waits, and say when the broker is far behind, until cancelled."""
        said: float | None = None
        while True:
            await asyncio.sleep(until_next(LOOK))
            await self._tell_status()
            try:
                async with asyncio.timeout(PROBE_TIMEOUT):
                    self.lag, queues = await self._database.read(self._look)
            except TimeoutError:
                self._doubt.set()  # a server that stands still refuses nothing
                continue
            except DatabaseError as error:
                log.debug("the record could not be looked at: %s", error)
                continue
            self._work.note(queues, self.lag.events, time.time())
            now = time.monotonic()
            if self.broker_problem and (said is None or now - said >= AGAIN):
                log.warning("%s", self.broker_problem)
                said = now
            elif said is not None and not self.broker_problem:
                log.info("the broker has taken the events that were waiting")
                said = None

    def _look(self, tx: Tx) -> tuple[Lag, dict[str, backlog.Waiting]]:
        return lag(tx, self._stream, time.time()), backlog.count(tx)

    def outbox(self, tx: Tx) -> QueueStatus:
        """The events that wait for the broker."""
        found = lag(tx, self._stream, time.time())
        return QueueStatus(
            queue="outbox",
            waiting=found.events,
            oldest_age=duration(found.oldest) if found.events else None,
            problem=self.broker_problem,
        )

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        """Returns whether the database commits, how far the broker is behind, and so on."""
        return pb.GetHealthResponse(
            database_problem=self.database_problem,
            waiting_events=self.lag.events,
            oldest_age=duration(self.lag.oldest) if self.lag.events else None,
            broker_problem=self.broker_problem,
            identity_problem=self.identity_problem,
            route_problem="; ".join(self._routes()),
        )
