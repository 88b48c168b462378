"""`run.json` in the state folder: what a running supervisor tells the other commands."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "run.json"


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
    """

    name: str
    address: str
    pid: int | None
    state: str
    restarts: int
    started: float | None
    managed: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """A running supervisor. `started` is Unix time in seconds."""

    pid: int
    offset: int
    started: float
    processes: Sequence[ProcessRecord]


def write(home: Path, run: Run) -> None:
    """Replaces the file at once: a reader sees the old one or the new one."""
    draft = home / f"{FILE}.new"
    draft.write_text(json.dumps(asdict(run), indent=2) + "\n")
    os.replace(draft, home / FILE)


def read(home: Path) -> Run | None:
    """The record, or None if there is none (or it was left by something else)."""
    try:
        data = json.loads((home / FILE).read_text())
        processes = tuple(ProcessRecord(**process) for process in data.pop("processes"))
        return Run(**data, processes=processes)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def remove(home: Path) -> None:
    """Deletes the record if it is there."""
    (home / FILE).unlink(missing_ok=True)
