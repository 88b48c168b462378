"""Idempotency records: one answer per call, in the transaction that has the effect."""

import asyncio
import contextvars
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from accord import context
from accord.context import CallContext, Idempotency
from accord.contract import MethodPolicy
from accord.errors import (
    FailedPrecondition,
    IdempotencyConflict,
    InvalidArgument,
    ServiceError,
    Unavailable,
)
from accord.interfaces import StoredAnswer
from accord.policies.idempotency import Scope
from accord_runtime.database import Database, Tx, open_database
from accord_runtime.grpc import idempotency
from accord_runtime.grpc.idempotency import KEPT, SqlIdempotencyStore, commit, find
from tests.runtime.work.support import result, results
from tests.support.clock import Clock

T = TypeVar("T")

SCOPE = Scope("spiffe://shop.internal/web", "/shop.Test/Do", "key")
CALL = Idempotency(SCOPE, b"fingerprint")


async def calling(work: Callable[[], Awaitable[T]], call: Idempotency | None = CALL) -> T:
    """Do something as the handler of a call with a key."""

    async def handle() -> T:
        context.enter(
            CallContext(
                service="test",
                policy=MethodPolicy(SCOPE.method),
                deadline=None,
                clock=lambda: 0.0,
                idempotency=call,
            )
        )
        return await work()

    return await asyncio.get_running_loop().create_task(
        handle(), context=contextvars.copy_context()
    )


def answering(text: str, effect: str = "effect") -> Callable[[Tx], StringValue]:
    """A transaction with an effect and an answer."""

    def write(tx: Tx) -> StringValue:
        result(effect)(tx)
        return StringValue(value=text)

    return write


def failing(error: ServiceError) -> Callable[[Tx], StringValue]:
    """A transaction that fails after its effect."""

    def write(tx: Tx) -> StringValue:
        result("effect")(tx)
        raise error

    return write


async def lookup(database: Database, scope: Scope = SCOPE) -> StoredAnswer | None:
    return await SqlIdempotencyStore(database).lookup(scope)


async def test_an_answer_is_kept_with_its_effect(record: Database) -> None:
    """The response is found under the call's scope, with its fingerprint, and under no other."""
    answer = await calling(lambda: commit(record, answering("yes")))
    assert answer.value == "yes"
    assert await results(record) == ["effect"]
    stored = await lookup(record)
    assert stored == StoredAnswer(b"fingerprint", response=answer.SerializeToString())
    for other in (
        Scope("somebody else", SCOPE.method, SCOPE.key),
        Scope(SCOPE.principal, "/shop.Test/Other", SCOPE.key),
        SCOPE.item(0),
    ):
        assert await lookup(record, other) is None


async def test_an_empty_answer_is_an_answer(record: Database) -> None:
    """A response without a byte is not taken for one that is still open."""
    await calling(lambda: commit(record, answering("")))
    assert await lookup(record) == StoredAnswer(b"fingerprint", response=b"")


async def test_a_call_without_a_key_leaves_no_record(record: Database) -> None:
    """Outside of a call, and in a call without a key, only the effect is written."""
    await commit(record, answering("yes"))
    await calling(lambda: commit(record, answering("yes")), None)
    row = await record.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM idempotency"))
    assert row is not None
    assert row["n"] == 0
    assert await results(record) == ["effect", "effect"]


async def test_a_refusal_is_kept_without_its_effect(record: Database) -> None:
    """A business refusal undoes the work, is recorded, and comes back as it was."""
    refusal = FailedPrecondition("SOLD_OUT", "nothing left")
    with pytest.raises(FailedPrecondition):
        await calling(lambda: commit(record, failing(refusal)))
    assert await results(record) == []
    stored = await lookup(record)
    assert stored is not None
    assert stored.status is not None
    assert not stored.pending
    again = ServiceError.from_status(refusal.to_status().FromString(stored.status))
    assert (again.code, again.reason, again.message) == (refusal.code, "SOLD_OUT", "nothing left")
    assert again.domain == "test"


