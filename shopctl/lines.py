"""Cuts a stream of bytes into lines."""

from typing import Final

MAX_LINE: Final = 256 * 1024


class LineSplitter:
    """Collects bytes and returns whole lines, without their newline.

    A line longer than `max_line` bytes is returned in pieces, so that a child that writes no
    newline cannot make us collect without end.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what was read and returns the lines that are complete now."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > self._max_line:
            lines.append(rest[: self._max_line])
            rest = rest[self._max_line :]
        self._rest = rest
        return [line.removesuffix(b"\r") for line in lines]

    def finish(self) -> list[bytes]:
        """Returns the last line if it did not end in a newline."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
