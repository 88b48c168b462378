"""What the server does around a handler that runs in a thread, stage by stage."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import accord
from accord import Limits
from accord.ops.v1 import mesh_pb2
from accord.policies.fault_injection import FaultPolicy
from accord.policies.queue import PATIENCE
from accord.policies.retry import PUSHBACK_KEY
from accord.policies.types import Code, Priority
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, bound, handlers, idle, path
from tests.accord.sync.kit import Hold, eventually, failure, serving, trailers_of

KEY = accord.idempotency_key("k1")


@contextmanager
def bare(
    behaviours: dict[str, Any], *, store: Any = None, **mesh: Any
) -> Iterator[tuple[Stub, accord.Mesh]]:
    """A server of a mesh with these settings, and a client without interceptors."""
    found = accord.Mesh("callee", **mesh)
    with (
        serving(found, behaviours, idempotency=store) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield Stub(channel), found


def answer(request: Any, context: Any) -> Any:
    """The request."""
    return request


def test_identity_depth_and_rate() -> None:
    """Callers without an identity, chains that are too long and used-up buckets are refused."""
    with bare({"Unary": answer}, authorize=True) as (stub, _):
        assert failure(lambda: stub.Unary(Message())).reason == "NO_IDENTITY"
    with bare({"Unary": answer, "Limited": answer}) as (stub, mesh):
        deep = failure(lambda: stub.Unary(Message(), metadata=(("accord-depth", "9"),)))
        assert deep.reason == "CALL_TOO_DEEP"
        for _ in range(5):
            stub.Limited(Message())
        with pytest.raises(grpc.RpcError) as caught:
            stub.Limited(Message())
        assert accord.ServiceError.from_rpc(caught.value).reason == "RATE_LIMITED"
        assert 9000 < int(trailers_of(caught.value)[PUSHBACK_KEY]) <= 10_000
        assert idle(mesh)


def test_queue_and_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for a place, in order of priority; who waits in vain is told when to come back."""
    monkeypatch.setitem(PATIENCE, Priority.DEFAULT, 30.0)
    monkeypatch.setitem(PATIENCE, Priority.CRITICAL, 30.0)
    hold, order = threading.Event(), []

    def handler(request: Any, context: Any) -> Any:
        order.append(request.text)
        hold.wait(20)
        return request

    with bare({"Unary": handler}) as (stub, mesh), ThreadPoolExecutor(4) as callers:
        bound(mesh, "Unary", 1)

        def call(text: str, priority: Priority) -> Any:
            metadata = (("accord-priority", priority.name),)
            return stub.Unary(Message(text=text), metadata=metadata, timeout=20)

        first = callers.submit(call, "first", Priority.DEFAULT)
        eventually(lambda: order == ["first"])
        second = callers.submit(call, "second", Priority.DEFAULT)
        eventually(lambda: mesh.control.limiter.snapshot().queued == 1)
        third = callers.submit(call, "critical", Priority.CRITICAL)
        eventually(lambda: mesh.control.limiter.snapshot().queued == 2)
        error = failure(lambda: call("sheddable", Priority.SHEDDABLE))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert error.retry_after
        hold.set()
        for each in (first, second, third):
            each.result(20)
        assert order == ["first", "critical", "second"]
        eventually(lambda: idle(mesh))


def test_waiting_for_a_place_ends() -> None:
    """The wait for a place ends with the call's patience, or with the caller's deadline."""
    hold = Hold()

    def handler(request: Any, context: Any) -> Any:
        if request.text == "hold":
            hold(context)
        return request

    with bare({"Unary": handler}) as (stub, mesh):
        bound(mesh, "Unary", 1)
        held = stub.Unary.future(Message(text="hold"), timeout=5)
        assert hold.started.wait(3)
        assert failure(lambda: stub.Unary(Message())).reason == "OVERLOADED"
        late = failure(lambda: stub.Unary(Message(), timeout=0.03))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        held.cancel()
        eventually(lambda: idle(mesh))


def test_streams_have_a_limit_of_their_own() -> None:
    """One stream too many is refused; a stream holds its place until it ends."""
    hold = Hold()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield request
        hold(context)

    with bare({"ServerStream": stream}, limits=Limits(streams=1)) as (stub, mesh):
        call = stub.ServerStream(Message())
        next(call)
        assert failure(lambda: list(stub.ServerStream(Message()))).reason == "OVERLOADED"
        call.cancel()
        eventually(lambda: idle(mesh))


def test_validation() -> None:
    """Garbage and broken rules are INVALID_ARGUMENT; an item of a stream is named."""

    def validate(request: Any) -> list[accord.FieldViolation]:
        return [accord.FieldViolation("text", "is bad")] if request.text == "bad" else []

    def upload(requests: Any, context: Any) -> Any:
        return Message(text=str(len(list(requests))))

    with bare({"Unary": answer, "ClientStream": upload}, validator=validate) as (stub, _):
        error = failure(lambda: stub.raw("Unary")(b"\xff"))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
        error = failure(lambda: stub.Unary(Message(text="bad")))
        assert error.violations[0].field == "text"
        items = [Message(), Message(text="bad")]
        error = failure(lambda: stub.ClientStream(iter(items)))
        assert error.metadata["item"] == "1"


