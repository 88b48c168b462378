"""Idempotency, with both drivers: a repeat gets the first answer, whatever happens around it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

import accord
from tests.accord.drivers import Driver
from tests.accord.kit import Message, Stub, collect, eventually, failure, path


class Store:
    """Records in memory, shared by "processes"; `write` is what a handler's transaction does."""

    def __init__(self) -> None:
        self.records: dict[accord.Scope, accord.StoredAnswer] = {}
        self.lookups = 0

    async def lookup(self, scope: accord.Scope) -> accord.StoredAnswer | None:
        self.lookups += 1
        await asyncio.sleep(0)
        return self.records.get(scope)

    def begin(self, call: accord.Idempotency) -> None:
        self.records[call.scope] = accord.StoredAnswer(call.fingerprint, pending=True)

    def write(self, answer: Any) -> None:
        """Record an answer of the call being handled; losing the race is a conflict."""
        current = accord.current()
        assert current is not None
        if current.idempotency is None:
            return
        call = current.idempotency
        known = self.records.get(call.scope)
        if known is not None and not known.pending:
            raise accord.IdempotencyConflict
        if isinstance(answer, accord.ServiceError):
            status = answer.to_status().SerializeToString()
            self.records[call.scope] = accord.StoredAnswer(call.fingerprint, status=status)
        else:
            response = answer.SerializeToString()
            self.records[call.scope] = accord.StoredAnswer(call.fingerprint, response=response)


class Bank:
    """Handlers with an effect that can be counted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.effects = 0
        self.runs = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = 0
        self.arrived: list[str] = []

    def arrive(self, request: Any) -> list[accord.FieldViolation]:
        """Note a request: validation comes before idempotency."""
        self.arrived.append(request.text)
        return []

    async def queued(self, calls: int, runs: int) -> None:
        """Wait until so many calls have arrived and so many handlers run."""
        await eventually(lambda: len(self.arrived) == calls and self.runs == runs)

    async def charge(self, request: Any, context: Any) -> Any:
        self.runs += 1
        await self.gate.wait()
        if self.failing:
            self.failing -= 1
            raise accord.Unavailable("AWAY")
        if request.text == "poor":
            refusal = accord.FailedPrecondition("DECLINED", f"declined {self.runs}")
            self.store.write(refusal)
            raise refusal
        answer = Message(text=f"charge {self.effects + 1}")
        self.store.write(answer)
        self.effects += 1
        return answer


class Plain:
    """A store that threads ask."""

    def __init__(self, driver: Driver, store: Store) -> None:
        self.lookup = driver.function(store.lookup)


@asynccontextmanager
async def bank(driver: Driver, store: Store | None = None) -> AsyncIterator[tuple[Stub, Bank]]:
    """A server with a bank, and a client."""
    store = store or Store()
    handlers = Bank(store)
    behaviours = {"Charge": handlers.charge, "Put": handlers.charge}
    callee = accord.Mesh(
        "callee",
        idempotency=store if driver.aio else Plain(driver, store),
        validator=handlers.arrive,
    )
    async with driver.served(behaviours, callee) as (stub, _):
        yield stub, handlers


KEY = accord.idempotency_key("k1")


async def test_repeat_gets_the_stored_answer(driver: Driver) -> None:
    """The same key and request twice: one effect, one answer."""
    async with bank(driver) as (stub, handlers):
        first = await stub.Charge(Message(text="a"), metadata=KEY)
        second = await stub.Charge(Message(text="a"), metadata=KEY)
    assert first == second
    assert (handlers.effects, handlers.runs) == (1, 1)


async def test_equal_requests_are_the_same_request(driver: Driver) -> None:
    """The order of a map's entries does not make another request."""
    async with bank(driver) as (stub, handlers):
        for order in (range(20), reversed(range(20))):
            message = Message(tags={str(n): "v" for n in order})
            await stub.Charge(message, metadata=KEY)
    assert handlers.effects == 1


async def test_key_reused_for_another_request(driver: Driver) -> None:
    """The same key for a different request is INVALID_ARGUMENT, without an effect."""
    async with bank(driver) as (stub, handlers):
        await stub.Charge(Message(text="a"), metadata=KEY)
        error = await failure(stub.Charge(Message(text="b"), metadata=KEY))
    assert (
        error.code,
        error.reason,
    ) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert handlers.effects == 1


async def test_keys_belong_to_a_method(driver: Driver) -> None:
    """The same key for another method is another call."""
    async with bank(driver) as (stub, handlers):
        await stub.Charge(Message(), metadata=KEY)
        await stub.Put(Message(), metadata=KEY)
    assert handlers.effects == 2


