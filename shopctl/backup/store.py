"""What a backup needs of databases, of whatever kind."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class State:
    """What a copied database says of itself; see `archive.Copy`."""

    position: int
    migrations: Mapping[str, int]


POSITION = "SELECT COALESCE(MAX(position), 0) FROM events"
APPLIED = "SELECT component, MAX(number) FROM schema_migrations GROUP BY component"


class Store(Protocol):
    """The databases of the services of one shop."""

    backend: str

    def services(self) -> list[str]:
        """Those that have a database.

        Raises:
            CommandError: there is no way to find out.
        """

    def copy(self, service: str, file: Path) -> State:
        """Write a copy of a database that may be in use, as it was at one moment.

        Raises:
            CommandError: it cannot be read, or is damaged.
        """

    def unused(self, service: str) -> AbstractContextManager[None]:
        """Keep the service from starting for the length of the block.

        Raises:
            CommandError: it runs.
        """

    def put_back(self, service: str, file: Path, mark: str) -> str:
        """Put a copy in the place of a database that is `unused`.

        Returns:
            Where is now what was there, with `mark` in its name; empty when nothing was there.

        Raises:
            CommandError: it cannot be done; all is as before.
        """
