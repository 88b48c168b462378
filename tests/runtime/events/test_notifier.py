"""Waking the streams of a process."""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from accord_runtime.database import Conflict, Database, Lock
from accord_runtime.events import notifier
from accord_runtime.events.notifier import RECORD, Notifier, Watch
from accord_runtime.events.outbox import number, of_key
from tests.runtime.events.support import OrdersProcess, background, note, watched
from tests.support.wait import until

KEYS = st.sampled_from("abc")


async def changed(watch: Watch) -> set[str]:
    """What a watch is woken for, which must be at once."""
    async with asyncio.timeout(5):
        return await watch.wait()


async def test_a_watch_is_woken_for_its_keys() -> None:
    """Changes of watched keys are told once each, together; those of other keys are not."""
    board = Notifier()
    with board.watching("a", "b") as watch:
        for key in "abxa":
            board.changed(key)
        assert await changed(watch) == {"a", "b"}
        waiting = asyncio.create_task(watch.wait())
        board.changed("x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        board.changed("b")
        assert await waiting == {"b"}
    assert watched(board) == 0


async def test_keys_may_come_and_go_while_watching() -> None:
    """A key that was added wakes, one that was removed does not, and others go on."""
    board = Notifier()
    with board.watching("a") as watch, board.watching("a", "b") as other:
        board.remove(watch, "a")
        board.remove(watch, "a")
        board.add(watch, "b")
        board.changed("a")
        board.changed("b")
        assert await changed(watch) == {"b"}
        assert await changed(other) == {"a", "b"}
    assert watched(board) == 0


async def test_a_commit_wakes_and_a_rollback_does_not(record: Database) -> None:
    """An event wakes the watch of its key after the commit, when it can be read."""
    publisher = OrdersProcess(record, "nats://127.0.0.1:1")
    with publisher.notifier.watching("k") as watch:
        await publisher.append(note("k"))
        assert await changed(watch) == {"k"}
        assert len(await record.read(lambda tx: of_key(tx, "k"))) == 1
        publisher._sequences.clear()
        with pytest.raises(Conflict):
            await publisher.append(note("k"))
        waiting = asyncio.create_task(watch.wait())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        waiting.cancel()


async def test_what_other_processes_write_is_found(
    record: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word from any process, new positions wake watches of keys and of the record."""
    monkeypatch.setattr(notifier, "POLL", 0.5)
    hub_of_this = Notifier()
    other = OrdersProcess(record, "nats://127.0.0.1:1")
    with hub_of_this.watching("k", "l") as watch, hub_of_this.watching(RECORD) as everything:
        async with background(hub_of_this.serve(record)):
            await asyncio.sleep(0.05)
            await other.append(note("k"))
            await record.write(number)
            begun = asyncio.get_running_loop().time()
            assert await changed(watch) == {"k"}
            assert await changed(everything) == {""}
            assert asyncio.get_running_loop().time() - begun < 5.0  # half of what it is by default


async def test_the_relay_tells_that_the_record_has_grown(record: Database) -> None:
    """A watch of the whole record is woken when its process has given positions."""
    publisher = OrdersProcess(record, "nats://127.0.0.1:1")
    with publisher.notifier.watching(RECORD) as everything:
        async with background(publisher.publisher._number(Lock())):
            await publisher.append(note("k"))
            await changed(everything)

            async def numbered() -> bool:
                return await publisher.head() == 1

            await until(numbered, "the position", seconds=5)


class HubMachine(RuleBasedStateMachine):
    """Watches against a model of who watches what, and what each was not told yet."""

    watches: Bundle[Watch] = Bundle("watches")

    def __init__(self) -> None:
        super().__init__()
        self.notifier = Notifier()
        self.keys: dict[Watch, set[str]] = {}
        self.untold: dict[Watch, set[str]] = {}
        self.runner = asyncio.Runner()

    @rule(target=watches)
    def make(self) -> Watch:
        watch = Watch()
        self.keys[watch], self.untold[watch] = set(), set()
        return watch

    @rule(watch=watches, key=KEYS)
    def add(self, watch: Watch, key: str) -> None:
        self.notifier.add(watch, key)
        self.keys[watch].add(key)

    @rule(watch=watches, key=KEYS)
    def remove(self, watch: Watch, key: str) -> None:
        self.notifier.remove(watch, key)
        self.keys[watch].discard(key)

    @rule(key=KEYS)
    def change(self, key: str) -> None:
        self.notifier.changed(key)
        for watch, keys in self.keys.items():
            if key in keys:
                self.untold[watch].add(key)

    @rule(watch=watches)
    def look(self, watch: Watch) -> None:
        if self.untold[watch]:
            assert self.runner.run(changed(watch)) == self.untold[watch]
            self.untold[watch].clear()

    @invariant()
    def nothing_is_left_behind(self) -> None:
        assert watched(self.notifier) == len(set().union(*self.keys.values()))

    def teardown(self) -> None:
        self.runner.close()


TestHub = HubMachine.TestCase
