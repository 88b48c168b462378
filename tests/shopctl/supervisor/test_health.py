"""What one process is asked; whether it serves is asked in `test_supervisor`."""

import os
from pathlib import Path

from shopctl.supervisor.health import proportional_bytes


def test_memory_of_a_process(tmp_path: Path) -> None:
    """PSS where the kernel tells it, otherwise RSS, None for nobody."""
    folder = tmp_path / "7"
    folder.mkdir()
    assert proportional_bytes(7, tmp_path) is None
    (folder / "status").write_text("Name:\tx\nVmRSS:\t  12 kB\n")
    assert proportional_bytes(7, tmp_path) == 12 * 1024
    (folder / "smaps_rollup").write_text("0-1 ---p\nRss: 12 kB\nPss:  10 kB\nPss_Anon: 1 kB\n")
    assert proportional_bytes(7, tmp_path) == 10 * 1024
    own = proportional_bytes(os.getpid())
    assert own is not None
    assert own > 2**20
