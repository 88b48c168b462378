"""A server that answers by script: failures, delays, hanging, dropped connections.

It speaks for any method of any contract and needs no servicer: requests and responses pass as
bytes, and are messages where the process has the method's descriptor. It runs in threads of its
own, so that it serves tests of aio and of sync gRPC alike.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf import message, message_factory
from grpc_health.v1 import health, health_pb2_grpc

from accord import errors
from accord.contract.names import GRPC, described, method_name
from accord.policies.retry import ATTEMPT_KEY, NEVER, PUSHBACK_KEY, format_pushback, read_attempt
from accord.policies.types import Code
from accord.server.types import AnyHandler
from accord.sync.server_context import GrpcContext
from accord.testing.script import End, Message, Step, step
from accord.testing.tcp_proxy import TcpProxy

ANY: Final = "*"
"""The script of every method that has none of its own."""

MAX_CALLS: Final = 64
"""Attempts at work at once, those that hang included; more of them wait."""

Parse = Callable[[bytes], message.Message | bytes]

_NO_DEADLINE: Final = 365 * 86400.0


@dataclass(slots=True)
class Attempt:
    """An attempt that has reached the server."""

    method: str
    """ "pkg.Service/Method"."""
    metadata: Mapping[str, str | bytes]
    """As it came; of several values under one key the last."""
    deadline: float | None
    """Seconds that were left when it arrived; None: without a deadline."""
    requests: list[Any] = field(default_factory=list)  # of whatever type the contract says
    """Messages, or bytes where the process does not know the method."""
    cancelled: bool = False
    """Whether the caller ended it before the script did."""

    @property
    def number(self) -> int:
        """What came as `accord-attempt`: the attempts that were made before it."""
        return read_attempt(self.metadata.get(ATTEMPT_KEY, "")) or 0

    @property
    def request(self) -> Any:  # as above
        """The only, or first, request. Raises IndexError if there was none."""
        return self.requests[0]


class FaultyServer:
    """Answers attempts one after the other as its script says; the last step goes on for ever.

        with FaultyServer() as faulty:
            faulty.script("parcels.v1.ParcelService/GetParcel", "UNAVAILABLE", "OK")
            ...  # call faulty.address
            assert len(faulty.attempts) == 2

    A method without a script is UNIMPLEMENTED.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: dict[str, list[Step]] = {}
        self._attempts: list[Attempt] = []
        self._server = grpc.server(
            ThreadPoolExecutor(MAX_CALLS, "faulty"), options=(("grpc.so_reuseport", 0),)
        )
        self._server.add_generic_rpc_handlers((_AnyMethod(self),))
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._line = TcpProxy(port)
        self.address = f"127.0.0.1:{self._line.port}"
        """Where it listens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all calls and stop listening."""
        self._line.close()
        self._server.stop(None).wait()

    def cut(self) -> None:
        """Cut all connections now. Callers may connect again at once."""
        self._line.cut()

    def script(self, method: str, *steps: Step | Message | str) -> None:
        """What the next attempts of a method meet, instead of what was said before.

        Args:
            method: "pkg.Service/Method", or "*" for all methods without a script.
            steps: one per attempt: a status code's name ("OK" answers with an empty message), a
                message to answer with, or `reply`, `fail`, `hang`, `drop`. The last one stays.

        Raises:
            ValueError: there are no steps, one is not the name of a code, or `method` is misspelt.
        """
        name = method if method == ANY else method_name(method)
        if not steps:
            raise ValueError("a script has at least one step")
        with self._lock:
            self._scripts[name.removeprefix("/")] = [step(item) for item in steps]

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts that have reached the server so far, in their order."""
        with self._lock:
            return list(self._attempts)

    def attempts_of(self, method: str) -> list[Attempt]:
        """Those of one method, "pkg.Service/Method"."""
        wanted = method.removeprefix("/")
        return [attempt for attempt in self.attempts if attempt.method == wanted]

    def assert_attempts(self, expected: int, method: str = "") -> list[Attempt]:
        """All attempts, or those of `method`; fails, and lists them, if they are not so many."""
        found = self.attempts_of(method) if method else self.attempts
        if len(found) != expected:
            lines = "".join(
                f"\n  {each.method} accord-attempt={each.number} deadline={each.deadline}"
                for each in found
            )
            raise AssertionError(f"{len(found)} attempts, not {expected}:{lines or ' none'}")
        return found

    def _next(self, attempt: Attempt) -> Step | None:
        with self._lock:
            script = self._scripts.get(attempt.method) or self._scripts.get(ANY)
            self._attempts.append(attempt)
            if script is None:
                return None
            return script.pop(0) if len(script) > 1 else script[0]


class _AnyMethod(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # in gRPC's stubs alone
    """Every method as a stream of bytes both ways: on the wire that is what all arities are."""

    def __init__(self, faulty: FaultyServer) -> None:
        self._faulty = faulty

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "AnyHandler | None":
        """Services of gRPC's own have no script: the server is healthy, whatever it answers."""
        method = handler_call_details.method
        if method.startswith(GRPC):
            return None

        def behave(requests: Iterator[bytes], context: GrpcContext) -> Iterator[bytes]:
            return self._behave(method, requests, context)

        return grpc.stream_stream_rpc_method_handler(behave)

    def _behave(
        self, method: str, requests: Iterator[bytes], context: GrpcContext
    ) -> Iterator[bytes]:
        found = described(method)
        remaining = context.time_remaining()
        attempt = Attempt(
            method[1:],
            dict(context.invocation_metadata() or ()),
            None if remaining is None or remaining > _NO_DEADLINE else remaining,
        )
        over = threading.Event()
        done = False

        def ended() -> None:
            attempt.cancelled = not done
            over.set()

        parse: Parse = bytes
        if found is not None:
            parse = message_factory.GetMessageClass(found.input_type).FromString
        both = found is not None and found.client_streaming and found.server_streaming
        if not both:  # where both stream, the caller may wait for an answer before it sends
            _read(requests, attempt, parse)
        planned = self._faulty._next(attempt)
        if not context.add_callback(ended):
            attempt.cancelled = True
            return
        if planned is None:
            done = True
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no script for {method[1:]}")
        assert planned is not None
        if planned.delay and over.wait(planned.delay):
            return
        messages = [message.SerializeToString() for message in planned.messages]
        if planned.end is Code.OK and not messages and not (found and found.server_streaming):
            messages = [b""]
        yield from messages
        if planned.end is End.DROP:
            done = True
            self._faulty.cut()
        if isinstance(planned.end, End):
            over.wait()
            return
        if both:
            _read(requests, attempt, parse)
        done = True
        _finish(context, planned)


def _read(requests: Iterator[bytes], attempt: Attempt, parse: Parse) -> None:
    """All requests, to the caller's end; what cannot be parsed is kept as it came."""
    for raw in requests:
        attempt.requests.append(parse(raw))


def _finish(context: GrpcContext, planned: Step) -> None:
    """End the call with the step's status."""
    assert isinstance(planned.end, Code)
    if planned.end is Code.OK:
        return
    trailers: list[tuple[str, str | bytes]] = []
    code = errors.CODES[planned.end.value]
    if planned.pushback is not None:
        pushback = planned.pushback if planned.pushback >= 0 else NEVER
        trailers.append((PUSHBACK_KEY, format_pushback(pushback)))
    if planned.reason or planned.retry_after is not None:
        status = errors.ServiceError(
            code, planned.reason, planned.message, retry_after=planned.retry_after
        ).to_status("faulty")
        trailers.append((errors.DETAILS_KEY, status.SerializeToString()))
    context.set_trailing_metadata(tuple(trailers))
    context.abort(code, planned.message)