async def test_refusal_is_an_answer(driver: Driver) -> None:
    """A business refusal is repeated with identical code, message and details."""
    async with bank(driver) as (stub, handlers):
        errors = [await failure(stub.Charge(Message(text="poor"), metadata=KEY)) for _ in range(3)]
    assert {"declined 1"} == {error.message for error in errors}
    assert {("DECLINED", "callee")} == {(error.reason, error.domain) for error in errors}
    assert len({error.to_status().SerializeToString() for error in errors}) == 1
    assert handlers.runs == 1


async def test_transient_failure_is_no_answer(driver: Driver) -> None:
    """A call that failed for the moment is made again by its repeat."""
    async with bank(driver) as (stub, handlers):
        handlers.failing = 1
        assert (await failure(stub.Charge(Message(), metadata=KEY))).reason == "AWAY"
        assert (await stub.Charge(Message(), metadata=KEY)).text == "charge 1"
    assert (handlers.effects, handlers.runs) == (1, 2)


async def test_concurrent_duplicates_wait(driver: Driver) -> None:
    """Twenty at once: one runs, the others get its answer."""
    async with bank(driver) as (stub, handlers):
        handlers.gate.clear()
        calls = [
            asyncio.ensure_future(_answer(stub.Charge(Message(), metadata=KEY))) for _ in range(20)
        ]
        await handlers.queued(20, 1)
        handlers.gate.set()
        answers = await asyncio.gather(*calls)
    assert {"charge 1"} == set(answers)
    assert (handlers.effects, handlers.runs) == (1, 1)


async def _answer(call: Any) -> str:
    return str((await call).text)


async def test_waiting_duplicate_of_another_request(driver: Driver) -> None:
    """A different request does not wait for the first: its key is taken."""
    async with bank(driver) as (stub, handlers):
        handlers.gate.clear()
        first = asyncio.ensure_future(_answer(stub.Charge(Message(text="a"), metadata=KEY)))
        await handlers.queued(1, 1)
        error = await failure(stub.Charge(Message(text="b"), metadata=KEY))
        assert error.reason == "IDEMPOTENCY_KEY_REUSED"
        handlers.gate.set()
        assert await first == "charge 1"


async def test_next_in_line_after_a_failure(driver: Driver) -> None:
    """When the first fails for the moment, one of those who wait has the effect."""
    async with bank(driver) as (stub, handlers):
        handlers.gate.clear()
        handlers.failing = 1
        calls = [
            asyncio.ensure_future(_answer(stub.Charge(Message(), metadata=KEY))) for _ in range(10)
        ]
        await handlers.queued(10, 1)
        handlers.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, BaseException) for result in results) == 1
    assert (handlers.effects, handlers.runs) == (1, 2)


async def test_first_is_cancelled(driver: Driver) -> None:
    """When the first caller goes away, its repeat is served."""
    async with bank(driver) as (stub, handlers):
        handlers.gate.clear()
        first = stub.Charge(Message(), metadata=KEY)
        waiting = asyncio.ensure_future(_answer(first))
        await handlers.queued(1, 1)
        second = asyncio.ensure_future(_answer(stub.Charge(Message(), metadata=KEY)))
        await handlers.queued(2, 1)
        first.cancel()
        handlers.gate.set()
        assert await second == "charge 1"
        await asyncio.gather(waiting, return_exceptions=True)
    assert handlers.effects == 1


async def test_waiting_ends_with_the_own_deadline(driver: Driver) -> None:
    """A duplicate that cannot wait any longer is ABORTED and told when to come back."""
    async with bank(driver) as (stub, handlers):
        handlers.gate.clear()
        first = asyncio.ensure_future(_answer(stub.Charge(Message(), metadata=KEY)))
        await handlers.queued(1, 1)
        error = await failure(stub.Charge(Message(), metadata=KEY, timeout=0.3))
        assert error.code is grpc.StatusCode.ABORTED
        assert error.retry_after is not None
        handlers.gate.set()
        assert await first == "charge 1"


async def test_pending_in_another_process(driver: Driver) -> None:
    """A record that another process has not settled yet is waited for."""
    store = Store()
    async with bank(driver, store) as (stub, handlers):
        scope = accord.Scope("anonymous", path("Charge"), "k1")
        mark = accord.fingerprint(path("Charge"), Message(text="a"))
        store.begin(accord.Idempotency(scope, mark))
        waiting = asyncio.ensure_future(
            _answer(stub.Charge(Message(text="a"), metadata=KEY, timeout=5))
        )
        await eventually(lambda: store.lookups >= 3)
        response = Message(text="theirs").SerializeToString()
        store.records[scope] = accord.StoredAnswer(mark, response=response)
        assert await waiting == "theirs"

        store.begin(accord.Idempotency(scope, mark))
        late = await failure(stub.Charge(Message(text="a"), metadata=KEY, timeout=0.3))
        assert (late.code, late.retry_after is not None) == (grpc.StatusCode.ABORTED, True)
    assert handlers.runs == 0


