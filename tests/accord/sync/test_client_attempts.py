"""What the client does on its own, over threads: the engine is the same, the driver is not."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.trace import SpanKind

import accord
from accord.client.request import AT_LEAST_KEY, MAX_ATTEMPTS_KEY, POSITION_KEY
from accord.ops.v1 import mesh_pb2
from accord.policies.breaker import State
from accord.policies.budget import BudgetPolicy
from tests.accord.kit import Message, Stub, path
from tests.accord.sync.kit import Hold, echo, eventually, failure, serving
from tests.support.telemetry import Spans

DOWN = accord.Unavailable("DOWN")
NO_BREAKER = mesh_pb2.Override(dark=[mesh_pb2.DARK_POLICY_BREAKER])


class Flaky:
    """A handler that fails in a given way for its first calls, and counts all of them."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.attempts: list[int] = []

    def unary(self, request: Any, context: Any) -> Any:
        self.calls += 1
        call = accord.current()
        self.attempts.append(call.attempt if call is not None else -1)
        if self.errors:
            raise self.errors.pop(0)
        return Message(text=f"answer {self.calls}")

    def stream(self, request: Any, context: Any) -> Iterator[Any]:
        if request.text == "late":
            yield Message(text="first")
        yield self.unary(request, context)


@contextmanager
def served(
    behaviours: dict[str, Callable[..., Any]], **options: Any
) -> Iterator[tuple[Stub, accord.Mesh]]:
    """A server and a client with `options`; yields the stub and the client's mesh."""
    caller = accord.Mesh("caller", **options)
    with serving(accord.Mesh("callee"), behaviours) as address:
        try:
            yield Stub(caller.sync.channel(address)), caller
        finally:
            caller.sync.close()


@contextmanager
def intercepted(
    behaviours: dict[str, Callable[..., Any]], **options: Any
) -> Iterator[tuple[Stub, accord.Mesh]]:
    """As `served`, by interceptors on a channel of the user's."""
    caller = accord.Mesh("caller", **options)
    with (
        serving(accord.Mesh("callee"), behaviours) as address,
        grpc.insecure_channel(address) as bare,
    ):
        yield Stub(grpc.intercept_channel(bare, *caller.sync.client_interceptors("echo"))), caller


def route(mesh: accord.Mesh, method: str) -> Any:
    """What the mesh knows of a method."""
    (found,) = (found for found in mesh.snapshot().routes if found.method == path(method))
    return found


def blocking(stub: Stub, method: str, **options: Any) -> Any:
    """A call that blocks."""
    return getattr(stub, method)(Message(), **options)


def future(stub: Stub, method: str, **options: Any) -> Any:
    """A call that does not, until it is asked."""
    return getattr(stub, method).future(Message(), **options).result()


SIDES = {"own": served, "theirs": intercepted}
CALLS = {"blocking": blocking, "future": future}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("call", CALLS)
def test_retries(side: str, call: str) -> None:
    """A call goes on after failures, each attempt says its number, and their number is bounded."""
    flaky = Flaky(DOWN, DOWN, DOWN)
    with SIDES[side]({"Retried": flaky.unary}) as (stub, mesh):
        mesh.control.overrides.set(path("Retried"), NO_BREAKER)
        assert CALLS[call](stub, "Retried").text == "answer 4"
        assert flaky.attempts == [0, 1, 2, 3]
        assert (route(mesh, "Retried").calls, route(mesh, "Retried").retries) == (1, 3)
        flaky.errors = [DOWN] * 9
        with pytest.raises(grpc.RpcError) as caught:
            CALLS[call](stub, "Retried")
        assert flaky.calls == 8
        assert accord.ServiceError.from_rpc(caught.value).reason == "DOWN"
        assert getattr(caught.value, "accord_exhausted", False)
        flaky.errors = [DOWN] * 9
        failure(lambda: CALLS[call](stub, "Retried", metadata=((MAX_ATTEMPTS_KEY, "2"),)))
        assert flaky.calls == 10


def test_future_goes_on_by_itself() -> None:
    """A future that nobody asks is tried again, without a thread of its own, and calls back."""
    flaky, told = Flaky(DOWN, DOWN), threading.Event()
    with served({"Retried": flaky.unary}) as (stub, _):
        call = stub.Retried.future(Message())
        call.add_done_callback(lambda _: told.set())
        assert told.wait(3)
        assert (call.code(), flaky.calls) == (grpc.StatusCode.OK, 3)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("pushback", "calls"), [("-1", 1), ("soon", 1), ("99999", 1), ("20", 2)])
def test_pushback_is_obeyed(call: str, pushback: str, calls: int) -> None:
    """A server says when to come back, or never, and what outlasts the call is not waited for."""
    seen: list[float] = []

    def handler(request: Any, context: Any) -> Any:
        seen.append(time.monotonic())
        if len(seen) == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return Message()

    with served({"Retried": handler}) as (stub, _):
        if calls == 1:
            failure(lambda: CALLS[call](stub, "Retried"))
        else:
            CALLS[call](stub, "Retried")
            assert seen[1] - seen[0] >= 0.018
    assert len(seen) == calls


