"""Whose process holds a port."""

import os
import socket
import sys
from pathlib import Path

import pytest

from accord_runtime.ports import holder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "")])
def test_who_listens_is_named(family: socket.AddressFamily, host: str) -> None:
    """A process that listens is named by its number, whatever its address; afterwards nobody is."""
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        assert holder(port) == ""
        listener.listen()
        assert holder(port).startswith(f"process {os.getpid()} (")
    assert holder(port) == ""


def test_where_the_system_does_not_tell(tmp_path: Path) -> None:
    """Without `/proc` nobody is named."""
    assert holder(1, str(tmp_path)) == ""
