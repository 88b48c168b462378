"""Answers that no server gave, with both drivers: kept ones, and fallbacks."""

import asyncio
from typing import Any

import grpc
import pytest

import accord
from accord import context
from accord.contract import method_policy
from accord.policies.consistency import CONSISTENCY_KEY, Token
from tests.accord.client.kit import DOWN, Flaky, route
from tests.accord.drivers import Driver, every_call, every_way
from tests.accord.kit import SERVICE, Message, failure, path, patient


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
        context.set_trailing_metadata(accord.shows("it", position))
        return Message(after=position)

    async with driver.served({"Cached": handler}) as (stub, _):
        assert (await stub.Cached(Message())).after == 5
        position = 9
        seen_5 = await stub.Cached(Message(), metadata=((CONSISTENCY_KEY, "it=5"),))
        seen_6 = await stub.Cached(Message(), metadata=((CONSISTENCY_KEY, "it=6"),))
        assert (seen_5.after, seen_6.after) == (5, 9)


@every_way
async def test_a_caller_reads_what_it_has_written(driver: Driver) -> None:
    """After a write whose answer says its position, a server that is behind is told what was seen.

    What any call to the target has shown passes an older kept answer by, too.
    """
    told: list[Token | None] = []
    position = 5

    async def read(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        told.append(call.seen)
        context.set_trailing_metadata(accord.shows("it", position))
        return Message(after=position)

    async def write(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(accord.shows("it", 6))
        return Message()

    async with driver.served({"Cached": read, "Put": write}) as (stub, _):
        assert (await stub.Cached(Message())).after == 5
        await stub.Put(Message())
        # This one is behind, and what it has answered is not kept for those who know better.
        assert (await stub.Cached(Message())).after == 5
        position = 6
        assert (await stub.Cached(Message())).after == 6
        assert (await stub.Cached(Message())).after == 6
        position = 7
        assert (await stub.Cached(Message(text="of the same"))).after == 7
        assert (await stub.Cached(Message())).after == 7
    assert told == [None, Token("it", 6), Token("it", 6), None, Token("it", 7)]


@every_call
async def test_an_answer_that_may_not_be_kept(driver: Driver) -> None:
    """The server forbids it for one answer, or says it so that it cannot be read; not for others.

    What it says is no part of the answer: it cannot make it fail.
    """
    said: list[Any] = [accord.cache_for(20), (("accord-cache-ttl", "soon"),), accord.cache_for(0)]
    flaky = Flaky()

    async def handler(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(said.pop())
        return await flaky.unary(request, context)

    async with driver.served({"Cached": handler}) as (stub, _):
        answers = [(await stub.Cached(Message())).text for _ in range(4)]
    assert answers == ["answer 1", "answer 2", "answer 3", "answer 3"]


@every_call
@pytest.mark.parametrize("token", ["it=" + "9" * 5000, "=3", "it", "it=-1", "x" * 300 + "=1"])
async def test_garbled_tokens(driver: Driver, token: str) -> None:
    """What is no token says nothing, to server and caller alike, and the answer counts."""

    async def handler(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        assert call.seen is None
        context.set_trailing_metadata(((CONSISTENCY_KEY, token),))
        return Message(text="answer")

    async with driver.served({"Cached": handler}) as (stub, _):
        sent = ((CONSISTENCY_KEY, token),)
        assert (await stub.Cached(Message(), metadata=sent)).text == "answer"


def test_names_of_things_are_checked() -> None:
    """A name that could not travel, or would be read as another, is refused where it is written."""
    assert accord.shows("orders/7", 3) == ((CONSISTENCY_KEY, "orders/7=3"),)
    for of, position in (("", 1), ("x" * 201, 1), ("ä", 1), ("a\n", 1), ("a", -1), ("a", 10**19)):
        with pytest.raises(ValueError, match="no consistency token"):
            accord.shows(of, position)


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
        patient(mesh)
        for _ in range(3):
            await failure(stub.Fragile(Message()))
        mesh.fallback(f"{SERVICE}/Fragile", lambda request, error: request)
        assert (await stub.Fragile(Message(text="a"))).text == "a"
        assert flaky.calls == 3
