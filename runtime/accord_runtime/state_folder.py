"""The folder of a process's state: databases, broker, mails, logs. It is its user's alone."""

import os
from pathlib import Path


def prepare(home: Path) -> None:
    """Make the folder, if it is not there, 0700; files of this process are 0600 from now on.

    Raises:
        PermissionError: other users may enter the folder that is there, or it is somebody else's,
            who could open it whenever it has something in it.
        OSError: it cannot be made.
    """
    os.umask(0o077)
    home.mkdir(parents=True, exist_ok=True)
    found = home.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{home} is another user's ({found.st_uid}); take one of your own")
    if found.st_mode & 0o077:
        raise PermissionError(f"other users may enter {home}; keep them out: chmod 700 {home}")
