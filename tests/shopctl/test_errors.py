"""What the user is told about a call that failed, over a real connection."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest

from accord.errors import (
    DETAILS_KEY,
    FailedPrecondition,
    InvalidArgument,
    ServiceError,
    Unavailable,
)
from shopctl.errors import ExitCode, explain

Channel = grpc.aio.Channel


class Answer(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # only generic in the stubs
    """Answers every call with the same error."""

    def __init__(self) -> None:
        self.error = ServiceError(grpc.StatusCode.INTERNAL, "REASON")

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(self._handle)

    async def _handle(self, _: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        status = self.error.to_status("orders").SerializeToString()
        await context.abort(self.error.code, self.error.message, ((DETAILS_KEY, status),))


@pytest.fixture
async def answer() -> AsyncIterator[tuple[Answer, Channel]]:
    answer = Answer()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((answer,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield answer, channel
    await server.stop(None)


@pytest.mark.parametrize(
    ("error", "key", "code", "text"),
    [
        (
            FailedPrecondition("TOO_LATE", "it has been shipped"),
            "k",
            ExitCode.REFUSED,
            "orders refused: TOO_LATE: it has been shipped",
        ),
        (
            InvalidArgument(("email", "must be an address"), ("name", "is empty")),
            "",
            ExitCode.REFUSED,
            "orders refused: INVALID_ARGUMENT: email: must be an address; name: is empty",
        ),
        (
            InvalidArgument("OVERRIDE_REFUSED", ("override", "a timeout of 1 s is below 2 s")),
            "",
            ExitCode.REFUSED,
            "orders refuses the override: a timeout of 1 s is below 2 s (OVERRIDE_REFUSED)",
        ),
        (Unavailable("BUSY"), "k7", ExitCode.UNKNOWN_OUTCOME, "repeat the command with --key k7"),
        (Unavailable("UNAVAILABLE"), "", ExitCode.NOT_RUNNING, "no answer from orders at here:1"),
        (Unavailable("BUSY"), "", ExitCode.FAILED, "orders failed: BUSY"),
        (
            ServiceError(grpc.StatusCode.ABORTED, "RACE", "lost a race", retry_after=0.5),
            "k",
            ExitCode.FAILED,
            "orders failed: RACE: lost a race; try again in 0.5 s",
        ),
    ],
)
async def test_explain(
    answer: tuple[Answer, Channel], error: ServiceError, key: str, code: ExitCode, text: str
) -> None:
    """Reason, words, violations and what to do next arrive with the exit code that fits."""
    server, channel = answer
    server.error = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/any/Method", bytes, bytes)(b"")
    explained = explain(caught.value, "orders", "here:1", key)
    assert explained.code is code
    assert text in str(explained)
