"""The attempts of calls to one target, for gRPC with threads: what the engine decides, done.

The twin of `accord.aio.client_attempts`.
"""

import time

import grpc

from accord.client.request import Caller, ClientSettings, failure_from, trailers_of
from accord.client.types import CallDetails, Raise, Req, Res
from accord.sync.client_call import Answer, Refusal
from accord.sync.client_future import fall_back
from accord.sync.client_resume import ResumableCall
from accord.sync.client_stream import StreamCall
from accord.sync.client_types import Response, Responses, Start, SyncOutgoing


class Attempts(Caller[grpc.RpcError]):
    """Makes the attempts of calls to one target."""

    __slots__ = ()

    def __init__(self, settings: ClientSettings, target: str) -> None:
        super().__init__(settings, target, Refusal)

    def unary(
        self, start: Start[Req, Response[Res]], outgoing: SyncOutgoing[Req, Res], request: Req
    ) -> Response[Res]:
        """One request, one response: the ended call. `start` blocks. Raises RpcError."""
        kept = outgoing.lookup(request)
        if kept is not None:
            return Answer(kept)
        try:
            found = self._attempts(start, outgoing, request)
        except grpc.RpcError as error:
            answer = fall_back(outgoing, request, error)
            outgoing.finish(error.code().name, fallback=answer is not None)
            if answer is None:
                raise
            return Answer(answer)
        except BaseException as error:
            outgoing.finish(type(error).__name__)
            raise
        outgoing.finish("OK")
        return found

    def _attempts(
        self, start: Start[Req, Response[Res]], outgoing: SyncOutgoing[Req, Res], request: Req
    ) -> Response[Res]:
        """The attempt that was answered. Raises the error of the last one."""
        last: grpc.RpcError | None = None
        call = outgoing.call
        while True:
            for wait in call.state.target.waits(call.turn):
                time.sleep(wait)
            with outgoing.admit(last) as attempt:
                try:
                    rpc = start(outgoing.details_of(attempt), request)
                except grpc.RpcError as error:
                    step = attempt.failed(failure_from(error))
                    if isinstance(step, Raise):
                        outgoing.mark(error, exhausted=step.exhausted)
                        raise
                    last = error
                else:
                    attempt.answered()
                    if outgoing.call.state.remembers:
                        outgoing.keep(rpc.result(), rpc.trailing_metadata())
                    return rpc
            time.sleep(step.delay)

    def once(
        self, start: Start[Req, Response[Res]], details: CallDetails, requests: Req
    ) -> Response[Res]:
        """Many requests, one response: the ended call. `start` blocks. Raises RpcError.

        It is one attempt: what an iterator has yielded cannot be sent again.
        """
        outgoing: SyncOutgoing[Req, Res] = self.begin(details)
        with outgoing.sending() as attempt:
            try:
                rpc = start(outgoing.details_of(attempt), requests)
            except grpc.RpcError as error:
                outgoing.ended(attempt, error.code(), error.details() or "", trailers_of(error))
                outgoing.mark(error)
                raise
        outgoing.ended(attempt, grpc.StatusCode.OK, "", None)
        return rpc

    def stream(
        self, start: Start[Req, Responses[Res]], details: CallDetails, request: Req
    ) -> StreamCall[Req, Res] | Refusal[Res]:
        """One request, many responses; tried again before the first of them, resumed after it."""
        outgoing: SyncOutgoing[Req, Res] = self.begin(details, request)
        call = outgoing.call
        if call.resumption is None and call.policy.retry is None:
            return StreamCall(outgoing).start(start, request)
        stream = ResumableCall(start, request, outgoing, self.settings.on_resume)
        try:
            stream.open()
        except Refusal as refusal:
            return refusal
        return stream

    def bidi(
        self, start: Start[Req, Responses[Res]], details: CallDetails, requests: Req
    ) -> StreamCall[Req, Res] | Refusal[Res]:
        """Many requests, many responses."""
        outgoing: SyncOutgoing[Req, Res] = self.begin(details)
        return StreamCall(outgoing).start(start, requests)
