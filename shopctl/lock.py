"""One supervisor per state folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "lock"


class LockHeldError(Exception):
    """Somebody else holds the lock.

    Attributes:
        pid: who, as far as the lock file tells (0: it has not written its pid yet).
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Holds the lock of a state folder, which must exist, for the length of a `with` block.

    The kernel releases it however this process ends. The file stays behind; it may be deleted
    while the lock is held.

    Raises:
        LockHeldError: another process holds it.
    """
    descriptor = _acquire(home / FILE)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(home: Path) -> int | None:
    """Pid of the process that holds the lock of a state folder; None when nobody does."""
    return holder_of(home / FILE)


def holder_of(path: Path) -> int | None:
    """As `holder`, for any lock file that a process locks and writes its pid to."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have deleted the file meanwhile: then we locked nothing.
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            pid = _pid_in(descriptor)
            os.close(descriptor)
            raise LockHeldError(pid) from None
        os.close(descriptor)


def _pid_in(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
