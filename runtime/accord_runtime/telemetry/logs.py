"""Logs: one JSON object a line, with the trace and the order they belong to."""

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Final

from accord.telemetry import trace_id

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
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = value if _is_number(value) else str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


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
