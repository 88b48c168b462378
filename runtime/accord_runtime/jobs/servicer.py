"""OperationService: where the jobs of a service stand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Final

from accord.errors import OutOfRange
from accord.ops.v1 import operation_pb2 as pb
from accord.ops.v1.operation_pb2_grpc import OperationServiceServicer
from accord_runtime.database import Database
from accord_runtime.events.notifier import Notifier
from accord_runtime.grpc.idempotency import commit
from accord_runtime.grpc.page_tokens import Page
from accord_runtime.grpc.types import Context
from accord_runtime.jobs import operations
from accord_runtime.jobs.jobs import OPERATIONS, Jobs

POLL: Final = 10.0
"""Seconds after which an operation is looked at though nobody said that it changed."""


class OperationServicer(OperationServiceServicer):
    """The RPCs of `accord.ops.v1.OperationService`."""

    def __init__(self, database: Database, notifier: Notifier, jobs: Jobs) -> None:
        self._database = database
        self._notifier = notifier
        self._jobs = jobs

    async def GetOperation(
        self, request: pb.GetOperationRequest, context: Context
    ) -> pb.GetOperationResponse:
        """Returns an operation as it stands."""
        return pb.GetOperationResponse(operation=await self._get(request.operation_id))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Context
    ) -> pb.ListOperationsResponse:
        """Lists operations, newest first."""
        asked = Page(request, state=str(request.state))
        found, token = await self._database.read(
            lambda tx: operations.page(tx, asked, request.state)
        )
        return pb.ListOperationsResponse(operations=found, next_page_token=token)

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, context: Context
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """Streams an operation until it has ended."""
        seen = request.after_sequence
        with self._notifier.watching(request.operation_id, OPERATIONS) as watch:
            operation = await self._get(request.operation_id)
            if seen > operation.sequence:
                text = f"after_sequence is {seen}, the last change is {operation.sequence}"
                raise OutOfRange("SEQUENCE_IN_FUTURE", text)
            while True:
                if operation.sequence > seen:
                    seen = operation.sequence
                    yield pb.WatchOperationResponse(sequence=seen, operation=operation)
                if operation.done:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await watch.wait()
                operation = await self._get(request.operation_id)

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Context
    ) -> pb.CancelOperationResponse:
        """Ends an operation that has not ended."""
        return await commit(
            self._database,
            lambda tx: pb.CancelOperationResponse(
                operation=self._jobs.cancel(tx, request.operation_id)
            ),
        )

    async def _get(self, operation_id: str) -> pb.Operation:
        return await self._database.read(partial(operations.get, operation_id=operation_id))
