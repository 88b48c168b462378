"""However a call over threads ends, it ends completely: threads, spans, permits, probes, status."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import accord
from accord.policies.breaker import State
from accord.testing.tcp_proxy import TcpProxy
from tests.accord import matrix
from tests.accord.kit import Message, Stub, idle
from tests.accord.sync.kit import Hold, eventually, serving
from tests.support.telemetry import Spans


class Work:
    """Handlers of all arities that end as the text of their request tells."""

    def __init__(self) -> None:
        self.hold = Hold()

    def end(self, ending: str, context: Any) -> None:
        if ending == "down":
            raise accord.Unavailable("DOWN")
        if ending == "error":
            raise accord.NotFound()
        if ending == "server cancels":
            context.cancel()
        if ending != "ok":
            self.hold(context)

    def handlers(self) -> dict[str, Any]:
        def unary(request: Any, context: Any) -> Any:
            self.end(request.text, context)
            return request

        def server_stream(request: Any, context: Any) -> Iterator[Any]:
            if request.text != "down":
                yield request
            self.end(request.text, context)

        def client_stream(requests: Any, context: Any) -> Any:
            for request in requests:
                self.end(request.text, context)
            return Message()

        def bidi(requests: Any, context: Any) -> Iterator[Any]:
            for request in requests:
                if request.text != "down":
                    yield request
                self.end(request.text, context)

        return {
            "Unary": unary,
            "ServerStream": server_stream,
            "ClientStream": client_stream,
            "Bidi": bidi,
        }


def _start(stub: Stub, method: str, text: str, **options: Any) -> Any:
    """A call that does not block."""
    found = getattr(stub, method)
    make = found if matrix.many_responses(method) else found.future
    return make(matrix.argument(method, text), **options)


def _finish(call: Any, method: str) -> str:
    """Read a call to its end; its status."""
    try:
        list(call) if matrix.many_responses(method) else call.result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        return matrix.status(error)
    return "OK"


def _block(stub: Stub, method: str, ending: str) -> str:
    """Make the call and wait for it, as most callers do; its status."""
    options = {"timeout": matrix.timeout(method, ending)}
    if matrix.many_responses(method):
        return _finish(_start(stub, method, ending, **options), method)
    try:
        getattr(stub, method)(matrix.argument(method, ending), **options)
    except grpc.RpcError as error:
        return matrix.status(error)
    return "OK"


def _end(stub: Stub, method: str, ending: str, work: Work, line: TcpProxy) -> str | None:
    """Make a call that ends so; the status that its caller sees, if it asks."""
    if ending in ("ok", "error", "deadline", "server cancels"):
        return _block(stub, method, ending)
    call = _start(stub, method, ending, timeout=matrix.timeout(method, ending))
    if ending == "never read":
        return str(call.code().name)
    if ending == "abandoned":
        if matrix.many_responses(method):
            next(call)
            assert work.hold.started.wait(3)
        return None
    reading = threading.Thread(target=_finish, args=(call, method))
    reading.start()
    assert work.hold.started.wait(3)
    line.cut() if ending == "connection lost" else call.cancel()
    reading.join()
    return str(call.code().name)


def _threads() -> set[threading.Thread]:
    """All threads but the timers', of which a process has one."""
    return {thread for thread in threading.enumerate() if thread.name != "accord-timers"}


@pytest.mark.parametrize("method", matrix.ARITIES)
@pytest.mark.parametrize("ending", matrix.ENDINGS)
def test_ending(method: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is a half-open breaker's probe leaves nothing behind, and its status is right."""
    spans, before = Spans(monkeypatch), _threads()
    work, callee, caller = Work(), accord.Mesh("callee"), matrix.fragile()
    with (
        serving(callee, work.handlers(), max_workers=8) as address,
        matrix.line_to(address) as line,
    ):
        stub = Stub(caller.sync.channel(f"127.0.0.1:{line.port}"))
        _block(stub, method, "down")
        eventually(lambda: matrix.state_of(caller) is State.HALF_OPEN)

        code = _end(stub, method, ending, work, line)
        assert code is None or code in matrix.expected(method, ending)

        eventually(lambda: spans.settled() and idle(callee))
        assert matrix.one_span_a_side(spans, ending)
        assert matrix.code_of(spans, 1) in matrix.expected(method, ending)
        assert len(spans.ended) == len(spans.all)

        def closed() -> bool:
            if matrix.state_of(caller) is not State.CLOSED:
                _block(stub, method, "ok")
            return matrix.state_of(caller) is State.CLOSED

        eventually(closed)
        caller.sync.close()
    eventually(lambda: not _threads() - before)


def test_stream_as_a_probe() -> None:
    """A stream that goes on for long closes the circuit when it is answered, not when it ends."""
    more = threading.Event()

    def requests() -> Iterator[Any]:
        yield Message(text="a")
        more.wait(5)

    def bidi(requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            if request.text == "down":
                raise accord.Unavailable("DOWN")
            yield request

    caller = matrix.fragile()
    with serving(accord.Mesh("callee"), {"Bidi": bidi}) as address:
        stub = Stub(caller.sync.channel(address))
        _block(stub, "Bidi", "down")
        eventually(lambda: matrix.state_of(caller) is State.HALF_OPEN)
        call = stub.Bidi(requests())
        assert next(call).text == "a"
        assert matrix.state_of(caller) is State.CLOSED
        assert call.is_active()
        more.set()
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK
        caller.sync.close()
