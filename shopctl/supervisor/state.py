"""What a running supervisor leaves in the state folder: its lock, and `run.json`.

The lock lets one supervisor run per folder. `run.json` is what it tells the other commands.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

LOCK_FILE: Final = "lock"
RUN_FILE: Final = "run.json"


class LockHeldError(Exception):
    """Somebody else holds the lock.

    Attributes:
        pid: who, as far as the lock file tells (0: it has not written its pid yet).
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


def locked(home: Path) -> AbstractContextManager[None]:
    """Holds the lock of a state folder, which must exist; see `holding`."""
    return holding(home / LOCK_FILE)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Holds a lock file for the length of a `with` block.

    The kernel releases it however this process ends. The file stays behind; it may be deleted
    while the lock is held.

    Raises:
        LockHeldError: another process holds it.
    """
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def lock_holder(home: Path) -> int | None:
    """Pid of the process that holds the lock of a state folder; None when nobody does."""
    return lock_holder_of(home / LOCK_FILE)


def lock_holder_of(path: Path) -> int | None:
    """As `lock_holder`, for any lock file that a process locks and writes its pid to."""
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


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process of the shop.

    Attributes:
        name: the program.
        address: `host:port`.
        pid: None while it is not running, and when this supervisor does not run it.
        state: as the supervisor knows it, a value of `State`.
        restarts: how often it was started again.
        started: Unix time in seconds of the latest start.
        managed: False when it was left out (`--except`) and is somebody else's.
        reason: why it does not serve, if that is known.
    """

    name: str
    address: str
    pid: int | None
    state: str
    restarts: int
    started: float | None
    managed: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A running supervisor.

    `started` is Unix time in seconds, `insecure`: it goes without TLS; `forks`: pid of what the
    services are forked from, if they are.
    """

    pid: int
    offset: int
    started: float
    processes: Sequence[ProcessRecord]
    insecure: bool = False
    forks: int | None = None


def write_run(home: Path, run: Run) -> None:
    """Replaces the file at once: a reader sees the old one or the new one."""
    draft = home / f"{RUN_FILE}.new"
    draft.write_text(json.dumps(asdict(run), indent=2) + "\n")
    os.replace(draft, home / RUN_FILE)


def read_run(home: Path) -> Run | None:
    """The record, or None if there is none (or it was left by something else)."""
    try:
        data = json.loads((home / RUN_FILE).read_text())
        processes = tuple(ProcessRecord(**process) for process in data.pop("processes"))
        return Run(**data, processes=processes)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def remove_run(home: Path) -> None:
    """Deletes the record if it is there."""
    (home / RUN_FILE).unlink(missing_ok=True)
