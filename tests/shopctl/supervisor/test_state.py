"""The lock of a state folder, and the record in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shopctl.supervisor import state
from tests.support.wait import until_sync


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second one learns the pid of the first; afterwards the lock is free again."""
    with state.locked(tmp_path):
        assert state.lock_holder(tmp_path) == os.getpid()
        with pytest.raises(state.LockHeldError) as caught, state.locked(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert state.lock_holder(tmp_path) is None
    with state.locked(tmp_path):
        pass


def test_goes_with_its_process(tmp_path: Path) -> None:
    """A holder that is killed holds nothing any more, though its pid is still in the file."""
    code = (
        "import sys, time; from pathlib import Path; from shopctl.supervisor import state\n"
        "with state.locked(Path(sys.argv[1])): time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        until_sync(lambda: state.lock_holder(tmp_path) == process.pid, "the lock to be taken")
        process.kill()
    assert state.lock_holder(tmp_path) is None
    assert (tmp_path / state.LOCK_FILE).read_text() == f"{process.pid}\n"


def test_deleting_the_file_hands_nothing_over(tmp_path: Path) -> None:
    """A lock on a file that was deleted meanwhile counts for nothing: the new file is locked."""
    with state.locked(tmp_path):
        (tmp_path / state.LOCK_FILE).unlink()
        with state.locked(tmp_path):
            assert state.lock_holder(tmp_path) == os.getpid()


def test_run_record_round_trip(tmp_path: Path) -> None:
    """What was written is read; no file and a broken file are both nothing."""
    process = state.ProcessRecord("orders", "127.0.0.1:1", 7, "serving", 2, 1.5)
    run = state.Run(1, 100, 2.5, (process,))
    assert state.read_run(tmp_path) is None
    state.write_run(tmp_path, run)
    assert state.read_run(tmp_path) == run
    (tmp_path / state.RUN_FILE).write_text('{"pid": 1, "processes": [{}]}')
    assert state.read_run(tmp_path) is None
    state.remove_run(tmp_path)
    state.remove_run(tmp_path)