@pytest.mark.parametrize("call", CALLS)
def test_budget_bounds_retries(call: str) -> None:
    """Without a floor, twenty calls that fail make at most four more; the target is shared."""
    flaky = Flaky(*[DOWN] * 99)
    with served({"Retried": flaky.unary}, budget=BudgetPolicy(floor=0.0)) as (stub, mesh):
        mesh.control.overrides.set(path("Retried"), NO_BREAKER)
        for _ in range(20):
            failure(lambda: CALLS[call](stub, "Retried"))
        assert 20 < flaky.calls <= 24


@pytest.mark.parametrize("call", CALLS)
def test_deadline_spans_all_attempts(call: str) -> None:
    """The caller's timeout is for all attempts and waits together."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=0.05), DOWN, DOWN)

    def slow(request: Any, context: Any) -> Any:
        time.sleep(0.1)
        return flaky.unary(request, context)

    with served({"Retried": slow}) as (stub, _):
        started = time.monotonic()
        error = failure(lambda: CALLS[call](stub, "Retried", timeout=0.2))
        assert time.monotonic() - started < 0.6
    assert error.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert flaky.calls <= 2


def test_cancel_between_attempts() -> None:
    """A future can be cancelled while it waits for its next attempt."""
    flaky = Flaky(accord.Unavailable("DOWN", retry_after=1.0))
    with served({"Retried": flaky.unary}) as (stub, mesh):
        call = stub.Retried.future(Message())
        eventually(lambda: route(mesh, "Retried").retries == 1)
        assert call.cancel()
        assert call.cancelled()
        with pytest.raises(grpc.FutureCancelledError):
            call.result()
        assert call.code() is grpc.StatusCode.CANCELLED
    assert flaky.calls == 1


def test_streams_are_repeated_before_their_first_message() -> None:
    """A server stream is tried again until it has begun, and not afterwards."""
    flaky = Flaky(DOWN, DOWN)
    with served({"RetriedStream": flaky.stream}) as (stub, _):
        assert [m.text for m in stub.RetriedStream(Message())] == ["answer 3"]
        flaky.errors = [DOWN]
        error = failure(lambda: list(stub.RetriedStream(Message(text="late"))))
        assert error.reason == "DOWN"
        assert flaky.calls == 4


@pytest.mark.parametrize("call", CALLS)
def test_hedge_wins(call: str) -> None:
    """A backup request answers for one that is stalled, which is cancelled on the server."""
    hold = Hold()

    def handler(request: Any, context: Any) -> Any:
        current = accord.current()
        if stall and current is not None and current.attempt == 0:
            hold(context)
        return request

    stall = False
    with served({"Hedged": handler}) as (stub, mesh):
        for _ in range(25):
            CALLS[call](stub, "Hedged")
        stall = True
        started = time.monotonic()
        CALLS[call](stub, "Hedged")
        assert time.monotonic() - started < 2
        eventually(hold.ended.is_set)
        assert route(mesh, "Hedged").hedge.sent >= 1


def test_cancel_reaches_both_of_a_hedge() -> None:
    """Cancelling a hedged call cancels both of its attempts."""
    holds: list[Hold] = []
    lock = threading.Lock()

    def handler(request: Any, context: Any) -> Any:
        if request.text == "stall":
            hold = Hold()
            with lock:
                holds.append(hold)
            hold(context)
        return request

    with served({"Hedged": handler}) as (stub, _):
        for _ in range(25):
            stub.Hedged(Message())
        call = stub.Hedged.future(Message(text="stall"))
        eventually(lambda: len(holds) == 2)
        assert call.cancel()
        eventually(lambda: all(hold.ended.is_set() for hold in holds))


@pytest.mark.parametrize("call", CALLS)
def test_breaker_opens_probes_and_closes(call: str) -> None:
    """After failures calls are refused at once, then exactly the probes pass, then all."""
    flaky = Flaky(*[DOWN] * 3)
    release = threading.Event()

    def handler(request: Any, context: Any) -> Any:
        found = flaky.unary(request, context)
        release.wait(3)
        return found

    with served({"Fragile": handler}) as (stub, mesh), ThreadPoolExecutor(50) as crowd:
        for _ in range(3):
            failure(lambda: CALLS[call](stub, "Fragile"))
        with pytest.raises(grpc.RpcError) as caught:
            CALLS[call](stub, "Fragile")
        error = accord.ServiceError.from_rpc(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "CIRCUIT_OPEN")
        assert 0 < (error.retry_after or 0) <= 0.2
        assert flaky.calls == 3

        eventually(lambda: route(mesh, "Fragile").breaker.state is State.HALF_OPEN)
        callers = [crowd.submit(CALLS[call], stub, "Fragile") for _ in range(50)]
        eventually(lambda: flaky.calls == 5 and sum(each.done() for each in callers) == 48)
        release.set()
        assert sum(each.exception() is None for each in callers) == 2
        assert route(mesh, "Fragile").breaker.state is State.CLOSED


def test_refused_stream_says_so() -> None:
    """A stream that an open breaker refuses has a status as any other, and is not opened."""
    opened = 0

    def stream(request: Any, context: Any) -> Iterator[Any]:
        nonlocal opened
        opened += 1
        raise DOWN
        yield

    with served({"ServerStream": stream}) as (stub, _):
        for _ in range(5):
            failure(lambda: list(stub.ServerStream(Message())))
        call = stub.ServerStream(Message())
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert failure(lambda: list(call)).reason == "CIRCUIT_OPEN"
    assert opened == 5


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("call", CALLS)
def test_answers_are_kept(side: str, call: str) -> None:
    """A declared answer is served again, as a copy, until a write through the same mesh."""
    flaky = Flaky()
    with SIDES[side]({"Cached": flaky.unary, "Put": flaky.unary}) as (stub, mesh):
        CALLS[call](stub, "Cached").text = "changed by its caller"
        assert CALLS[call](stub, "Cached").text == "answer 1"
        stub.Put(Message())
        assert CALLS[call](stub, "Cached").text == "answer 3"
        found = route(mesh, "Cached")
        assert (found.cache_hits, found.cache_misses) == (1, 2)


def test_consistency_token_passes_old_answers_by() -> None:
    """A caller that has seen a later position is not served an answer from before it."""
    position = 5

    def handler(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((POSITION_KEY, str(position)),))
        return Message(after=position)

    with served({"Cached": handler}) as (stub, _):
        assert stub.Cached(Message()).after == 5
        position = 9
        seen_5 = stub.Cached(Message(), metadata=((AT_LEAST_KEY, "5"),))
        seen_6 = stub.Cached(Message(), metadata=((AT_LEAST_KEY, "6"),))
        assert (seen_5.after, seen_6.after) == (5, 9)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("call", CALLS)
def test_fallbacks(side: str, call: str) -> None:
    """A fallback answers after the attempts, or leaves the error; it may call somebody else."""
    flaky = Flaky(*[DOWN] * 12)
    answers: list[Any] = [Message(text="instead"), None, RuntimeError()]

    def fallback(request: Any, error: grpc.RpcError) -> Any:
        found = stub.Unary(Message()) if answers[0] is not None else None
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer and found

    behaviours = {"Retried": flaky.unary, "Unary": lambda request, _: Message(text="other")}
    with SIDES[side](behaviours) as (stub, mesh):
        mesh.control.overrides.set(path("Retried"), NO_BREAKER)
        mesh.fallback("accordtest.v1.EchoService/Retried", fallback)
        assert CALLS[call](stub, "Retried").text == "other"
        assert flaky.calls == 4
        for _ in range(2):
            assert failure(lambda: CALLS[call](stub, "Retried")).reason == "DOWN"
        assert route(mesh, "Retried").fallbacks == 1


def test_coroutine_fallback_leaves_the_error() -> None:
    """A fallback that has to be awaited is none for a sync call: its caller gets the error."""
    flaky = Flaky(*[DOWN] * 4)

    async def fallback(request: Any, error: grpc.RpcError) -> Any:
        return Message()

    with served({"Retried": flaky.unary}) as (stub, mesh):
        mesh.fallback("accordtest.v1.EchoService/Retried", fallback)
        assert failure(lambda: stub.Retried(Message())).reason == "DOWN"


def test_what_cannot_be_sent_is_raised() -> None:
    """A request that is none, or metadata that gRPC refuses, raises and holds no probe."""
    with echo({"Fragile": lambda request, context: request}) as stub:
        with pytest.raises(grpc.RpcError):
            stub.Fragile("not a message")
        with pytest.raises((TypeError, ValueError)):
            stub.Fragile(Message(), metadata=(("x", 1),))
        assert stub.Fragile(Message()) is not None


@pytest.mark.parametrize("call", CALLS)
def test_garbled_position(call: str) -> None:
    """A position with more digits than a number has is none, and the answer counts."""

    def cached(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((POSITION_KEY, "9" * 5000),))
        return Message(text="answer")

    with served({"Cached": cached}) as (stub, _):
        assert CALLS[call](stub, "Cached").text == "answer"


def test_future_ends_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised in a thread of gRPC's or of the library's ends the call it was raised for."""

    class Broken(Spans):
        def on_end(self, span: Any) -> None:
            if span.kind is SpanKind.CLIENT:
                raise RuntimeError("the exporter is broken")

    def fallback(request: Any, error: grpc.RpcError) -> Any:
        raise SystemExit

    flaky = Flaky(DOWN)
    with served({"Unary": flaky.unary}) as (stub, mesh):
        mesh.fallback("accordtest.v1.EchoService/Unary", fallback)
        with pytest.raises(SystemExit):
            stub.Unary.future(Message()).result(3)
        Broken(monkeypatch)
        call, answers = stub.Unary.future(Message()), []
        threading.Thread(target=lambda: answers.append(call.result()), daemon=True).start()
        eventually(lambda: [answer.text for answer in answers] == ["answer 2"])
