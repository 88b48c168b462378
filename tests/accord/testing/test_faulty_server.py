"""The scripted server: what it does to a caller of each arity, aio and sync."""

import threading
from typing import Any

import grpc
import grpc.aio
import pytest

import accord
from accord.aio import EOF
from accord.contract.live_overrides import parse
from accord.testing import Clock, FaultyServer, drop, fail, hang, reply
from tests.accord.kit import SERVICE, Message, Stub, collect, eventually, failure, path

RETRIED = f"{SERVICE}/Retried"


@pytest.fixture
async def stub(accord_mesh: accord.Mesh, accord_faulty: FaultyServer) -> Stub:
    """A client of the mesh, of the scripted server."""
    return Stub(accord_mesh.channel(accord_faulty.address))


async def test_two_failures_then_an_answer(
    stub: Stub, accord_faulty: FaultyServer, accord_clock: Clock
) -> None:
    """The caller gets the answer of the third attempt; back-offs are half their bound, unwaited."""
    accord_faulty.script(RETRIED, "UNAVAILABLE", "UNAVAILABLE", Message(text="here"))
    answer = await stub.Retried(Message(text="where"), metadata=(("x-tenant", "7"),))
    assert answer.text == "here"
    attempts = accord_faulty.assert_attempts(3, RETRIED)
    assert [attempt.number for attempt in attempts] == [0, 1, 2]
    assert all(attempt.request.text == "where" for attempt in attempts)
    assert all(attempt.metadata["x-tenant"] == "7" for attempt in attempts)
    assert all(attempt.deadline and 1 < attempt.deadline <= 2 for attempt in attempts)
    assert accord_clock.waits == [0.001, 0.002]


async def test_the_last_step_goes_on(stub: Stub, accord_faulty: FaultyServer) -> None:
    """After the end of its script the server repeats the last step."""
    accord_faulty.script(RETRIED, "OK", "NOT_FOUND")
    await stub.Retried(Message())
    for _ in range(2):
        assert (await failure(stub.Retried(Message()))).code is grpc.StatusCode.NOT_FOUND
    assert len(accord_faulty.attempts) == 3


async def test_what_has_no_script_is_unimplemented(stub: Stub, accord_faulty: FaultyServer) -> None:
    """A method without a script says so, unless there is one for all."""
    error = await failure(stub.Unary(Message()))
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert f"no script for {SERVICE}/Unary" in error.message
    accord_faulty.script("*", "ABORTED")
    assert (await failure(stub.Unary(Message()))).code is grpc.StatusCode.ABORTED


async def test_pushback_and_reason_reach_the_caller(
    stub: Stub, accord_faulty: FaultyServer, accord_clock: Clock
) -> None:
    """A pushback is waited for on the test's clock; a negative one ends the call."""
    accord_faulty.script(
        RETRIED,
        fail("UNAVAILABLE", pushback=0.75),
        fail("UNAVAILABLE", reason="BUSY", retry_after=0.5),
        fail("UNAVAILABLE", pushback=-1),
    )
    error = await failure(stub.Retried(Message()))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert accord_clock.waits == [0.75, 0.5]
    accord_faulty.assert_attempts(3)


async def test_reason_of_an_error(stub: Stub, accord_faulty: FaultyServer) -> None:
    """A scripted reason is parsed as any server's."""
    accord_faulty.script(RETRIED, fail("FAILED_PRECONDITION", "no", reason="EMPTY"))
    error = await failure(stub.Retried(Message()))
    assert (error.reason, error.message) == ("EMPTY", "no")


async def test_an_attempt_that_hangs_is_cancelled(stub: Stub, accord_faulty: FaultyServer) -> None:
    """The caller's deadline ends it, and the server has seen that."""
    accord_faulty.script(RETRIED, hang())
    error = await failure(stub.Retried(Message(), timeout=0.1))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    (attempt,) = accord_faulty.attempts
    await eventually(lambda: attempt.cancelled)
    assert attempt.deadline is not None
    assert attempt.deadline <= 0.1


