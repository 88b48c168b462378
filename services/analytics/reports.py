"""The report of a month: a job, for it waits until the view has what it must have."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from accord_runtime.database import Tx
from accord_runtime.grpc.types import timestamp
from accord_runtime.jobs import Job, Kind, Progress
from accord_runtime.service import Runtime
from accord_runtime.views import Completeness, State, Views
from services.analytics import store
from services.analytics.store import SALES
from shop.analytics.v1 import analytics_pb2 as pb

MOST: Final = 5000
"""Products of a report: with all the rest less than a result may have."""

READ: Final = 50_000
"""Products of a month and all currencies that are read at most."""

PAUSE: Final = 0.5
"""Seconds between two looks at a view that is not complete yet."""


class Reports:
    """The jobs that report."""

    def __init__(self, runtime: Runtime, kept: Views) -> None:
        self._database = runtime.database
        self._views = kept
        self.kind = runtime.jobs.register(Kind("report", pb.GenerateReportRequest, self.step))

    async def step(self, job: Job[pb.GenerateReportRequest]) -> Progress | Message:
        """Wait for the events that had been received when the job began, then report."""
        began = float(job.checkpoint or time.time())

        def read(tx: Tx) -> Progress | Message:
            state = self._views.state(tx, SALES.name)
            found = self._views.completeness(tx, state)
            if not state.generation or (found.waiting and found.waiting_since <= began):
                at, end = max(found.position, state.reached), found.target
                return Progress(repr(began).encode(), at, end, pause=PAUSE)
            return self._report(tx, job.request, state, found)

        return await self._database.read(read)

    def _report(
        self, tx: Tx, request: pb.GenerateReportRequest, state: State, found: Completeness
    ) -> pb.MonthlyReport:
        start = begins(request.month)
        end = (datetime.fromtimestamp(start, UTC) + timedelta(days=31)).replace(day=1).timestamp()

        def metrics(dimension: "pb.Dimension.ValueType") -> list[pb.Metric]:
            query = pb.QueryMetricsRequest(
                dimension=dimension, start_time=timestamp(start), end_time=timestamp(end)
            )
            rows = store.changed(tx, query, state.generation, 0, READ)
            return [each for each in rows if each.currency_code == request.currency_code]

        products = sorted(metrics(pb.DIMENSION_PRODUCT), key=lambda each: -each.revenue)
        return pb.MonthlyReport(
            month=request.month,
            currency_code=request.currency_code,
            days=metrics(pb.DIMENSION_DAY),
            products=products[:MOST],
            countries=metrics(pb.DIMENSION_COUNTRY),
            statuses=metrics(pb.DIMENSION_STATUS),
            completeness=completeness(state, found),
        )


def begins(month: str) -> float:
    """When a month such as "2026-11" begins, Unix seconds."""
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp()


def completeness(state: State, found: Completeness) -> pb.Completeness:
    """How complete a view is, in the contract's words."""
    return pb.Completeness(position=found.position, waiting=found.waiting, revision=state.revision)
