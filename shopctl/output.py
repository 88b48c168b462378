"""The pipe through which a child's output arrives."""

import asyncio
import os
from collections.abc import Callable

from shopctl.lines import LineSplitter

CHUNK = 65536


class OutputPipe:
    """Calls `on_lines` with the whole lines that come through a pipe.

    It ends with the child, not with the pipe: something that the child started may hold the
    other end open for ever.
    """

    def __init__(self, on_lines: Callable[[list[bytes]], None]) -> None:
        self._on_lines = on_lines
        self._splitter = LineSplitter()
        self._loop = asyncio.get_running_loop()
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._loop.add_reader(self._read_end, self._readable)

    def close_write_end(self) -> None:
        """To be called once the child has it."""
        os.close(self.write_end)

    def finish(self) -> None:
        """Delivers what is left in the pipe and closes it."""
        # Bounded, should a survivor keep on writing.
        for _ in range(64):
            if not self._readable():
                break
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        if lines := self._splitter.finish():
            self._on_lines(lines)

    def _readable(self) -> bool:
        try:
            data = os.read(self._read_end, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._read_end)
        elif lines := self._splitter.feed(data):
            self._on_lines(lines)
        return bool(data)
