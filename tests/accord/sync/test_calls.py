"""What only clients with threads have: `with_call`, `future`, fallbacks that cannot be awaited.

How calls of all arities end is in `tests/accord/test_arities.py`.
"""

import asyncio
import threading
from typing import Any

import grpc
import pytest
from opentelemetry.trace import SpanKind

from tests.accord.client.kit import DOWN, Flaky
from tests.accord.drivers import Driver, ways
from tests.accord.kit import SERVICE, Message, Stub, failure
from tests.accord.test_arities import Work
from tests.support.telemetry import Spans

both = ways("sync", "sync interceptors")


def argument(method: str, text: str) -> Any:
    """What a method is called with."""
    return Message(text=text) if method == "Unary" else iter([Message(text=text)])


@both
@pytest.mark.parametrize("method", ["Unary", "ClientStream"])
async def test_with_call(driver: Driver, method: str) -> None:
    """`with_call` blocks, and answers with the call object as well."""
    async with driver.echo(Work().handlers()) as asked:
        stub = Stub(asked._channel)
        work = getattr(stub, method).with_call
        response, ended = await driver.in_thread(work, argument(method, "b"))
    assert (response.text, ended.code()) == ("b", grpc.StatusCode.OK)


@both
@pytest.mark.parametrize("method", ["Unary", "ClientStream"])
async def test_future_does_not_block(driver: Driver, method: str) -> None:
    """`future()` returns while its call is at work, and calls back when it has ended."""
    work, told = Work(), threading.Event()
    async with driver.echo(work.handlers()) as asked:
        stub = Stub(asked._channel)
        call = getattr(stub, method).future(argument(method, "hold"), timeout=0.5)
        assert not call.done()
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.01)
        call.add_done_callback(lambda ended: told.set() if ended is call else None)
        assert isinstance(await driver.in_thread(call.exception), grpc.RpcError)
        assert await driver.in_thread(told.wait, 3)
        assert call.done()


@ways("sync", "blocking")
async def test_coroutine_fallback_leaves_the_error(driver: Driver) -> None:
    """A fallback that has to be awaited is none for a sync call: its caller gets the error."""
    flaky = Flaky(*[DOWN] * 4)

    async def fallback(request: Any, error: grpc.RpcError) -> Any:
        return Message()

    async with driver.served({"Retried": flaky.unary}) as (stub, mesh):
        mesh.fallback(f"{SERVICE}/Retried", fallback)
        assert (await failure(stub.Retried(Message()))).reason == "DOWN"


@ways("sync")
async def test_future_ends_whatever_happens(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised in a thread of gRPC's or of the library's ends the call it was raised for."""

    class Broken(Spans):
        def on_end(self, span: Any) -> None:
            if span.kind is SpanKind.CLIENT:
                raise RuntimeError("the exporter is broken")

    def fallback(request: Any, error: grpc.RpcError) -> Any:
        raise SystemExit

    def exits() -> None:
        with pytest.raises(SystemExit):
            Stub(stub._channel).Unary.future(Message()).result(3)

    async with driver.served({"Unary": Flaky(DOWN).unary}) as (stub, mesh):
        mesh.fallback(f"{SERVICE}/Unary", fallback)
        await driver.in_thread(exits)
        Broken(monkeypatch)
        assert (await asyncio.wait_for(stub.Unary(Message()), 3)).text == "answer 2"
