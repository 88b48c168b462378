"""Whose fault it was: what the caller's own side has done opens no circuit, nor is it repeated."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import duration_pb2

import accord
from accord.client import local_status
from accord.ops.v1 import mesh_pb2
from accord.policies.breaker import State
from accord.testing.tcp_proxy import TcpProxy
from accord.v1 import policy_pb2
from tests.accord.kit import Message, Stub, eventually, path, serving

LARGE = "x" * (5 * 1024 * 1024)
CODES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN")


def caller(method: str, failures: int = 1, *, retry: bool = True, **breaker: Any) -> accord.Mesh:
    """A client whose circuit opens after so many failures, and which repeats what it may."""
    policy = policy_pb2.MethodPolicy(
        breaker=policy_pb2.Breaker(consecutive_failures=failures, min_calls=100, **breaker)
    )
    if retry:
        codes = [getattr(policy_pb2, f"STATUS_CODE_{code}") for code in CODES]
        policy.retry.CopyFrom(policy_pb2.Retry(max_attempts=3, codes=codes))
        policy.retry.initial_backoff.nanos = 1_000_000
    mesh = accord.Mesh("caller")
    mesh.control.overrides.set(path(method), mesh_pb2.Override(policy=policy))
    return mesh


@asynccontextmanager
async def calling(
    driver: str, mesh: accord.Mesh, address: str
) -> AsyncIterator[Callable[..., Any]]:
    """Calls of `mesh` in a driver's way: awaited, each gives its code, or the error's type."""
    stub = Stub(mesh.channel(address) if driver == "aio" else mesh.sync.channel(address))

    async def call(method: str, request: Any, **options: Any) -> str:
        try:
            if driver == "aio":
                await getattr(stub, method)(request, **options)
            else:
                await asyncio.to_thread(getattr(stub, method), request, **options)
        except grpc.RpcError as error:
            return str(error.code().name)
        except (TypeError, asyncio.CancelledError) as error:
            return type(error).__name__
        return "OK"

    try:
        yield call
    finally:
        await mesh.close()


async def answer(request: Any, context: Any) -> Any:
    """As large as it is asked for."""
    return Message(text=LARGE if request.text == "much" else "")


async def taken(requests: Any, context: Any) -> Any:
    """What was sent is of no interest."""
    async for _ in requests:
        pass
    return Message()


def _breaks_off() -> Any:
    yield Message()
    raise RuntimeError("the iterator has failed")


MISTAKES: dict[str, tuple[str, Callable[[], Any], dict[str, Any], set[str]]] = {
    "large request": ("Retried", lambda: Message(text=LARGE), {}, {"RESOURCE_EXHAUSTED"}),
    "large response": ("Retried", lambda: Message(text="much"), {}, {"RESOURCE_EXHAUSTED"}),
    "much metadata": (
        "Retried",
        Message,
        {"metadata": (("k", "v" * 300_000),)},
        {"RESOURCE_EXHAUSTED"},
    ),
    "wrong type": ("Retried", lambda: "text", {}, {"INTERNAL", "TypeError"}),
    "broken iterator": ("ClientStream", _breaks_off, {}, {"UNKNOWN", "CancelledError"}),
}


@pytest.mark.parametrize("driver", ["aio", "sync"])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_own_mistakes_are_neutral_and_final(driver: str, mistake: str) -> None:
    """They are made once, and the circuit stays closed for everybody else."""
    method, request, options, codes = MISTAKES[mistake]
    mesh = caller(method, retry=method == "Retried")
    behaviours = {"Retried": answer, "ClientStream": taken}
    async with (
        serving(accord.Mesh("callee"), behaviours) as address,
        calling(driver, mesh, address) as call,
    ):
        assert await call(method, request(), **options) in codes
        good = iter([Message()]) if method == "ClientStream" else Message()
        assert await call(method, good) == "OK"
        (route,) = mesh.snapshot().routes
        assert (route.retries, route.breaker and route.breaker.failures) == (0, 0)


@pytest.mark.parametrize(
    ("code", "details", "own", "lost"),
    [
        ("RESOURCE_EXHAUSTED", "no more than five calls a minute", False, False),
        ("UNAVAILABLE", "Getting metadata from plugin failed with error: x", True, False),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Tls "
            "handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED",
            True,
            False,
        ),
        ("UNAVAILABLE", "failed to connect to all addresses; Connection reset", False, False),
        (
            "UNAVAILABLE",
            "connections to all backends failing; last error: UNAVAILABLE: ipv4:1: Socket closed",
            False,
            False,
        ),
        ("UNAVAILABLE", "Stream removed (Socket closed)", False, True),
        ("UNAVAILABLE", "max connection age", False, True),
        ("UNAVAILABLE", "down", False, False),
        ("INTERNAL", "reference 7", False, False),
    ],
)
def test_texts_of_grpc(code: str, details: str, own: bool, lost: bool) -> None:
    """What cannot be provoked over a loopback port."""
    status = grpc.StatusCode[code]
    assert (local_status.own(status, details), local_status.lost(status, details)) == (own, lost)


async def test_a_mistake_further_down_is_passed_on_as_one() -> None:
    """Who forwards what is too large says so: its own callers neither repeat it nor leave it."""
    leaf, middle = accord.Mesh("leaf"), accord.Mesh("middle")
    mesh = caller("Retried")
    async with serving(leaf, {"Retried": answer}) as below:
        next_one = Stub(middle.channel(below)).Retried

        async def forward(request: Any, context: Any) -> Any:
            return await next_one(Message(text=LARGE))

        async with (
            serving(accord.Mesh("callee"), {"Retried": forward}) as address,
            calling("aio", mesh, address) as call,
        ):
            assert await call("Retried", Message()) == "RESOURCE_EXHAUSTED"
            (route,) = mesh.snapshot().routes
            assert (route.retries, route.breaker and route.breaker.failures) == (0, 0)
        await middle.close()


@pytest.mark.parametrize("driver", ["aio", "sync"])
async def test_overload_is_no_mistake(driver: str) -> None:
    """A server that says RESOURCE_EXHAUSTED, in whatever words, and gives reasons is overloaded."""

    async def busy(request: Any, context: Any) -> Any:
        raise accord.ServiceError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY", "Received message larger than max"
        )

    mesh = caller("Retried", failures=2)
    async with (
        serving(accord.Mesh("callee"), {"Retried": busy}) as address,
        calling(driver, mesh, address) as call,
    ):
        assert await call("Retried", Message()) == "RESOURCE_EXHAUSTED"
        (route,) = mesh.snapshot().routes
        assert (route.retries, route.breaker and route.breaker.failures) == (2, 1)


@pytest.mark.parametrize("driver", ["aio", "sync"])
async def test_one_lost_connection_is_one_failure(driver: str) -> None:
    """However many calls were on it; what fails after that is a failure each."""
    waiting = 0

    async def wait(request: Any, context: Any) -> Any:
        nonlocal waiting
        waiting += 1
        await asyncio.sleep(30)

    async with serving(accord.Mesh("callee"), {"Unary": wait}) as address:
        line = TcpProxy(int(address.rpartition(":")[2]))
        mesh = caller("Unary", failures=3, retry=False)
        async with calling(driver, mesh, f"127.0.0.1:{line.port}") as call:
            calls = [asyncio.ensure_future(call("Unary", Message())) for _ in range(4)]
            await eventually(lambda: waiting == 4, 10)
            line.close()
            assert await asyncio.gather(*calls) == ["UNAVAILABLE"] * 4
            (route,) = mesh.snapshot().routes
            assert route.breaker is not None
            assert (route.breaker.calls, route.breaker.failures) == (1, 1)
            for _ in range(2):
                assert await call("Unary", Message()) == "UNAVAILABLE"
            (route,) = mesh.snapshot().routes
            assert route.breaker is not None
            assert route.breaker.state is State.OPEN


@pytest.mark.parametrize("driver", ["aio", "sync"])
async def test_a_connection_that_was_too_old_is_one_failure(driver: str) -> None:
    """The server ends the calls that are left on it, and the circuit stays closed."""

    async def wait(request: Any, context: Any) -> Any:
        await asyncio.sleep(30)

    ages = [(f"grpc.max_connection_age_{name}ms", 500) for name in ("", "grace_")]
    mesh = caller("Unary", failures=3, retry=False)
    async with (
        serving(accord.Mesh("callee"), {"Unary": wait}, options=ages) as address,
        calling(driver, mesh, address) as call,
    ):
        calls = [call("Unary", Message(), timeout=20) for _ in range(4)]
        assert await asyncio.gather(*calls) == ["UNAVAILABLE"] * 4
        (route,) = mesh.snapshot().routes
        assert route.breaker is not None
        assert (route.breaker.calls, route.breaker.failures) == (1, 1)


@pytest.mark.parametrize("driver", ["aio", "sync"])
async def test_a_call_counts_once(driver: str) -> None:
    """What is left after the retries is what the breaker is told, successes included."""
    bad = 2

    async def flaky(request: Any, context: Any) -> Any:
        nonlocal bad
        bad -= 1
        if bad >= 0:
            raise accord.Unavailable("DOWN")
        return Message()

    mesh = caller("Retried", failures=2)
    async with (
        serving(accord.Mesh("callee"), {"Retried": flaky}) as address,
        calling(driver, mesh, address) as call,
    ):
        for down, code, counted in ((2, "OK", (1, 0)), (3, "UNAVAILABLE", (2, 1))):
            bad = down
            assert await call("Retried", Message()) == code
            (route,) = mesh.snapshot().routes
            assert route.breaker is not None
            assert (route.breaker.calls, route.breaker.failures) == counted


@pytest.mark.parametrize("driver", ["aio", "sync"])
async def test_a_probe_is_retried_as_itself(driver: str) -> None:
    """The call that tries a target again keeps its place while it waits for its next attempt."""
    down = True
    seen = 0

    async def flaky(request: Any, context: Any) -> Any:
        nonlocal seen
        seen += 1
        if down or seen == 4:
            raise accord.Unavailable("DOWN")
        return Message()

    moment = duration_pb2.Duration(nanos=1_000_000)
    mesh = caller("Retried", open=moment, max_open=moment)
    async with (
        serving(accord.Mesh("callee"), {"Retried": flaky}) as address,
        calling(driver, mesh, address) as call,
    ):
        assert await call("Retried", Message()) == "UNAVAILABLE"
        assert seen == 3
        down = False
        await asyncio.sleep(0.01)
        assert await call("Retried", Message()) == "OK"
        (route,) = mesh.snapshot().routes
        assert route.breaker is not None
        assert (seen, route.breaker.state) == (5, State.CLOSED)


@pytest.mark.parametrize("driver", ["aio", "sync"])
@pytest.mark.parametrize("method", ["ServerStream", "RetriedStream", "Bidi"])
async def test_a_quiet_stream_settles_its_probe(driver: str, method: str) -> None:
    """A stream that was accepted closes the circuit, long before its first message."""
    down = True

    async def quiet(request: Any, context: Any) -> Any:
        if down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        await context.send_initial_metadata((("x", "y"),))
        await asyncio.sleep(30)
        yield Message()

    mesh = caller(method, retry=False, open=duration_pb2.Duration(seconds=1))

    def state() -> State:
        (route,) = mesh.snapshot().routes
        assert route.breaker is not None
        return route.breaker.state

    async with serving(accord.Mesh("callee"), {method: quiet}) as address:
        channel = mesh.channel(address) if driver == "aio" else mesh.sync.channel(address)
        call = getattr(Stub(channel), method)

        def begin() -> Any:
            return call(iter([Message()]) if method == "Bidi" else Message())

        def read() -> Any:
            return anext(aiter(stream)) if driver == "aio" else asyncio.to_thread(next, stream)

        stream = begin()
        with pytest.raises(grpc.RpcError):
            await read()
        assert state() is State.OPEN
        down = False
        await eventually(lambda: state() is State.HALF_OPEN, 10)
        stream = begin()
        reader = asyncio.ensure_future(read())
        await eventually(lambda: state() is State.CLOSED, 10)
        assert not reader.done()
        stream.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await mesh.close()
