"""Answers that no server gave, with both drivers: kept ones, and fallbacks."""

import asyncio
from typing import Any

import grpc

import accord
from accord import context
from accord.client.request import AT_LEAST_KEY, POSITION_KEY
from accord.contract import method_policy
from tests.accord.client.kit import DOWN, Flaky, route
from tests.accord.drivers import Driver, every_call, every_way
from tests.accord.kit import SERVICE, Message, failure, path


@every_way
async def test_answers_are_kept(driver: Driver) -> None:
    """A declared answer is served again, as a copy, until a write through the same mesh."""
    flaky = Flaky()
    async with driver.served({"Cached": flaky.unary, "Put": flaky.unary}) as (stub, mesh):
        first = await stub.Cached(Message(text="a"))
        first.text = "changed by its caller"
        again = stub.Cached(Message(text="a"))
        assert (await again).text == "answer 1"
        if driver.way != "blocking":
            assert await again.code() is grpc.StatusCode.OK
        assert (await stub.Cached(Message(text="b"))).text == "answer 2"
        await stub.Put(Message())
        assert (await stub.Cached(Message(text="a"))).text == "answer 4"
        found = route(mesh, "Cached")
        assert (found.cache_hits, found.cache_misses) == (1, 3)
        (target,) = mesh.snapshot().targets
        assert target.budget.calls == flaky.calls == 4  # what was not sent earns no retries


@every_call
async def test_consistency_token_passes_old_answers_by(driver: Driver) -> None:
    """A caller that has seen a later position is not served an answer from before it."""
    position = 5

    async def handler(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((POSITION_KEY, str(position)),))
        return Message(after=position)

    async with driver.served({"Cached": handler}) as (stub, _):
        assert (await stub.Cached(Message())).after == 5
        position = 9
        seen_5 = await stub.Cached(Message(), metadata=((AT_LEAST_KEY, "5"),))
        seen_6 = await stub.Cached(Message(), metadata=((AT_LEAST_KEY, "6"),))
        assert (seen_5.after, seen_6.after) == (5, 9)


@every_call
async def test_garbled_position(driver: Driver) -> None:
    """A position with more digits than a number has is none, and the answer counts."""

    async def handler(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((POSITION_KEY, "9" * 5000),))
        return Message(text="answer")

    async with driver.served({"Cached": handler}) as (stub, _):
        assert (await stub.Cached(Message())).text == "answer"


@every_call
async def test_principals_do_not_share_answers(driver: Driver) -> None:
    """What is kept for one principal is not served to another."""
    flaky = Flaky()
    async with driver.served({"Cached": flaky.unary}) as (stub, _):
        answers = []
        for principal in ("alice", "bob", "alice"):

            async def call(principal: str = principal) -> str:
                context.enter(
                    accord.CallContext(
                        "caller", method_policy(path("Unary")), None, lambda: 0.0, principal
                    )
                )
                return str((await stub.Cached(Message())).text)

            answers.append(await asyncio.create_task(call()))
    assert answers == ["answer 1", "answer 2", "answer 1"]


@every_way
async def test_fallbacks(driver: Driver) -> None:
    """A fallback answers after the attempts, for lost targets only, or leaves the error.

    It may call somebody else.
    """
    flaky = Flaky(*[DOWN] * 4, accord.NotFound(), *[DOWN] * 8)
    seen: list[tuple[str, str]] = []

    async def other(request: Any, context: Any) -> Any:
        return Message(text="other")

    async def fallback(request: Any, error: grpc.RpcError) -> Any:
        seen.append((request.text, error.code().name))
        if request.text == "fail":
            raise RuntimeError
        return None if request.text == "none" else await stub.Unary(request)

    async with driver.served({"Retried": flaky.unary, "Unary": other}) as (stub, mesh):
        mesh.fallback(f"{SERVICE}/Retried", driver.function(fallback))
        call = stub.Retried(Message(text="a"))
        assert (await call).text == "other"
        assert flaky.calls == 4
        assert (await failure(stub.Retried(Message(text="b")))).reason == "NOT_FOUND"
        assert (await failure(stub.Retried(Message(text="none")))).reason == "DOWN"
        assert (await failure(stub.Retried(Message(text="fail")))).code.name == "UNAVAILABLE"
        assert seen == [("a", "UNAVAILABLE"), ("none", "UNAVAILABLE"), ("fail", "UNAVAILABLE")]
        assert route(mesh, "Retried").fallbacks == 1


@every_call
async def test_fallback_answers_for_an_open_breaker(driver: Driver) -> None:
    """A synchronous fallback stands in while the circuit is open."""
    flaky = Flaky(*[DOWN] * 3)
    async with driver.served({"Fragile": flaky.unary}) as (stub, mesh):
        for _ in range(3):
            await failure(stub.Fragile(Message()))
        mesh.fallback(f"{SERVICE}/Fragile", lambda request, error: request)
        assert (await stub.Fragile(Message(text="a"))).text == "a"
        assert flaky.calls == 3
