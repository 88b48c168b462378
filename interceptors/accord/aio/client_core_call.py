"""The first attempt of a unary call, without a task.

gRPC gives every call a task that sends it and waits for the answer. Whoever awaits an `accord` call
can do that as well, and it saves a twentieth of a small call. What it takes is not public in gRPC,
so `direct` looks first whether everything is as expected and otherwise leaves a callable as it is.
"""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Generator
from copy import copy
from typing import Any, Final, Generic, cast

import grpc
import grpc.aio
from grpc._cython import cygrpc
from grpc.aio import _call

from accord.aio.client_call import CallBase, EndedStatus, attempting
from accord.aio.client_types import CallStatus, DoneCallback, Error, Response, Wait
from accord.client.local_status import UNDECODABLE
from accord.client.types import Details, Pairs, Req, Res, stands_for

_CANCELLED: Final = "Locally cancelled by application!"
_DROPPED: Final = "Cancelled upon garbage collection!"
_PARTS: Final = ("_channel", "_loop", "_method", "_registered_call_handle",
                 "_request_serializer", "_response_deserializer")  # fmt: skip


def _as_expected() -> bool:
    """Whether this gRPC has what is used here."""
    try:
        make = list(inspect.signature(cygrpc.AioChannel.call).parameters)
        send = list(inspect.signature(cygrpc._AioCall.unary_unary).parameters)
        built = callable(_call._create_rpc_error)
    except (AttributeError, TypeError, ValueError):
        return False
    return (
        built
        and make[1:4] == ["method", "deadline", "python_call_credentials"]
        and make[4:] == ["wait_for_ready", "registered_call_handle"]
        and send[1:3] == ["request", "outbound_initial_metadata"]
    )


_USABLE: Final = _as_expected()


def _unchanged(message: Any) -> Any:  # bytes, of a method that has no messages of its own
    return message


def direct(
    made: "grpc.aio.UnaryUnaryMultiCallable[Req, Res]",
) -> Callable[[Details, Req], Response[Res]]:
    """Makes attempts without interceptors, and without a task if that is possible."""
    bare = copy(made)
    vars(bare)["_interceptors"] = None  # which the stubs do not know
    if _USABLE and all(hasattr(bare, part) for part in _PARTS):
        return CoreCallable(bare)
    # The stubs have no `debug_error_string`.
    return cast("Callable[[Details, Req], Response[Res]]", attempting(bare))


class CoreCallable(Generic[Req, Res]):
    """Makes the calls of one method; the metadata is any iterable of pairs."""

    _serialize: Callable[[Req], bytes]
    _deserialize: Callable[[bytes], Res]
    __slots__ = ("_deserialize", "_handle", "_method", "_new_call", "_serialize")

    def __init__(self, bare: "grpc.aio.UnaryUnaryMultiCallable[Req, Res]") -> None:
        channel, _, self._method, self._handle, serialize, deserialize = (
            getattr(bare, part) for part in _PARTS
        )
        self._new_call: Callable[..., cygrpc._AioCall] = channel.call
        self._serialize = _unchanged if serialize is None else serialize
        self._deserialize = _unchanged if deserialize is None else deserialize

    def __call__(self, details: Details, request: Req) -> "CoreCall[Req, Res]":
        """The call, which is on its way. Raises UsageError: the channel is closed."""
        core = self._new_call(
            self._method,
            None if details.timeout is None else time.time() + details.timeout,
            details.credentials,
            details.wait_for_ready,
            self._handle,
        )
        metadata = tuple(details.metadata or ())
        return CoreCall(core, request, metadata, self._serialize, self._deserialize)


@stands_for(grpc.aio.UnaryUnaryCall)
class CoreCall(CallBase, Generic[Req, Res]):
    """One attempt, for one task to await, once; after that its status can be read."""

    __slots__ = ("_core", "_deserialize", "_error", "_response", "_steps", "_wait")

    def __init__(
        self,
        core: cygrpc._AioCall,
        request: Req,
        metadata: Pairs,
        serialize: Callable[[Req], bytes],
        deserialize: Callable[[bytes], Res],
    ) -> None:
        self._core = core
        self._deserialize = deserialize
        self._error: BaseException | None = None
        self._response: Res
        self._steps: Coroutine[Wait, None, bytes] | None = None
        self._wait: Wait | None = None
        try:
            # Runs up to its only wait, for the answer: the request has been handed to gRPC.
            self._steps = core.unary_unary(serialize(request), metadata)
            self._wait = self._steps.send(None)
        except Exception as error:  # a bad request, or metadata that gRPC does not take
            self._steps = None
            self._error = error

    def __del__(self) -> None:
        if self._steps is not None and not self._core.done():
            self._core.cancel(_DROPPED)

    def __await__(self) -> Generator[Wait | None, None, Res]:
        steps = self._steps
        if steps is not None:
            try:
                if self._wait is not None and not self._wait.done():
                    yield self._wait
                raw = yield from steps.__await__()
            except asyncio.CancelledError:
                self.cancel()
                raise
            finally:
                self._steps = None
            core = self._core
            if core.is_ok():
                try:
                    self._response = self._deserialize(raw)
                except Exception as problem:
                    none = grpc.aio.Metadata()
                    self._error = Error(
                        grpc.StatusCode.INTERNAL, none, none, UNDECODABLE, str(problem)
                    )
                    raise self._error from problem
                return self._response
            if core.is_locally_cancelled():
                self._error = asyncio.CancelledError()
            else:
                self._error = _call._create_rpc_error(core._initial_metadata, core._status)
        if self._error is not None:
            raise self._error
        return self._response

    def cancel(self) -> bool:
        """End the attempt; False if it has ended."""
        if self._core.done():
            return False
        self._core.cancel(_CANCELLED)
        return True

    def done(self) -> bool:
        """Whether the attempt has ended."""
        return self._wait is None or self._wait.done() or self._core.done()

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call back when the answer has come, which is not decoded before it is awaited."""
        if self._wait is not None:
            self._wait.add_done_callback(lambda _: callback(self))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What the server sent last, without the rest of its status."""
        return grpc.aio.Metadata.from_tuple((await self._core.status()).trailing_metadata())

    async def _status(self) -> CallStatus:
        initial, status = await self._core.initial_metadata(), await self._core.status()
        # The stubs have a class of this name of their own.
        return EndedStatus(cast("Error", _call._create_rpc_error(initial, status)))
