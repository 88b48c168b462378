"""What the children log: into files of bounded size, and as a person or a pipe gets to see it."""

import io
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from services.topology import BROKER
from shopctl.terminal import harmless

MAX_BYTES: Final = 10 * 1024 * 1024
"""Size of a log file."""

RESET: Final = "\x1b[0m"
DIM: Final = "\x1b[2m"
PALETTE: Final = tuple(f"\x1b[{code}m" for code in (36, 35, 34, 32, 96, 95, 94, 92))
LEVELS: Final[Mapping[str, tuple[str, str]]] = {
    "DEBUG": ("DEBUG", DIM),
    "INFO": ("INFO ", ""),
    "WARNING": ("WARN ", "\x1b[33m"),
    "ERROR": ("ERROR", "\x1b[31m"),
    "CRITICAL": ("CRIT ", "\x1b[1;31m"),
}
"""Level in a log line -> what is printed, its colour."""

SHOWN_FIRST: Final = ("ts", "level", "service", "msg")
LEFT_OUT: Final = ("logger",)
MULTILINE: Final = ("exc", "exception", "traceback", "stack")
_NOT_INLINE: Final = frozenset({*SHOWN_FIRST, *LEFT_OUT, *MULTILINE})

# "[4711] 2026/01/31 12:00:00.123456 [INF] Server is ready"
_BROKER_LINE: Final = re.compile(r"\[\d+\] [\d/]+ ([\d:]+)\.(\d{3})\d* \[(\w+)\] (.*)")
_BROKER_LEVELS: Final = {"WRN": "WARNING", "ERR": "ERROR", "FTL": "CRITICAL"}


class LogFile:
    """Appends to `path`; at `max_bytes` the file becomes `path.1` and a new one is begun.

    So a program never has more than twice `max_bytes` on disk. Only one generation is kept:
    these are for looking at what just happened, not an archive. A disk that is full loses log
    lines and never stops the shop; `lost` counts the bytes.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.lost = 0
        self._path = path
        self._max_bytes = max_bytes
        self._torn = False
        self._file = self._open()

    def write(self, lines: Sequence[bytes]) -> None:
        """Appends whole lines, which come without their newline."""
        data = b"\n".join([*([b""] if self._torn else []), *lines, b""])
        written = 0
        try:
            size = self._file.tell()
            if size and size + len(data) >= self._max_bytes:
                with suppress(FileNotFoundError):
                    self._path.replace(f"{self._path}.1")
                file, self._file = self._file, self._open()
                file.close()
            written = self._file.write(data)
        except OSError:
            pass
        self.lost += len(data) - written
        if written:
            self._torn = data[written - 1] != ord("\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _open(self) -> io.FileIO:
        # Without a buffer: what a full disk has refused must not be kept, and tried again.
        return io.FileIO(self._path, "ab", opener=_open_private)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


Format = Callable[[str, bytes], str | None]
"""Makes of the name of a program, and a line that it wrote, the text to print; None: nothing."""


def raw(width: int) -> Format:
    """For a pipe: the name of the program, then the line as it was written."""
    return lambda program, line: f"{program:<{width}} | {line.decode(errors='replace')}"


def json_lines(program: str, line: bytes) -> str:
    """For a program that reads us: a line that is no JSON object is wrapped into one."""
    text = line.decode(errors="replace")
    return (
        harmless(text)
        if _parsed(text) is not None
        else json.dumps({"service": program, "msg": text})
    )


@dataclass(frozen=True, slots=True)
class Human:
    """For a person: time, level, message and the remaining fields, in colour."""

    width: int
    colour: bool

    def __call__(self, program: str, line: bytes) -> str | None:
        """See `Format`. What the broker says below a warning is left to its log file."""
        text = line.decode(errors="replace")
        if program == BROKER:
            return self._broker(text)
        fields = _parsed(text)
        if fields is None:
            return self._prefix(program) + harmless(text)
        level, level_colour = LEVELS.get(str(fields.get("level", "")).upper(), ("     ", ""))
        rest = " ".join(
            f"{self._paint(DIM, key + '=')}{_value(value)}"
            for key, value in fields.items()
            if key not in _NOT_INLINE and value not in (None, "")
        )
        head = (
            f"{self._prefix(program)}{self._paint(DIM, _clock(fields.get('ts')))} "
            f"{self._paint(level_colour, level)} {_value(fields.get('msg', ''))}"
        )
        more = [
            self._prefix(program) + "  " + harmless(part)
            for key in MULTILINE
            for part in str(fields.get(key) or "").splitlines()
        ]
        return "\n".join([f"{head}  {rest}".rstrip(), *more])

    def _broker(self, text: str) -> str | None:
        match = _BROKER_LINE.match(text)
        if match is None or match[3] not in _BROKER_LEVELS:
            return None
        label, colour = LEVELS[_BROKER_LEVELS[match[3]]]
        clock = self._paint(DIM, f"{match[1]}.{match[2]}")
        return f"{self._prefix(BROKER)}{clock} {self._paint(colour, label)} {harmless(match[4])}"

    def _prefix(self, program: str) -> str:
        colour = PALETTE[zlib.crc32(program.encode()) % len(PALETTE)]
        return self._paint(colour, f"{program:<{self.width}} │") + " "

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self.colour and colour else text


def _parsed(text: str) -> dict[str, object] | None:
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _clock(stamp: object) -> str:
    """Time of day in UTC with milliseconds, from Unix seconds or ISO 8601 text."""
    try:
        if isinstance(stamp, int | float):
            moment = datetime.fromtimestamp(stamp, UTC)
        else:
            moment = datetime.fromisoformat(str(stamp)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return " " * len("00:00:00.000")
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03}"


def _value(value: object) -> str:
    return harmless(value if isinstance(value, str) else json.dumps(value, default=str))
