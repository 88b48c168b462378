"""How much waits, and when that is too much."""

import pytest

from accord.errors import ResourceExhausted
from accord_runtime.database import Database, Tx
from accord_runtime.work import backlog, table
from accord_runtime.work.backlog import BOUND, CLEAR, EVENTS, LOOK, Backlog, Waiting
from accord_runtime.work.executor import Executor, Queue
from tests.runtime.work.support import Held, at_work, put, row
from tests.support.wait import until


async def test_work_counts_by_queue_and_state(record: Database) -> None:
    """Waiting, leased and parked work is told apart, with the age of the oldest not parked."""
    held = Held()
    executor = Executor(record, "here")
    executor.register(Queue("test", held, concurrency=1))
    assert await record.read(backlog.count) == {}
    async with at_work(executor):
        await put(executor, record, "a")
        await until(lambda: held.started, "the first to begin")
        oldest = (await row(record))["created_at"]
        await put(executor, record, "b", "c", "d")

        def park(tx: Tx) -> None:
            tx.execute("UPDATE work SET state = 'parked' WHERE key = 'd'")
            table.enqueue(tx, "other", "e", now=1.0)

        await record.write(park)
        found = await record.read(backlog.count)
        held.go.set()
    test = found["test"]
    assert list(found) == ["other", "test"]
    assert (test.waiting, test.in_flight, test.parked) == (2, 1, 1)
    # The id, which tells it, is of the process's clock; the other time of the database's.
    assert test.age(oldest + 10) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("events", [True, False])
def test_it_is_full_from_the_bound_until_it_is_clear(events: bool) -> None:
    """Refusals begin at the bound, go on while it is not well below it, and end by themselves."""
    watched = Backlog(100)

    def note(share: float) -> bool:
        waiting = round(100 * share)
        work = {} if events else {"saga": Waiting(waiting=waiting, parked=10_000)}
        watched.note(work, waiting * EVENTS if events else 0, 1.0)
        return watched.full

    assert [note(share) for share in (0, 0.99, 1, 0.99, CLEAR, CLEAR - 0.01, 0.99, 1.5)] == [
        False, False, True, True, True, False, False, True,
    ]  # fmt: skip
    with pytest.raises(ResourceExhausted) as caught:
        watched.check()
    assert caught.value.reason == "BACKLOG_FULL"
    assert caught.value.retry_after is not None
    assert LOOK <= caught.value.retry_after <= 2 * LOOK
    assert note(0) is False
    watched.check()


def test_the_usual_bound() -> None:
    """Without a setting ten thousand items may wait."""
    watched = Backlog()
    watched.note({"saga": Waiting(waiting=BOUND - 1)}, 0, 1.0)
    assert not watched.full
    watched.note({"saga": Waiting(waiting=BOUND - 1, in_flight=1)}, 0, 1.0)
    assert watched.full
    assert BOUND == 10_000
