"""The terminal: what it can show, and how to print there without being held up."""

import os
import re
import shutil
import sys
import threading
from collections import deque
from io import StringIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import RenderableType

FALLBACK_WIDTH: Final = 110
MAX_PENDING: Final = 10_000
_OBEYED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """A text, which may quote a stranger, in one line that a terminal only shows.

    What it would obey, or what would change the order of letters, is escaped as JSON does; tabs
    and ends of lines are blanks.
    """
    return _OBEYED.sub(
        lambda found: " " if found[0] in "\t\n\v\f\r" else f"\\u{ord(found[0]):04x}", text
    )


def is_terminal() -> bool:
    """Whether a person watches: colours and human-readable logs only then."""
    return sys.stdout.isatty()


def wants_colour() -> bool:
    """Whether to print in colour: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def width() -> int:
    """Columns to print within."""
    if not is_terminal():
        return FALLBACK_WIDTH
    return shutil.get_terminal_size().columns


def as_text(
    renderable: "RenderableType", *, colour: bool, width: int, soft_wrap: bool = False
) -> str:
    """What rich makes of `renderable`, without blanks at the ends of lines.

    With `soft_wrap` a line that is longer than `width` stays one line.
    """
    from rich.console import Console  # only what prints a table waits for it

    text = StringIO()
    console = Console(
        file=text, force_terminal=colour, no_color=not colour, width=width, highlight=False
    )
    console.print(renderable, soft_wrap=soft_wrap, end="")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


class TerminalWriter:
    """Writes lines to a file descriptor from a thread of its own.

    Someone who stops the terminal with Ctrl-S, or pipes us into a pager, must not stop the shop:
    its processes write to pipes that the supervisor has to empty. Lines beyond `MAX_PENDING` are
    dropped and counted; the log files have them. When nobody reads any more (`| head`) printing
    just ends. A descriptor and not a stream, because a thread that is stuck in a stream holds
    its lock, on which Python aborts when it exits.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending: deque[str] = deque()
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    def print(self, text: str) -> None:
        """Queues text; a newline is added. Does nothing when nobody reads any more."""
        with self._changed:
            if self._closed:
                return
            if len(self._pending) >= MAX_PENDING:
                self._dropped += 1
                return
            self._pending.append(text)
            self._changed.notify()

    def close(self, timeout: float = 1.0) -> None:
        """Writes what is queued, for at most `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _write_all(self) -> None:
        while (rest := self._take()) is not None:
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:  # a broken pipe
                with self._changed:
                    self._closed = True
                    self._pending.clear()
                return

    def _take(self) -> bytes | None:
        with self._changed:
            while not self._pending and not self._closed:
                self._changed.wait()
            if not self._pending:
                return None
            lines = list(self._pending)
            self._pending.clear()
            if self._dropped:
                lines.append(f"shopctl: {self._dropped} lines not shown; see the log files")
                self._dropped = 0
        return ("\n".join(lines) + "\n").encode(errors="replace")
