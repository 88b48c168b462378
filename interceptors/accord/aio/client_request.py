"""An outgoing call on its way to `grpc.aio`: the details of its attempts, its errors, its end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from accord import context
from accord.client import request
from accord.client.decisions import Refuse, Send
from accord.client.request import (
    read_failure,
    refusal_trailers,
)

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


class Flat(grpc.aio.Metadata):
    """Metadata that is only iterated, so that it need not be indexed."""

    def __init__(self, pairs: tuple[tuple[str, Any], ...]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Any:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


class Outgoing(request.Outgoing):
    """The call details that only lack the timeout and the number of the attempt."""

    __slots__ = ("_plain",)

    def __init__(
        self,
        details: Any,
        handled: context.CallContext | None,
        *,
        plain: bool,
    ) -> None:
        """`plain`: nobody but gRPC reads the metadata, so a tuple will do."""
        super().__init__(details, handled)
        self._plain = plain

    def attempt(self, send: Send) -> grpc.aio.ClientCallDetails:
        """The details of an attempt."""
        pairs = self.metadata(send)
        metadata: Any = Flat(pairs) if self._plain else grpc.aio.Metadata(*pairs)
        details = self._details
        return grpc.aio.ClientCallDetails(
            details.method, send.timeout, metadata, details.credentials, details.wait_for_ready
        )

    def refusal(self, step: Refuse) -> grpc.aio.AioRpcError:
        """A local refusal as gRPC's own error."""
        error = grpc.aio.AioRpcError(
            request.grpc_code(step.code),
            grpc.aio.Metadata(),
            grpc.aio.Metadata(*refusal_trailers(step)),
            step.message,
            step.message,
        )
        # An open circuit: what there was to be tried has been tried.
        return self.mark(error, exhausted=step.retry_after is not None)


class Ending:
    """Done callback: reports how a call ended that is not awaited here."""

    __slots__ = ("_outgoing", "_send", "_task")

    def __init__(self, outgoing: Outgoing, send: Send) -> None:
        self._outgoing = outgoing
        self._send = send
        self._task: asyncio.Task[None] | None = None

    def __call__(self, rpc: Any) -> None:
        """See the class."""
        found = ended(rpc)
        if found is not None:
            self._report(*found)
        else:
            self._task = asyncio.ensure_future(self._wait(rpc))

    async def _wait(self, rpc: Any) -> None:
        self._report(await rpc.code(), await rpc.trailing_metadata())

    def _report(self, code: grpc.StatusCode, trailers: Any) -> None:
        call, send = self._outgoing.call, self._send
        if code is grpc.StatusCode.OK:
            call.succeeded(send)
        else:
            call.recorded(send, read_failure(code, trailers))
        self._outgoing.finish(code.name)


def ended(rpc: Any) -> tuple[grpc.StatusCode, Any] | None:
    """Code and trailers of a call that has ended, without waiting; None if it has not."""
    return (
        (code, _now(rpc.trailing_metadata()))
        if rpc.done() and (code := _now(rpc.code())) is not None
        else None
    )


def _now(coroutine: Any) -> Any:
    """The result of a coroutine that need not wait; None if it would."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except Exception:
        return None
    coroutine.close()
    return None