class Store:
    """Records in memory."""

    def __init__(self) -> None:
        self.records: dict[accord.Scope, accord.StoredAnswer] = {}

    def lookup(self, scope: accord.Scope) -> accord.StoredAnswer | None:
        return self.records.get(scope)

    def write(self, answer: Any) -> None:
        """What a handler's transaction does."""
        current = accord.current()
        assert current is not None
        assert current.idempotency is not None
        call = current.idempotency
        if isinstance(answer, accord.ServiceError):
            status = answer.to_status().SerializeToString()
            self.records[call.scope] = accord.StoredAnswer(call.fingerprint, status=status)
        else:
            response = answer.SerializeToString()
            self.records[call.scope] = accord.StoredAnswer(call.fingerprint, response=response)


def test_idempotency() -> None:
    """A repeat gets the first answer, refusals included; duplicates wait for the first call."""
    store, runs, gate = Store(), [], threading.Event()

    def charge(request: Any, context: Any) -> Any:
        runs.append(request.text)
        gate.wait(3)
        if request.text == "poor":
            refusal = accord.FailedPrecondition("DECLINED", f"declined {len(runs)}")
            store.write(refusal)
            raise refusal
        found = Message(text=f"charge {len(runs)}")
        store.write(found)
        return found

    with bare({"Charge": charge}, store=store) as (stub, _), ThreadPoolExecutor(8) as callers:
        assert failure(lambda: stub.Charge(Message())).reason == "IDEMPOTENCY_KEY_REQUIRED"
        crowd = [callers.submit(stub.Charge, Message(text="a"), metadata=KEY) for _ in range(8)]
        eventually(lambda: len(runs) == 1)
        waiting = failure(lambda: stub.Charge(Message(text="a"), metadata=KEY, timeout=0.2))
        assert waiting.reason in ("IDEMPOTENCY_IN_PROGRESS", "DEADLINE_EXCEEDED")
        gate.set()
        assert {call.result(3).text for call in crowd} == {"charge 1"}
        reused = failure(lambda: stub.Charge(Message(text="b"), metadata=KEY))
        assert reused.reason == "IDEMPOTENCY_KEY_REUSED"
        other = accord.idempotency_key("k2")
        refusals = [
            failure(lambda: stub.Charge(Message(text="poor"), metadata=other)) for _ in range(2)
        ]
        assert [error.message for error in refusals] == ["declined 2"] * 2
    assert runs == ["a", "poor"]


def test_async_store_is_refused() -> None:
    """A store that has to be awaited is refused when the server is made, not when it is called."""

    class Async:
        async def lookup(self, scope: accord.Scope) -> None: ...

    with pytest.raises(TypeError, match="SyncIdempotencyStore"):
        accord.Mesh("callee").sync.server(idempotency=Async())  # type: ignore[arg-type]


def test_faults() -> None:
    """An injected delay and abort happen; a delayed call whose caller has gone ends at once."""
    with bare({"Unary": answer}) as (stub, mesh):
        mesh.control.faults.inject(
            path("Unary"), FaultPolicy(abort=Code.ABORTED, abort_percent=100), 60
        )
        assert failure(lambda: stub.Unary(Message())).reason == "FAULT_INJECTED"
        mesh.control.faults.inject(path("Unary"), FaultPolicy(delay=30, delay_percent=100), 60)
        error = failure(lambda: stub.Unary(Message(), timeout=0.1))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: idle(mesh))


def test_expired_work_is_not_begun() -> None:
    """A call whose deadline has passed while it waited never reaches its handler."""
    ran: list[str] = []

    def handler(request: Any, context: Any) -> Any:
        ran.append(request.text)
        time.sleep(0.15)
        return request

    with bare({"Unary": handler}) as (stub, mesh):
        bound(mesh, "Unary", 1)
        first = stub.Unary.future(Message(text="first"))
        eventually(lambda: ran == ["first"])
        late = failure(lambda: stub.Unary(Message(text="late"), timeout=0.05))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        first.result(3)
        eventually(lambda: idle(mesh))
    assert ran == ["first"]


def test_no_deadline() -> None:
    """A caller without a deadline is one: the handler's own bound is the contract's."""

    def handler(request: Any, context: Any) -> Any:
        current = accord.current()
        assert current is not None
        return Message(text=f"{context.time_remaining() > 1e9} {current.remaining()}")

    with bare({"Unary": handler}) as (stub, _):
        endless, left = stub.Unary(Message()).text.split()
    assert endless == "True"
    assert 1.5 < float(left) <= 2


def test_idle_stream_is_ended() -> None:
    """A stream on which nothing happens is UNAVAILABLE, though its thread waits for something."""
    hold = Hold()

    def quiet(request: Any, context: Any) -> Iterator[Any]:
        yield request
        hold(context)

    with bare({"Quiet": quiet}) as (stub, mesh):
        error = failure(lambda: list(stub.Quiet(Message())))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")
        assert hold.ended.wait(3)
        eventually(lambda: idle(mesh))


