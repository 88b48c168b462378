"""The library's only way to the log."""

import logging

_log = logging.getLogger("accord")


def log(level: int, message: str, *, error: BaseException | None = None, **fields: object) -> None:
    """Log to the logger "accord": `fields` in the line, and as attributes of the record."""
    line = message + "".join(f" {name}=%s" for name in fields)
    _log.log(level, line, *fields.values(), exc_info=error, extra=fields)


def debugging() -> bool:
    """Whether lines of the level DEBUG are wanted: to be asked before one is made."""
    return _log.isEnabledFor(logging.DEBUG)