@pytest.mark.parametrize(
    "error", [Unavailable("AWAY"), InvalidArgument(("a", "b"))], ids=["transient", "mistake"]
)
async def test_other_failures_are_not_kept(record: Database, error: ServiceError) -> None:
    """What may be different the next time leaves neither an effect nor a record."""
    with pytest.raises(type(error)):
        await calling(lambda: commit(record, failing(error)))
    assert await results(record) == []
    assert await lookup(record) is None


async def test_a_second_answer_is_refused(record: Database) -> None:
    """A call that another process has answered meanwhile conflicts, and its effect is undone."""
    await calling(lambda: commit(record, answering("first", "first")))
    with pytest.raises(IdempotencyConflict):
        await calling(lambda: commit(record, answering("second", "second")))
    with pytest.raises(IdempotencyConflict):
        await calling(lambda: commit(record, failing(FailedPrecondition("NO"))))
    assert await results(record) == ["first"]
    stored = await lookup(record)
    assert stored is not None
    assert stored.response == StringValue(value="first").SerializeToString()


async def test_calls_that_race_have_one_effect(
    record: Database, database_url: str, service: str
) -> None:
    """Of many at once, on PostgreSQL from two processes' connections, exactly one commits."""
    databases = [record]
    if database_url.startswith("postgresql"):
        databases.append(await open_database(database_url, service))
    pairs = zip(itertools.cycle(databases), map(str, range(12)), strict=False)
    outcomes = await asyncio.gather(
        *(calling(partial(commit, database, answering(text))) for database, text in pairs),
        return_exceptions=True,
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, StringValue)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, IdempotencyConflict)]
    assert (len(won), len(lost)) == (1, 11)
    assert await results(record) == ["effect"]
    stored = await lookup(record)
    assert stored is not None
    assert stored.response == won[0].SerializeToString()
    for database in databases[1:]:
        await database.close()


@pytest.mark.parametrize("refused", [False, True], ids=["response", "refusal"])
async def test_an_open_answer_is_settled_once(record: Database, refused: bool) -> None:
    """A record may be open first; the first answer that settles it stays, also after a restart."""

    def read() -> Awaitable[bytes | None]:
        return record.read(lambda tx: idempotency.settled(tx, "order"))

    async def begin() -> None:
        await record.write(lambda tx: idempotency.record(tx, None, reference="order"))

    await calling(begin)
    assert await lookup(record) == StoredAnswer(b"fingerprint", pending=True)
    assert await read() is None
    answer = FailedPrecondition("NO") if refused else StringValue(value="yes")
    for each in (answer, StringValue(value="too late")):
        await record.write(lambda tx, each=each: idempotency.settle(tx, "order", each))  # type: ignore[misc]
    stored = await lookup(record)
    assert stored is not None
    assert not stored.pending
    if refused:
        assert stored.status is not None
        with pytest.raises(ServiceError) as raised:
            await read()
        assert raised.value.reason == "NO"
    else:
        assert await read() == StringValue(value="yes").SerializeToString()


async def test_settling_what_was_never_recorded_does_nothing(record: Database) -> None:
    """A call without a key has nothing to settle, and that is no error."""
    await record.write(lambda tx: idempotency.settle(tx, "x", StringValue(value="yes")))
    assert await record.read(lambda tx: idempotency.settled(tx, "x")) is None


async def test_answers_are_kept_for_seven_days(record: Database, clock: Clock) -> None:
    """A record is found until it is seven days old, then the key is free again and it is swept."""

    def write(text: str) -> Callable[[Tx], None]:
        return lambda tx: idempotency.record(tx, StringValue(value=text), call=CALL, now=clock())

    async def found() -> StoredAnswer | None:
        return await record.read(lambda tx: find(tx, SCOPE, clock()))

    await record.write(write("old"))
    clock.advance(KEPT - 1)
    assert await found() is not None
    assert await record.write(lambda tx: idempotency.sweep(tx, clock())) == 0
    with pytest.raises(IdempotencyConflict):
        await record.write(write("early"))
    clock.advance(1)
    assert await found() is None
    await record.write(write("new"))
    stored = await found()
    assert stored is not None
    assert stored.response == StringValue(value="new").SerializeToString()
    clock.advance(KEPT)
    assert await record.write(lambda tx: idempotency.sweep(tx, clock())) == 1
