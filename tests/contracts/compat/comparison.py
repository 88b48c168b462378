"""What one version says, compared with what another does."""

from typing import Any


def covers(whole: Any, part: Any) -> bool:
    """Whether one message as JSON says all that another says, and perhaps more."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and covers(whole[name], part[name]) for name in part)
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(map(covers, whole, part))
    return type(whole) is type(part) and bool(whole == part)
