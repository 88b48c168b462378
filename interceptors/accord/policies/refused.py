"""What a policy answers instead of admitting a call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """The call is not admitted. It is worth another try after `retry_after` seconds."""

    retry_after: float
