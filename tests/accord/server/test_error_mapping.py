"""What a caller learns of a failure: always a status, never UNKNOWN, never internals."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2

import accord
from accord import errors
from accord.error_details import MAX_MESSAGE
from tests.accord.drivers import Driver
from tests.accord.kit import (
    SERVICE,
    Message,
    Stub,
    collect,
    eventually,
    failure,
)
from tests.accord.server_kit import trailers_of
from tests.accord.test_arities import finish, start

VIOLATION = accord.FieldViolation("text", "must not be empty")

ERRORS: list[tuple[accord.ServiceError, grpc.StatusCode, str, bool]] = [
    (
        accord.InvalidArgument(VIOLATION),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        False,
    ),
    (
        accord.NotFound(resource=accord.Resource("order", "o1")),
        grpc.StatusCode.NOT_FOUND,
        "NOT_FOUND",
        True,
    ),
    (
        accord.AlreadyExists("EMAIL_TAKEN", accord.Resource("customer", "c1")),
        grpc.StatusCode.ALREADY_EXISTS,
        "EMAIL_TAKEN",
        True,
    ),
    (
        accord.FailedPrecondition(
            "OUT_OF_STOCK", "sold out", accord.Precondition("STOCK", "sku", "0 left")
        ),
        grpc.StatusCode.FAILED_PRECONDITION,
        "OUT_OF_STOCK",
        True,
    ),
    (
        accord.OutOfRange("POSITION_IN_FUTURE"),
        grpc.StatusCode.OUT_OF_RANGE,
        "POSITION_IN_FUTURE",
        True,
    ),
    (accord.Aborted("LOST_RACE", retry_after=0.5), grpc.StatusCode.ABORTED, "LOST_RACE", False),
    (
        accord.ResourceExhausted("QUOTA", 1.5, "too much"),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA",
        False,
    ),
    (accord.Unavailable("AWAY", 2.0), grpc.StatusCode.UNAVAILABLE, "AWAY", False),
    (accord.PermissionDenied("NOT_YOURS"), grpc.StatusCode.PERMISSION_DENIED, "NOT_YOURS", False),
]


def raising(error: BaseException) -> Any:
    """A unary handler that raises."""

    async def handler(request: Any, context: Any) -> Any:
        raise error

    return handler


@pytest.mark.parametrize(("sent", "code", "reason", "refusal"), ERRORS)
async def test_round_trip(
    driver: Driver, sent: accord.ServiceError, code: grpc.StatusCode, reason: str, refusal: bool
) -> None:
    """Every error arrives with everything it was raised with."""
    async with driver.echo({"Unary": raising(sent)}) as stub:
        got = await failure(stub.Unary(Message()))
    assert (code, reason, refusal) == (got.code, got.reason, got.refusal)
    for name in ("message", "metadata", "violations", "preconditions", "resource", "retry_after"):
        assert getattr(sent, name) == getattr(got, name)
    assert got.domain == "callee"


async def test_message_names_code_and_text(driver: Driver) -> None:
    """The status of gRPC itself carries code and message, so that any client can show it."""
    async with driver.echo(
        {"Unary": raising(accord.NotFound(resource=accord.Resource("order", "o1")))}
    ) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Unary(Message())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "order 'o1' does not exist"


@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
async def test_unexpected_error_tells_nothing(
    driver: Driver, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception is INTERNAL with a reference; the log has the exception under it."""

    async def unary(request: Any, context: Any) -> Any:
        raise KeyError("secret")

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message()
        raise KeyError("secret")

    async with driver.echo({"Unary": unary, "ServerStream": stream}) as stub:
        call = getattr(stub, method)(Message())
        with caplog.at_level(logging.ERROR, logger="accord"):
            error = await failure(call if method == "Unary" else collect(call))
    assert error.code is grpc.StatusCode.INTERNAL
    assert "secret" not in error.message
    assert "KeyError" not in error.message
    (record,) = [record for record in caplog.records if record.name == "accord"]
    assert error.metadata["reference"] == record.__dict__["reference"]
    assert record.__dict__["reference"] in error.message
    assert f"reference={error.metadata['reference']}" in record.getMessage()
    assert f"method=/{SERVICE}/{method}" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def _broken(error: Exception) -> accord.ServiceError | None:
    raise KeyError("secret")


