"""The library's only way to the log."""

import logging

_log = logging.getLogger("accord")


def log(level: int, message: str, *, error: BaseException | None = None, **fields: object) -> None:
    """Log to the logger "accord", `fields` as attributes of the record."""
    _log.log(level, message, exc_info=error, extra=fields)
