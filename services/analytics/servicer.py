"""The RPCs of `shop.analytics.v1.AnalyticsService`."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Final

from accord.errors import FailedPrecondition, InvalidArgument, OutOfRange
from accord_runtime import views
from accord_runtime.database import Tx
from accord_runtime.events.audit import reading
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context, timestamp
from accord_runtime.service import Runtime, Service
from accord_runtime.views import State, Views
from services.analytics import store
from services.analytics.reports import Reports, begins, completeness
from services.analytics.store import SALES
from shop.analytics.v1 import analytics_pb2 as pb
from shop.analytics.v1.analytics_pb2_grpc import (
    AnalyticsServiceServicer,
    add_AnalyticsServiceServicer_to_server,
)
from shop.orders.v1.orders_pb2 import ReadEventsRequest
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub

MOST_WATCHED: Final = 1000
"""Metrics that a stream can follow."""


class Analytics(AnalyticsServiceServicer):
    """Answers from the views."""

    def __init__(self, runtime: Runtime, kept: Views) -> None:
        self._database = runtime.database
        self._views = kept
        self._jobs = runtime.jobs
        self._reports = Reports(runtime, kept)

    async def QueryMetrics(
        self, request: pb.QueryMetricsRequest, context: Context
    ) -> pb.QueryMetricsResponse:
        filters = {"start": request.start_time, "end": request.end_time}
        texts = {name: moment.ToJsonString() for name, moment in filters.items()}
        asked = Page(request, dimension=str(request.dimension), **texts)

        def read(tx: Tx) -> pb.QueryMetricsResponse:
            state = self._views.state(tx, SALES.name)
            metrics, token = store.page(tx, asked, request, state.generation)
            complete = completeness(state, self._views.completeness(tx, state))
            return pb.QueryMetricsResponse(
                metrics=metrics, next_page_token=token, completeness=complete
            )

        await self._views.caught_up(SALES.name, "orders/")
        return await self._database.read(read)

    async def WatchMetrics(
        self, request: pb.WatchMetricsRequest, context: Context
    ) -> AsyncIterator[pb.WatchMetricsResponse]:
        after = request.after_revision
        async with aclosing(self._views.changes(SALES.name)) as changes:
            async for _ in changes:
                # What the reader has not taken yet is read when it is ready for it: no queue.
                news = await self._database.read(partial(self._news, request=request, after=after))
                if news.reset or news.metrics:
                    yield news
                after = news.revision

    def _news(self, tx: Tx, request: pb.WatchMetricsRequest, after: int) -> pb.WatchMetricsResponse:
        state = self._views.state(tx, SALES.name)
        if after > state.revision:
            text = f"after_revision is {after}, the view's last change is {state.revision}"
            raise OutOfRange("REVISION_IN_FUTURE", text)
        reset = after == 0 or after < state.swapped
        seen = 0 if reset else after
        metrics = store.changed(tx, request, state.generation, seen, MOST_WATCHED + 1)
        if len(metrics) > MOST_WATCHED:
            raise FailedPrecondition("TOO_MANY_METRICS", f"there are more than {MOST_WATCHED}")
        return pb.WatchMetricsResponse(
            revision=state.revision,
            metrics=metrics,
            reset=reset,
            completeness=completeness(state, self._views.completeness(tx, state)),
        )

    async def GenerateReport(
        self, request: pb.GenerateReportRequest, context: Context
    ) -> pb.GenerateReportResponse:
        if begins(request.month) > time.time():
            raise InvalidArgument(("month", "has not begun"))

        def start(tx: Tx) -> pb.GenerateReportResponse:
            operation = self._jobs.start(tx, self._reports.kind, request)
            return pb.GenerateReportResponse(operation=operation)

        return await commit(self._database, start)

    async def ListViews(
        self, request: pb.ListViewsRequest, context: Context
    ) -> pb.ListViewsResponse:
        asked = Page(request)

        def read(tx: Tx) -> pb.ListViewsResponse:
            rows, token = asked.read(tx, "SELECT name FROM view_state", "name")
            found = (self._view(tx, self._views.state(tx, row["name"])) for row in rows)
            return pb.ListViewsResponse(views=found, next_page_token=token)

        return await self._database.read(read)

    async def GetView(self, request: pb.GetViewRequest, context: Context) -> pb.GetViewResponse:
        def read(tx: Tx) -> pb.GetViewResponse:
            return pb.GetViewResponse(view=self._view(tx, self._views.state(tx, request.name)))

        return await self._database.read(read)

    async def RebuildView(
        self, request: pb.RebuildViewRequest, context: Context
    ) -> pb.RebuildViewResponse:
        def rebuild(tx: Tx) -> pb.RebuildViewResponse:
            return pb.RebuildViewResponse(
                view=self._view(tx, self._views.rebuild(tx, request.name))
            )

        return await commit(self._database, rebuild)

    def _view(self, tx: Tx, state: State) -> pb.View:
        found = self._views.completeness(tx, state)
        view = pb.View(
            name=state.name,
            state=pb.VIEW_STATE_READY,
            completeness=completeness(state, found),
            waiting_since=timestamp(found.waiting_since) if found.waiting else None,
            version=state.version,
            generation=state.generation,
            built_at=timestamp(state.built_at) if state.built_at else None,
            problem=state.problem,
        )
        if not state.generation:
            view.state = pb.VIEW_STATE_BUILDING
        elif state.building:
            view.state = pb.VIEW_STATE_REBUILDING
        if state.building:
            view.rebuild.generation = state.building
            view.rebuild.position, view.rebuild.target = state.reached, found.target
            view.rebuild.started_at.CopyFrom(timestamp(state.began_at))
        return view


def build(runtime: Runtime) -> None:
    """Keep the views by the events of the orders, and put the servicer on the server."""
    orders = OrderServiceStub(runtime.mesh.channel("orders"))
    kept = Views(
        runtime,
        "ORDERS",
        reading(orders.ReadEvents, ReadEventsRequest),
        SALES,
    )
    add_AnalyticsServiceServicer_to_server(Analytics(runtime, kept), runtime.server)


SERVICE = Service(
    name="analytics",
    contracts=("shop.analytics.v1.AnalyticsService",),
    migrations=(*views.MIGRATIONS, *store.MIGRATIONS),
    build=build,
)
