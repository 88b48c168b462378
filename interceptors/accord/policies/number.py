"""Numbers that others send as text."""

from typing import Final

MAX_DIGITS: Final = 9


def small_number(value: str | bytes | None, digits: int = MAX_DIGITS) -> int | None:
    """The number that this text of at most so many decimal digits is; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= digits:
        return int(value)
    return None