@pytest.mark.parametrize(
    "raised",
    [
        accord.NotFound(resource=accord.Resource("order", 42)),  # type: ignore[arg-type]
        accord.FailedPrecondition("X", metadata={"n": 3}),  # type: ignore[dict-item]
        accord.FailedPrecondition("X", ValueError("secret")),  # type: ignore[arg-type]
        accord.Unavailable("X", math.inf),
        accord.InvalidArgument(("field", None), message="X"),  # type: ignore[arg-type]
        RuntimeError("secret"),
    ],
    ids=["name", "metadata", "message", "delay", "violation", "translate"],
)
async def test_error_that_no_status_can_hold(
    driver: Driver, raised: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An error with wrong parts, or a `translate` that fails, is INTERNAL; the log has both."""
    async with driver.bare({"Unary": raising(raised)}, translate=_broken) as served:
        with caplog.at_level(logging.ERROR, logger="accord"):
            error = await failure(served.stub.Unary(Message()))
        await eventually(served.idle)
    assert error.code is grpc.StatusCode.INTERNAL
    assert "secret" not in error.message
    (record,) = [record for record in caplog.records if record.name == "accord"]
    assert error.metadata["reference"] == record.__dict__["reference"]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert record.exc_info[1].__context__ is raised


WRONG: dict[str, Callable[[Any], Any]] = {
    "text": lambda context: context.set_trailing_metadata((("x-bin", "text"),)),
    "number": lambda context: context.set_trailing_metadata((("x", 1),)),
    "key": lambda context: context.set_trailing_metadata(((1, "x"),)),
    "mapping": lambda context: context.set_trailing_metadata({"x-note": "abc"}),
    "abort": lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("x", 1),)),
    "message": lambda context: context.abort(grpc.StatusCode.NOT_FOUND, 42),
}


@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_sent(driver: Driver, wrong: str, method: str) -> None:
    """Trailers and a message of a wrong type are the handler's error, and it is told at once.

    gRPC itself would never end the call.
    """

    async def unary(request: Any, context: Any) -> Any:
        done = WRONG[wrong](context)
        if done is not None:
            await done
        return request

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield await unary(request, context)

    async with driver.bare({"Unary": unary, "ServerStream": stream}) as served:
        error = await failure(finish(start(served.stub, method, "", timeout=60), method))
        await eventually(served.idle)
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_response_that_cannot_be_encoded(driver: Driver) -> None:
    """A handler that returns something else than its response is INTERNAL, not UNKNOWN."""

    async def nothing(request: Any, context: Any) -> Any:
        return None

    async def wrong(request: Any, context: Any) -> AsyncIterator[Any]:
        yield "text"

    async with driver.echo({"Unary": nothing, "ServerStream": wrong}) as stub:
        first = await failure(stub.Unary(Message()))
        second = await failure(collect(stub.ServerStream(Message())))
    assert first.code is second.code is grpc.StatusCode.INTERNAL


async def test_never_unknown(driver: Driver) -> None:
    """UNKNOWN becomes INTERNAL, whichever way a handler says it."""

    async def abort(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNKNOWN, "eh")

    async def set_code(request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.UNKNOWN)
        context.set_details("eh")

    unknown = accord.ServiceError(grpc.StatusCode.UNKNOWN, "EH")
    for handler in (abort, set_code, raising(unknown)):
        async with driver.echo({"Unary": handler}) as stub:
            assert (await failure(stub.Unary(Message()))).code is grpc.StatusCode.INTERNAL


async def test_grpc_ways_to_fail(driver: Driver) -> None:
    """`context.abort` and `set_code` do what they do without the library."""

    async def abort(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no", (("left", "right"),))

    def abort_in_thread(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "no", (("left", "right"),))

    async def set_code(request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("no")
        context.set_trailing_metadata((("left", "right"),))

    # The `abort` of a server with threads takes no trailers.
    for handler in (abort, set_code, *((abort_in_thread,) if driver.aio else ())):
        async with driver.echo({"Unary": handler}) as stub:
            with pytest.raises(grpc.RpcError) as caught:
                await stub.Unary(Message())
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == "no"
        assert trailers_of(caught.value)["left"] == "right"


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
async def test_handler_that_cancels_itself(driver: Driver, method: str) -> None:
    """A handler that raises CancelledError gives the caller a status at once (grpc #29248).

    To a thread it is an error as any other, and so is all that is no `Exception`.
    """

    async def one(request: Any, context: Any) -> Any:
        raise asyncio.CancelledError

    async def many(request: Any, context: Any) -> AsyncIterator[Any]:
        yield Message()
        raise asyncio.CancelledError

    behaviour = one if method in ("Unary", "ClientStream") else many
    async with driver.echo({method: behaviour}) as stub:
        error = await failure(finish(start(stub, method, "", timeout=60), method))
    assert error.code.name == ("CANCELLED" if driver.aio else "INTERNAL")


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (accord.Unavailable("AWAY", 2.0), grpc.StatusCode.UNAVAILABLE),
        (accord.ResourceExhausted("QUOTA", 2.0), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (accord.NotFound(), grpc.StatusCode.INTERNAL),
        (accord.PermissionDenied(), grpc.StatusCode.INTERNAL),
        (accord.InvalidArgument(VIOLATION), grpc.StatusCode.INTERNAL),
    ],
)
async def test_nested_failure(
    driver: Driver, inner: accord.ServiceError, outer: grpc.StatusCode
) -> None:
    """What a nested call says is passed on only if it is the caller's business."""
    mesh = accord.Mesh("middle")
    async with driver.serving(accord.Mesh("leaf"), {"Unary": raising(inner)}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            return await driver.stub(mesh, leaf).Unary(Message())

        async with driver.echo({"Relay": relay}) as stub:
            error = await failure(stub.Relay(Message()))
        await driver.close(mesh)
    assert error.code is outer
    if outer is grpc.StatusCode.INTERNAL:
        assert "reference" in error.metadata
    else:
        assert error.metadata["dependency"] == "accordtest.v1.EchoService/Unary"
        assert "accordtest.v1.EchoService/Unary" in error.message
        assert (inner.reason, inner.retry_after) == (error.reason, error.retry_after)


async def test_nested_deadline(driver: Driver) -> None:
    """A dependency that is too slow is DEADLINE_EXCEEDED for the caller, and named."""
    mesh = accord.Mesh("middle")

    async def slow(request: Any, context: Any) -> Any:
        await asyncio.sleep(60)

    async with driver.serving(accord.Mesh("leaf"), {"Unary": slow}) as leaf:

        async def relay(request: Any, context: Any) -> Any:
            return await driver.stub(mesh, leaf).Unary(Message(), timeout=0.1)

        # Connecting is not what is timed here, and may fail by itself.
        await mesh.channel(leaf).channel_ready()
        async with driver.echo({"Relay": relay}) as stub:
            error = await failure(stub.Relay(Message()))
        await driver.close(mesh)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "EchoService/Unary" in error.message


async def test_translated_exception(driver: Driver) -> None:
    """A process may say what its own exceptions mean; the rest stays INTERNAL."""

    def translate(error: Exception) -> accord.ServiceError | None:
        return accord.Unavailable("DATABASE_AWAY") if isinstance(error, OSError) else None

    for raised, code in (
        (OSError(), grpc.StatusCode.UNAVAILABLE),
        (ValueError(), grpc.StatusCode.INTERNAL),
    ):
        async with driver.echo({"Unary": raising(raised)}, translate=translate) as stub:
            assert (await failure(stub.Unary(Message()))).code is code


async def test_large_details_are_cut(driver: Driver) -> None:
    """Thousands of violations still arrive as INVALID_ARGUMENT: trailers are bounded."""
    many = accord.InvalidArgument(*[("field" * 100, "wrong" * 100)] * 1000)
    async with driver.echo({"Unary": raising(many)}) as stub:
        error = await failure(stub.Unary(Message()))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("letter", ["a", "%", "\u00fc", "\u6f22", "\U0001f600"])
async def test_status_fits_into_trailers(driver: Driver, letter: str) -> None:
    """The largest status, which is percent-encoded, fits into the 8 KiB that peers allow."""
    text = letter * 2000
    largest = accord.ServiceError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA",
        text,
        metadata={"reference": "0" * 16},
        violations=(accord.FieldViolation(text, text),) * 20,
        retry_after=1e6,
    )
    strict = (("grpc.max_metadata_size", 8192), ("grpc.absolute_max_metadata_size", 8192))
    async with (
        driver.serving(accord.Mesh("callee"), {"Unary": raising(largest)}) as address,
        grpc.aio.insecure_channel(address, options=strict) as channel,
    ):
        error = await failure(Stub(channel).Unary(Message()))
    assert error.reason == "QUOTA"
    assert len(error.message.encode()) in range(MAX_MESSAGE - 3, MAX_MESSAGE + 1)
    assert set(error.message) == {letter}
    assert error.violations


@pytest.mark.parametrize("details", [b"", b"\xff\xff\xff", status_pb2.Status().SerializeToString()])
async def test_foreign_details(driver: Driver, details: bytes) -> None:
    """Garbled or empty details from a stranger do not hide the status."""

    async def abort(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no", ((errors.DETAILS_KEY, details),))

    async with driver.echo({"Unary": abort}) as stub:
        error = await failure(stub.Unary(Message()))
    assert (
        error.code,
        error.reason,
        error.message,
    ) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "no")


def test_failure_of() -> None:
    """Anything that is no failed call is none."""
    assert accord.failure_of(ValueError()) is None
    refusal = accord.NotFound(resource=accord.Resource("order", "o1"))
    assert accord.failure_of(refusal) is refusal


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("abort", "NOT_FOUND a?b"),
        ("set", "NOT_FOUND a?b"),
        ("long", f"NOT_FOUND {'x' * MAX_MESSAGE}"),
        # The code that was set counts although the handler fails then.
        ("trailers", "NOT_FOUND internal error"),
        ("trailers of an abort", "INTERNAL internal error"),
    ],
)
async def test_texts_that_gRPC_cannot_send(driver: Driver, how: str, expected: str) -> None:
    """What is no UTF-8, or too long, never leaves a call unanswered; a text is cut as ours is."""
    details = "x" * 100_000 if how == "long" else "a\ud800b"

    async def handler(request: Any, context: Any) -> Any:
        if how == "trailers of an abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no", (("k", details),))
        if how not in ("set", "trailers"):
            await context.abort(grpc.StatusCode.NOT_FOUND, details)
        context.set_code(grpc.StatusCode.NOT_FOUND)
        if how == "set":
            context.set_details(details)
        else:
            context.set_trailing_metadata((("k", details),))
        return Message()

    async with driver.bare({"Unary": handler}) as served:
        error = await failure(served.stub.Unary(Message(), timeout=10))
    assert f"{error.code.name} {error.message}".startswith(expected)
