"""Who listens on a port of this machine."""

import contextlib
import glob
import os
from pathlib import Path

_LISTENING = "0A"


def holder(port: int, proc: str = "/proc") -> str:
    """`process 12 (python)`: one that listens on a TCP port; empty where the system does not tell.

    It does on Linux, of processes of the same user.
    """
    sockets = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(proc, "net", table).read_text().splitlines()[1:]:
                _, address, _, state, *rest = line.split()
                if state == _LISTENING and int(address.rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{rest[5]}]")
    for link in glob.iglob(f"{proc}/[0-9]*/fd/*") if sockets else ():
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            if os.readlink(link) in sockets:
                folder = Path(link).parents[1]
                return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
    return ""
