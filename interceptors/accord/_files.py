"""Whether files have changed: without reading them, and by one thread for all of a process."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from accord._log import log

INTERVAL: Final = 0.5
"""Seconds between two looks at files.

The kernel's notifications are no way out: network file systems and some systems have none.
"""

_lock: Final = Lock()
_looks: Final[list[Callable[[], bool]]] = []
_thread: Thread | None = None


def stamp(file: Path) -> object:
    """What changes with a file; None: it cannot be looked at."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    # For a second after a change it is read again: two within one tick of the clock look alike.
    fresh = time.time() - found.st_ctime < 1
    return found.st_ino, found.st_size, found.st_ctime_ns, time.time() if fresh else 0


def often(look: Callable[[], bool]) -> None:
    """Have files looked at every `INTERVAL`, until `look` says that it is enough: False.

    It is one thread that looks at all: to wake up is most of what a look costs. The processes of a
    machine look one after the other, each with the code in the caches that the one before left.
    """
    global _thread
    with _lock:
        _looks.append(look)
        if _thread is None or not _thread.is_alive():  # the one before a fork is not
            _thread = Thread(target=_run, name="accord-files", daemon=True)
            _thread.start()


def _run() -> None:
    global _thread
    while True:
        time.sleep(INTERVAL - time.monotonic() % INTERVAL)
        for look in tuple(_looks):
            try:
                if look():
                    continue
            except Exception as error:  # of one, which is not to be all others' end
                log(logging.ERROR, "files could not be looked at", error=error)
                continue
            with _lock:
                _looks.remove(look)
                if not _looks:
                    _thread = None
                    return
