"""What the parties of the outside world know and how they may behave."""

from dataclasses import dataclass
from enum import StrEnum

from shop.common.v1.money_pb2 import Money
from shop.sandbox.v1 import sandbox_pb2 as pb


@dataclass(frozen=True, slots=True)
class Conduct:
    """How one call is treated; `delay` is in seconds and used by DELAY only."""

    behavior: "pb.Behavior.ValueType" = pb.BEHAVIOR_NORMAL
    delay: float = 0.0


class CaptureState(StrEnum):
    """Where the card processor stands with a key."""

    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    REVERSED = "REVERSED"
    BLOCKED = "BLOCKED"
    """Reversed before it was known."""


@dataclass(frozen=True, slots=True)
class Capture:
    """What the card processor knows under a key."""

    reference: str
    state: CaptureState
    capture_id: str
    amount: Money | None
    decline_reason: str


class ParcelState(StrEnum):
    """Where the carrier stands with a key."""

    BOOKED = "BOOKED"
    REFUSED = "REFUSED"
    HANDED_OVER = "HANDED_OVER"
    """It travels and cannot be cancelled any more."""
    CANCELLED = "CANCELLED"
    BLOCKED = "BLOCKED"
    """Cancelled before it was known."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the carrier knows under a key."""

    reference: str
    state: ParcelState
    tracking_number: str
    units: int


TOKEN_DECLINED = "tok_declined"
TOKEN_NO_FUNDS = "tok_no_funds"
TOKEN_SLOW = "tok_slow"
TOKEN_FLAKY = "tok_flaky"
TOKEN_LOST = "tok_lost"

SLOW_DELAY = 2.0
"""Seconds until the answer for `tok_slow`."""
FLAKY_FAILURES = 2
"""How often `tok_flaky` fails, per key, before it works."""

COUNTRIES_NOT_SERVED = frozenset({"AQ"})


def decline_reason(card_token: str, conduct: Conduct) -> str:
    """Why a card is declined; empty when it is good."""
    if card_token == TOKEN_NO_FUNDS:
        return "insufficient funds"
    if card_token == TOKEN_DECLINED or conduct.behavior == pb.BEHAVIOR_DECLINE:
        return "declined by the bank"
    return ""


def is_refused(country_code: str, conduct: Conduct) -> bool:
    """Whether the carrier refuses a destination."""
    return country_code in COUNTRIES_NOT_SERVED or conduct.behavior == pb.BEHAVIOR_DECLINE
