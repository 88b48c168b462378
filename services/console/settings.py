"""What the console is told by its environment, beside what every process of the mesh is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.bearer_tokens import Setting

HOSTS: Final = Setting("MESH_CONSOLE_HOSTS")


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """By what names the console answers."""

    hosts: frozenset[str]
    """Names of hosts, beside those of loopback, under which browsers reach it, such as that of the
    edge (`MESH_CONSOLE_HOSTS`, separated by commas); none by default."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ConsoleSettings":
        """Read them."""
        return cls(frozenset(map(str.lower, HOSTS.each(environment))))
