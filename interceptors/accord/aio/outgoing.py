"""One outgoing call on its way to gRPC: what its attempts are sent with, and how they are read."""

from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from accord import context, engine, errors, telemetry
from accord.aio.failure_marks import DEPENDENCY, EXHAUSTED
from accord.policies.codes import Code
from accord.policies.pushback import NEVER, PUSHBACK_KEY, format_pushback, parse_pushback
from accord.policies.retry import ATTEMPT_KEY

MAX_ATTEMPTS_KEY: Final = "accord-max-attempts"
"""Metadata that a caller sets to make fewer attempts than the contract allows; it stays here."""

AT_LEAST_KEY: Final = "accord-at-least"
"""Metadata that a caller sets to a position that it has seen; an older kept answer is passed by."""

POSITION_KEY: Final = "accord-position"
"""Trailer in which a handler says the position of the state that its answer shows."""

_CODES: Final = {code: Code(code.value[0]) for code in grpc.StatusCode}


class Flat(grpc.aio.Metadata):
    """Metadata that is only iterated, so that it need not be indexed."""

    def __init__(self, pairs: tuple[tuple[str, Any], ...]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Any:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


class Outgoing:
    """The call details that only lack the timeout and the number of the attempt."""

    __slots__ = ("_details", "_metadata", "_plain", "_span", "call", "options")

    def __init__(
        self,
        details: Any,
        handled: context.CallContext | None,
        *,
        plain: bool,
    ) -> None:
        """`plain`: nobody but gRPC reads the metadata, so a tuple will do."""
        self._details = details
        self._plain = plain
        self.call: engine.Call
        self.options: dict[str, Any] = {}
        self._span, traced = telemetry.outgoing(details.method)
        metadata: list[tuple[str, Any]] = []
        given = details.metadata
        if given:
            for key, value in given:
                if key == telemetry.TRACEPARENT:
                    traced = ()
                if key.startswith(context.RESERVED_PREFIX) or key == context.IDEMPOTENCY_KEY:
                    self.options[key] = value
                    if key != context.IDEMPOTENCY_KEY:
                        continue
                metadata.append((key, value))
        metadata += traced
        if handled is not None:
            metadata += context.outgoing(handled)
        self._metadata = tuple(metadata)

    def option(self, key: str) -> int:
        """A small number that the caller has set for the library; 0 if not."""
        value = self.options.get(key)
        return int(value) if isinstance(value, str) and value.isdecimal() else 0

    def attempt(self, send: engine.Send) -> grpc.aio.ClientCallDetails:
        """The details of an attempt."""
        metadata: Any = self._metadata
        if send.number:
            metadata = (*metadata, (ATTEMPT_KEY, str(send.number)))
        metadata = Flat(metadata) if self._plain else grpc.aio.Metadata(*metadata)
        details = self._details
        return grpc.aio.ClientCallDetails(
            details.method, send.timeout, metadata, details.credentials, details.wait_for_ready
        )

    def refusal(self, step: engine.Refuse) -> grpc.aio.AioRpcError:
        """A local refusal as gRPC's own error."""
        trailers = grpc.aio.Metadata()
        if step.retry_after is not None:
            status = errors.ServiceError(
                _grpc_code(step.code), step.reason, step.message, retry_after=step.retry_after
            ).to_status()
            trailers.add(errors.DETAILS_KEY, status.SerializeToString())
            trailers.add(PUSHBACK_KEY, format_pushback(step.retry_after))
        error = grpc.aio.AioRpcError(
            _grpc_code(step.code), grpc.aio.Metadata(), trailers, step.message, step.message
        )
        # An open circuit: what there was to be tried has been tried.
        return self.mark(error, exhausted=step.retry_after is not None)

    def mark(self, error: grpc.aio.AioRpcError, *, exhausted: bool = False) -> grpc.aio.AioRpcError:
        """`error`, which ends the call, with what the server side needs to know of it."""
        setattr(error, DEPENDENCY, self.call.policy.method)
        if exhausted:
            setattr(error, EXHAUSTED, True)
        return error

    def fail(self, error: grpc.aio.AioRpcError) -> None:
        """`error` ends a call of one attempt: pass on a mark that it carries."""
        exhausted = failure_from(error).pushback == NEVER
        self.mark(error, exhausted=exhausted)

    def finish(self, code: str, *, fallback: bool = False) -> None:
        """The call has ended; the first time counts."""
        if self._span is not None:
            if fallback:
                self._span.set_attribute("accord.fallback", True)
            telemetry.end_span(self._span, self.call.policy.method, code)
            self._span = None


def failure_from(error: Any, *, transport: bool = False, started: bool = False) -> engine.Failure:
    """What a failed attempt says to the engine."""
    return read_failure(
        error.code(), error.trailing_metadata(), transport=transport, started=started
    )


def read_failure(
    code: grpc.StatusCode, trailers: Any, *, transport: bool = False, started: bool = False
) -> engine.Failure:
    """What a status and its trailers say to the engine."""
    pushbacks: list[Any] = []
    reason, retry_info = "", None
    for key, value in trailers or ():
        if key == PUSHBACK_KEY:
            pushbacks.append(value)
        elif key == errors.DETAILS_KEY and isinstance(value, bytes):
            try:
                found = errors.ServiceError.from_status(status_pb2.Status.FromString(value))
            except DecodeError:  # a garbled trailer must not hide the status itself
                continue
            reason, retry_info = found.reason, found.retry_after
    return engine.Failure(
        _CODES.get(code, Code.INTERNAL),
        reason,
        parse_pushback(*pushbacks),
        retry_info,
        transport,
        started,
    )


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


def _grpc_code(code: Code) -> grpc.StatusCode:
    return errors.CODES[code.value]