async def test_lost_race_between_processes(driver: Driver) -> None:
    """Two processes handle the same key at once: the one that lost answers with the winner's."""
    store = Store()
    async with bank(driver, store) as (one, first), bank(driver, store) as (two, second):
        first.gate.clear()
        second.gate.clear()
        calls = [
            asyncio.ensure_future(_answer(stub.Charge(Message(), metadata=KEY)))
            for stub in (one, two)
        ]
        await eventually(lambda: (first.runs, second.runs) == (1, 1))
        first.gate.set()
        second.gate.set()
        answers = await asyncio.gather(*calls)
    assert answers[0] == answers[1]
    assert first.effects + second.effects == 1


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "IDEMPOTENCY_KEY_REQUIRED"),
        (accord.idempotency_key(""), "IDEMPOTENCY_KEY_INVALID"),
        (accord.idempotency_key("x" * 256), "IDEMPOTENCY_KEY_INVALID"),
        (accord.idempotency_key("a b"), "IDEMPOTENCY_KEY_INVALID"),
    ],
)
async def test_bad_keys(driver: Driver, metadata: tuple[tuple[str, str], ...], reason: str) -> None:
    """A missing or malformed key is INVALID_ARGUMENT and names the metadata."""
    async with bank(driver) as (stub, handlers):
        error = await failure(stub.Charge(Message(), metadata=metadata))
    assert (grpc.StatusCode.INVALID_ARGUMENT, reason) == (error.code, error.reason)
    assert error.violations[0].field == "metadata.idempotency-key"
    assert handlers.runs == 0


async def test_natural_method_without_a_key(driver: Driver) -> None:
    """Where the request says it all, a key is not needed, and nothing is looked up."""
    async with bank(driver) as (stub, handlers):
        await stub.Put(Message())
        await stub.Put(Message())
    assert (handlers.effects, handlers.store.lookups) == (2, 0)


async def test_key_is_not_inherited(driver: Driver) -> None:
    """A nested call does not take the key of the call being handled."""
    mesh = accord.Mesh("relay")

    async def leaf(request: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        return Message(text=str(call.idempotency))

    async with driver.serving(mesh, {"Put": leaf}) as address:

        async def relay(request: Any, context: Any) -> Any:
            return await driver.stub(mesh, address).Put(Message())

        async with driver.echo({"Charge": relay}, idempotency="handler") as stub:
            assert (await stub.Charge(Message(), metadata=KEY)).text == "None"
        await driver.close(mesh)


async def test_client_stream_has_item_scopes(driver: Driver) -> None:
    """A client stream needs a key; its handler derives a scope per item."""
    seen: list[accord.Scope] = []

    async def upload(requests: Any, context: Any) -> Any:
        call = accord.current()
        assert call is not None
        assert call.idempotency is not None
        index = 0
        async for _ in requests:
            seen.append(call.idempotency.scope.item(index))
            index += 1
        return Message()

    async with driver.echo({"Import": upload}) as stub:
        await stub.Import(iter([Message(), Message()]), metadata=KEY)
        error = await failure(stub.Import(iter([Message()])))
    assert [scope.key for scope in seen] == ["k1 0", "k1 1"]
    assert error.reason == "IDEMPOTENCY_KEY_REQUIRED"


async def test_streams_without_keys(driver: Driver) -> None:
    """A method that promises nothing ignores a key."""

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        call = accord.current()
        assert call is not None
        yield Message(text=str(call.idempotency))

    async with driver.echo({"ServerStream": stream}) as stub:
        (message,) = await collect(stub.ServerStream(Message(), metadata=KEY))
    assert message.text == "None"


async def test_more_than_one_request_has_no_effect(driver: Driver) -> None:
    """Where a key is required, a unary call with two requests is not acted on by the first."""
    handlers, callee = Bank(Store()), accord.Mesh("callee", idempotency="handler")
    async with (
        driver.serving(callee, {"Charge": handlers.charge}) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call: Any = channel.stream_unary(
            path("Charge"),
            request_serializer=Message.SerializeToString,
            response_deserializer=Message.FromString,
        )
        requests = [Message(text="a"), Message(text="b")]
        error = await failure(call(iter(requests), metadata=KEY))
        assert (error.code, handlers.runs) == (grpc.StatusCode.INVALID_ARGUMENT, 0)
        assert (await call(iter(requests[:1]), metadata=KEY)).text == "charge 1"
