"""Log files of bounded size."""

import os
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 10 * 1024 * 1024


class LogFile:
    """Appends to `path`; at `max_bytes` the file becomes `path.1` and a new one is begun.

    So a program never has more than twice `max_bytes` on disk. Only one generation is kept:
    these are for looking at what just happened, not an archive. A disk that is full loses log
    lines and never stops the shop; `lost` counts the bytes.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.lost = 0
        self._max_bytes = max_bytes
        self._open()

    def write(self, data: bytes) -> None:
        """Appends whole lines."""
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._size += os.write(self._descriptor, data)
        except OSError:
            self.lost += len(data)

    def close(self) -> None:
        """Closes the file; nothing can be written afterwards."""
        os.close(self._descriptor)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        os.replace(self.path, self.path.with_name(self.path.name + ".1"))
        previous = self._descriptor
        self._open()
        os.close(previous)