def test_upload_is_bounded() -> None:
    """A caller that never finishes sending is answered, and what it sent is not taken for all."""
    seen: list[str] = []
    never = threading.Event()

    def upload(requests: Any, context: Any) -> Any:
        seen.extend(request.text for request in requests)
        seen.append("end")
        return Message()

    def sending() -> Iterator[Any]:
        yield Message(text="a")
        never.wait(10)

    with bare({"ClientStream": upload}) as (stub, mesh):
        error = failure(lambda: stub.ClientStream(sending()))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: idle(mesh))
        never.set()
    assert seen == ["a"]


def test_mark_travels_up() -> None:
    """A nested failure that was retried is answered with "never"; the handler may abort for it."""
    calls: list[str] = []

    def leaf(request: Any, context: Any) -> Any:
        calls.append("leaf")
        raise accord.Unavailable("DOWN")

    middle = accord.Mesh("middle")
    with serving(accord.Mesh("leaf"), {"Retried": leaf}) as leaf_at:
        below = Stub(middle.sync.channel(leaf_at))

        def relay(request: Any, context: Any) -> Any:
            if request.text != "abort":
                return below.Retried(request)
            try:
                return below.Retried(request)
            except grpc.RpcError:
                context.abort(grpc.StatusCode.UNAVAILABLE, "below")

        with (
            serving(middle, {"Retried": relay}) as middle_at,
            grpc.insecure_channel(middle_at) as channel,
        ):
            for text in ("", "abort"):
                with pytest.raises(grpc.RpcError) as caught:
                    Stub(channel).Retried(Message(text=text))
                assert trailers_of(caught.value)[PUSHBACK_KEY] == "-1"
        middle.sync.close()
    assert len(calls) >= 4


WRONG: dict[str, Callable[[Any], None]] = {
    "number": lambda context: context.set_trailing_metadata((("x-note", 3),)),
    "text": lambda context: context.set_trailing_metadata((("x-note-bin", "abc"),)),
    "mapping": lambda context: context.set_trailing_metadata({"x-note": "abc"}),
    "message": lambda context: context.abort(grpc.StatusCode.NOT_FOUND, 42),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
def test_what_cannot_be_sent(method: str, wrong: str) -> None:
    """Trailers and a message of a wrong type are the handler's error, and it is told at once."""

    def unary(request: Any, context: Any) -> Any:
        WRONG[wrong](context)
        return request

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield unary(request, context)

    def call() -> Any:
        found = getattr(stub, method)(Message(), timeout=2)
        return found if method == "Unary" else list(found)

    with bare({"Unary": unary, "ServerStream": stream}) as (stub, mesh):
        error = failure(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        eventually(lambda: idle(mesh))


class Careless(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Sets trailers that cannot be sent."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handle = continuation(handler_call_details).stream_stream

        def behaviour(requests: Any, context: Any, send: Any) -> None:
            context.set_trailing_metadata((("x-note", 3),))
            handle(requests, context, send)

        behaviour.experimental_non_blocking = True  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(behaviour)


def test_place_is_given_back() -> None:
    """A stream that cannot even be ended holds no place when its handler has returned."""

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield request

    mesh = accord.Mesh("callee")
    server = grpc.server(
        ThreadPoolExecutor(2), interceptors=[Careless(), *mesh.sync.server_interceptors()]
    )
    server.add_generic_rpc_handlers((handlers({"ServerStream": stream}),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with grpc.insecure_channel(address) as channel:
        call = Stub(channel).ServerStream(Message(), timeout=5)
        next(call)
        eventually(lambda: idle(mesh))
    server.stop(None).wait(3)


def test_request_that_never_comes() -> None:
    """A caller without a deadline that sends no request has a thread for the contract's time."""
    never = threading.Event()

    def sending() -> Iterator[Any]:
        never.wait(10)
        yield from ()

    mesh = accord.Mesh("callee")
    short = policy_pb2.MethodPolicy()
    short.timeout.nanos = 50_000_000
    mesh.control.overrides.set(path("Unary"), mesh_pb2.Override(policy=short))
    with (
        serving(mesh, {"Unary": answer}, max_workers=1) as address,
        grpc.insecure_channel(address) as channel,
    ):
        silent: Any = channel.stream_unary
        call = silent(path("Unary")).future(sending())
        assert call.code() is grpc.StatusCode.CANCELLED
        assert Stub(channel).Unary(Message(text="b"), timeout=3).text == "b"
        never.set()


def test_streams_leave_threads_for_other_calls() -> None:
    """As many streams as are admitted are open, and a call is answered still."""
    done = threading.Event()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield request
        done.wait(10)

    with bare({"ServerStream": stream, "Unary": answer}, limits=Limits(streams=330)) as (stub, _):
        calls = [stub.ServerStream(Message()) for _ in range(330)]
        for call in calls:
            next(call)
        assert stub.Unary(Message(text="a")).text == "a"
        done.set()
