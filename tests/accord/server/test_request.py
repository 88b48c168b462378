"""Requests that are wrong, and metadata that is garbage."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.server.state import MAX_METHODS, OTHER, Counts
from tests.accord.drivers import Driver
from tests.accord.kit import Message, collect, failure, path

GARBAGE = [b"\xff\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"]
"""No protobuf, a string that is not UTF-8, a string that is longer than the message."""


async def _echo(request: Any, context: Any) -> Any:
    return request


async def _stream(request: Any, context: Any) -> AsyncIterator[Any]:
    yield request


async def _upload(requests: Any, context: Any) -> Any:
    return Message(text=",".join([request.text async for request in requests]))


async def _bidi(requests: Any, context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


HANDLERS = {"Unary": _echo, "ServerStream": _stream, "ClientStream": _upload, "Bidi": _bidi}


async def _finish(call: Any, method: str) -> Any:
    return await (call if method in ("Unary", "ClientStream") else collect(call))


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("method", HANDLERS)
async def test_undecodable(driver: Driver, method: str, garbage: bytes) -> None:
    """Bytes that are no request are INVALID_ARGUMENT with a violation, never INTERNAL."""
    good = Message(text="fine").SerializeToString()
    async with driver.echo(HANDLERS) as stub:
        streamed = method in ("ClientStream", "Bidi")
        request = iter([good, garbage]) if streamed else garbage
        error = await failure(_finish(stub.raw(method)(request), method))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
    assert error.violations
    assert error.metadata == ({"item": "1"} if streamed else {})


@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
async def test_no_request(driver: Driver, method: str) -> None:
    """A call that ends before its request is told so; gRPC itself would never answer it."""
    mesh = accord.Mesh("callee")
    async with (
        driver.serving(mesh, HANDLERS) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        untyped: Any = channel  # Its stubs ask for serializers; bytes need none.
        call = untyped.stream_stream(path(method))
        error = await failure(collect(call(iter(()), timeout=5)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
    assert error.violations


def short(message: Any) -> Sequence[accord.FieldViolation]:
    """A validator: texts have at most three characters."""
    return [accord.FieldViolation("text", "is too long")] if len(message.text) > 3 else []


@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
async def test_invalid_request(driver: Driver, method: str) -> None:
    """A request that breaks a rule does not reach its handler."""
    async with driver.echo(HANDLERS, validator=short) as stub:
        assert await _finish(getattr(stub, method)(Message(text="abc")), method)
        error = await failure(_finish(getattr(stub, method)(Message(text="abcd")), method))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations == (accord.FieldViolation("text", "is too long"),)


async def test_items_are_validated_one_by_one(driver: Driver) -> None:
    """The items of a stream before the wrong one are handled; the error names the item."""
    async with driver.echo(HANDLERS, validator=short) as stub:
        call = stub.Bidi()
        for text in ("a", "b"):
            await call.write(Message(text=text))
            assert (await call.read()).text == text
        await call.write(Message(text="abcd"))
        error = await failure(call.read())
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.metadata == {"item": "2"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("traceparent", "garbage"),
        ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),
        ("traceparent", "x" * 5000),
        ("tracestate", "=,=; " * 50),
        ("baggage", ";;;,,,===%zz"),
        ("baggage", ",".join(["="] * 170)),
        ("baggage", "k=" + "v" * 5000),
        ("accord-depth", "-1"),
        ("accord-depth", "9" * 100),
        ("accord-depth", "one"),
        ("accord-attempt", "1.5"),
        ("accord-priority", "EMPEROR"),
        ("accord-fault", "abort-percent=all"),
        ("grpc-accept-encoding", "nonsense"),
        ("unknown-bin", b"\x00\xff"),
    ],
)
async def test_garbage_metadata(
    driver: Driver, key: str, value: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Metadata that cannot be read breaks no call: it is as good as absent, counted, not logged."""

    async def handler(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=f"{call.depth} {call.priority.name} {len(accord.trace_id())}")

    async with driver.bare({"Unary": handler}) as served:
        answer = await served.stub.Unary(Message(), metadata=((key, value),))
        counts = served.counts("Unary")
    assert answer.text == "0 DEFAULT 32"
    theirs = key in ("grpc-accept-encoding", "unknown-bin")  # nothing that the library reads
    assert counts == ({} if theirs else {f"metadata.ignored.{key}": 1})
    assert not caplog.records


def test_counted_methods_are_bounded() -> None:
    """Callers who make names up fill no table: beyond the bound all methods are counted as one."""
    counts = Counts()
    for number in range(MAX_METHODS + 10):
        counts.add(f"/made.Up/{number}", "depth.refused")
    counts.add("/made.Up/0", "depth.refused")
    assert len(counts.methods()) == MAX_METHODS + 1
    assert (counts.of("/made.Up/0"), counts.of(OTHER)) == (
        {"depth.refused": 2},
        {"depth.refused": 10},
    )


def test_counting_goes_on_while_counts_are_read() -> None:
    """What a collector of metrics reads does not change under it."""
    counts = Counts()
    counts.add("/a.B/C", "rate_limit.refused")
    for name in counts.of("/a.B/C"):
        counts.add("/a.B/C", f"{name}.again")
    assert len(counts.of("/a.B/C")) == 2


async def test_readable_metadata(driver: Driver) -> None:
    """What a caller of the mesh sends is never counted as garbage."""
    metadata = (
        ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01"),
        ("tracestate", "vendor=1"),
        ("baggage", "tenant=blue"),
        ("accord-depth", "0"),
        ("accord-attempt", "0"),
        ("accord-priority", "CRITICAL"),
        ("accord-fault", "delay-ms=0"),
        ("idempotency-key", "k"),
    )
    async with driver.bare({"Unary": _echo}) as served:
        await served.stub.Unary(Message(), metadata=metadata)
        assert served.counts("Unary") == {}


async def test_depth_grows_and_cannot_be_claimed(driver: Driver) -> None:
    """Every hop adds one to the depth; what a caller of the library sets itself is dropped."""
    mesh = accord.Mesh("relay")

    async def leaf(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=str(call.depth))

    async with driver.serving(mesh, {"Unary": leaf}) as address:

        async def relay(request: Any, context: Any) -> Any:
            return await driver.stub(mesh, address).Unary(Message())

        async with driver.serving(mesh, {"Relay": relay}) as middle:
            claimed = (("accord-depth", "7"),)
            edge = await driver.stub(mesh, address).Unary(Message(), metadata=claimed)
            nested = await driver.stub(mesh, middle).Relay(Message(), metadata=claimed)
        await driver.close(mesh)
    assert (edge.text, nested.text) == ("0", "1")


async def test_callers_metadata_arrives(driver: Driver) -> None:
    """What a caller sends besides the library's own arrives, and its own object is not changed."""

    async def handler(request: Any, context: Any) -> Any:
        found = [value for key, value in context.invocation_metadata() if key == "mine"]
        return Message(text=",".join(found))

    given = grpc.aio.Metadata(("mine", "1"), ("mine", "2"))
    async with driver.echo({"Unary": handler}) as stub:
        assert (await stub.Unary(Message(), metadata=given)).text == "1,2"
    assert len(given) == 2


async def test_anonymous_without_certificate(driver: Driver) -> None:
    """A caller without a certificate is anonymous, whatever its metadata claims."""

    async def handler(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=call.principal)

    async with driver.echo({"Unary": handler}) as stub:
        metadata = (("peer_spiffe_id", "spiffe://shop.internal/orders"),)
        assert (await stub.Unary(Message(), metadata=metadata)).text == "anonymous"