async def test_a_delayed_answer(stub: Stub, accord_faulty: FaultyServer) -> None:
    """A delay longer than the deadline is one; a shorter one is an answer."""
    accord_faulty.script(RETRIED, reply(Message(text="late"), delay=0.02))
    assert (await stub.Retried(Message())).text == "late"
    accord_faulty.script(RETRIED, reply(delay=5))
    error = await failure(stub.Retried(Message(), timeout=0.05))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_dropped_connection_is_made_again(
    stub: Stub, accord_mesh: accord.Mesh, accord_faulty: FaultyServer
) -> None:
    """The call is UNAVAILABLE below, and answered above: the attempt is made again."""
    # The contract's few milliseconds may all pass before gRPC has another connection.
    patient = '{"policy": {"retry": {"initial_backoff": "0.5s", "max_backoff": "2s"}}}'
    accord_mesh.control.overrides.set(path("Retried"), parse(RETRIED, patient))
    accord_faulty.script(RETRIED, drop(), Message(text="again"))
    assert (await stub.Retried(Message())).text == "again"
    accord_faulty.assert_attempts(2)
    accord_faulty.script(f"{SERVICE}/Unary", drop())
    assert (await failure(stub.Unary(Message()))).code is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_breaks_after_a_message(
    stub: Stub, accord_faulty: FaultyServer
) -> None:
    """A resumable stream goes on behind the last message before an error."""
    rest = reply(Message(sequence=2), Message(sequence=3))
    broken = fail("UNAVAILABLE", after=(Message(sequence=1),))
    accord_faulty.script(f"{SERVICE}/Watch", broken, rest)
    assert [message.sequence for message in await collect(stub.Watch(Message()))] == [1, 2, 3]
    assert [attempt.request.after for attempt in accord_faulty.attempts] == [0, 1]


async def test_a_stream_whose_connection_is_cut(stub: Stub, accord_faulty: FaultyServer) -> None:
    """A resumable stream goes on behind the message that its reader had when the line was cut."""
    rest = reply(Message(sequence=2), Message(sequence=3))
    accord_faulty.script(f"{SERVICE}/Watch", hang(after=(Message(sequence=1),)), rest)
    stream = stub.Watch(Message())
    assert (await stream.read()).sequence == 1
    accord_faulty.cut()
    assert [(await stream.read()).sequence for _ in range(2)] == [2, 3]
    assert await stream.read() is EOF
    assert [attempt.request.after for attempt in accord_faulty.attempts] == [0, 1]


async def test_streams_of_requests(stub: Stub, accord_faulty: FaultyServer) -> None:
    """All requests of a stream are seen, and a call of both arities is answered."""
    accord_faulty.script(f"{SERVICE}/ClientStream", Message(text="sum"))
    accord_faulty.script(f"{SERVICE}/Bidi", reply(Message(text="a"), Message(text="b")))

    def requests() -> list[object]:
        return [Message(text="1"), Message(text="2")]

    assert (await stub.ClientStream(iter(requests()))).text == "sum"
    assert [each.text for each in await collect(stub.Bidi(iter(requests())))] == ["a", "b"]
    for attempt in accord_faulty.attempts:
        assert [request.text for request in attempt.requests] == ["1", "2"]


async def test_an_unknown_method_passes_as_bytes(accord_faulty: FaultyServer) -> None:
    """A process without the contract's descriptor can be tested too."""
    accord_faulty.script("nobody.v1.Knows/This", "OK")
    async with grpc.aio.insecure_channel(accord_faulty.address) as channel:
        call: Any = channel.unary_unary("/nobody.v1.Knows/This", None, None)
        assert await call(b"\x0a\x01x") == b""
    assert accord_faulty.attempts[0].requests == [b"\x0a\x01x"]


def test_sync_callers_are_served_too(accord_faulty: FaultyServer) -> None:
    """A sync channel meets the same script, from several threads at once."""
    accord_faulty.script("*", Message(text="sync"))
    with grpc.insecure_channel(accord_faulty.address) as channel:
        call = channel.unary_unary(
            path("Unary"),
            request_serializer=Message.SerializeToString,
            response_deserializer=Message.FromString,
        )
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(call(Message(), timeout=5).text))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["sync"] * 8
    accord_faulty.assert_attempts(8)


def test_a_wrong_count_says_what_came(accord_faulty: FaultyServer) -> None:
    """The failure of the assertion lists the attempts."""
    with pytest.raises(AssertionError, match="0 attempts, not 1: none"):
        accord_faulty.assert_attempts(1)


@pytest.mark.parametrize("steps", [(), ("MAYBE",)])
def test_a_script_that_is_none(accord_faulty: FaultyServer, steps: tuple[str, ...]) -> None:
    """An empty script and an unknown code are refused where they are written."""
    with pytest.raises(ValueError, match=r"at least one step|not the name of a status code"):
        accord_faulty.script("*", *steps)
