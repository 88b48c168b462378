"""Logs: one JSON object a line, with the trace they belong to; and the same for a collector."""

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from opentelemetry._logs import SeverityNumber

from accord import trace_id

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`{"ts", "level", "service", "logger", "msg", "trace_id"?, ...}` and the extras."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        trace = trace_id()
        if trace:
            line["trace_id"] = trace
        line.update(_extras(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Exported(logging.Handler):
    """Gives records to an SDK, with the trace that is current."""

    def __init__(self, provider: "LoggerProvider") -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record over, unless it is the export's own: it would never end."""
        if record.name.startswith(("opentelemetry.", "urllib3.")):
            return
        # 10, 20 ... 50 are 5, 9 ... 21 of 1 to 24 there.
        number = max(0, min(record.levelno, 59)) * 2 // 5 + 1
        self._provider.get_logger(record.name).emit(
            timestamp=int(record.created * 1e9),
            severity_number=SeverityNumber(number),
            severity_text=record.levelname,
            body=record.getMessage(),
            attributes=_extras(record),
            exception=record.exc_info[1] if record.exc_info else None,
        )


def _extras(record: logging.LogRecord) -> dict[str, str | int | float]:
    return {
        name: value if _is_number(value) else str(value)
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


def _is_number(value: object) -> bool:
    """Whether JSON has a number, or a truth value, for it."""
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def configure(service: str, style: str) -> None:
    """Log to standard output, as `json` or `text`."""
    handler = logging.StreamHandler(sys.stdout)
    if style == "json":
        handler.setFormatter(JsonFormatter(service))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("nats", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
