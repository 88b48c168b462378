"""Priority: how important a call is when there is too much work."""

from enum import IntEnum


class Priority(IntEnum):
    """Importance of a call when there is too much work. Smaller is served first."""

    CRITICAL = 1
    DEFAULT = 2
    SHEDDABLE = 3
