"""What the supervisor runs, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shopctl.health import Health


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the shop.

    Attributes:
        name: unique; prefix of its log lines and name of its log file.
        argv: command and arguments.
        env: its whole environment.
        address: where it is reached, as shown to the user.
        ports: what each port that it binds on loopback is for -> port.
        health: how to find out whether it serves.
        drain_last: stopped only after all others have gone.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # holds the database URL and the broker token
    address: str
    ports: Mapping[str, int]
    health: Health
    drain_last: bool = False
