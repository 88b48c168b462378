"""The lock of a state folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shopctl import lock, memory, runfile
from tests.shopctl.support.wait import until_sync


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second one learns the pid of the first; afterwards the lock is free again."""
    with lock.held(tmp_path):
        assert lock.holder(tmp_path) == os.getpid()
        with pytest.raises(lock.LockHeldError) as caught, lock.held(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert lock.holder(tmp_path) is None
    with lock.held(tmp_path):
        pass


def test_goes_with_its_process(tmp_path: Path) -> None:
    """A holder that is killed holds nothing any more, though its pid is still in the file."""
    code = (
        "import sys, time; from pathlib import Path; from shopctl import lock\n"
        "with lock.held(Path(sys.argv[1])): time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        until_sync(lambda: lock.holder(tmp_path) == process.pid, "the lock to be taken")
        process.kill()
    assert lock.holder(tmp_path) is None
    assert (tmp_path / lock.FILE).read_text() == f"{process.pid}\n"


def test_deleting_the_file_hands_nothing_over(tmp_path: Path) -> None:
    """A lock on a file that was deleted meanwhile counts for nothing: the new file is locked."""
    with lock.held(tmp_path):
        (tmp_path / lock.FILE).unlink()
        with lock.held(tmp_path):
            assert lock.holder(tmp_path) == os.getpid()


def test_run_record_round_trip(tmp_path: Path) -> None:
    """What was written is read; no file and a broken file are both nothing."""
    process = runfile.ProcessRecord("orders", "127.0.0.1:1", 7, "serving", 2, 1.5)
    run = runfile.Run(1, 100, 2.5, (process,))
    assert runfile.read(tmp_path) is None
    runfile.write(tmp_path, run)
    assert runfile.read(tmp_path) == run
    (tmp_path / runfile.FILE).write_text('{"pid": 1, "processes": [{}]}')
    assert runfile.read(tmp_path) is None
    runfile.remove(tmp_path)
    runfile.remove(tmp_path)


def test_memory_of_a_process(tmp_path: Path) -> None:
    """PSS where the kernel tells it, otherwise RSS, None for nobody."""
    folder = tmp_path / "7"
    folder.mkdir()
    assert memory.proportional_bytes(7, tmp_path) is None
    (folder / "status").write_text("Name:\tx\nVmRSS:\t  12 kB\n")
    assert memory.proportional_bytes(7, tmp_path) == 12 * 1024
    (folder / "smaps_rollup").write_text("0-1 ---p\nRss: 12 kB\nPss:  10 kB\nPss_Anon: 1 kB\n")
    assert memory.proportional_bytes(7, tmp_path) == 10 * 1024
    own = memory.proportional_bytes(os.getpid())
    assert own is not None
    assert own > 2**20
