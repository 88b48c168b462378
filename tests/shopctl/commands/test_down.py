"""`shopctl down`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shopctl.commands.down import down
from shopctl.errors import CommandError
from shopctl.supervisor.state import LOCK_FILE, locked


def test_nobody_is_ended_on_another_users_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that another user has made may name any process, such as one of ours."""
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim,
        locked(tmp_path),
    ):
        (tmp_path / LOCK_FILE).write_text(f"{victim.pid}\n")
        monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)  # as if another
        with pytest.raises(CommandError, match="is another user's"):
            down(tmp_path, timeout=0)
        assert victim.poll() is None
        victim.communicate(b"\n", timeout=30)
    assert victim.returncode == 0
