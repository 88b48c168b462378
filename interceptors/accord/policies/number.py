"""Numbers that callers send as text."""

from typing import Final

MAX_DIGITS: Final = 9


def small_number(value: str | bytes | None) -> int | None:
    """The number from 0 to 999,999,999 that this text is; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    return None
