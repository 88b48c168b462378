"""Whose bearer tokens are believed by what others reach by HTTP: the edge and the console."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from accord.edge import Authenticator

JWKS: Final = "jwks.json"
"""The keys of the development issuer, in `<home>/edge`."""


class Setting(NamedTuple):
    """A variable, and what it is where it is not set."""

    variable: str
    usual: str = ""

    def of(self, environment: Mapping[str, str]) -> str:
        """What it says."""
        return environment.get(self.variable, "") or self.usual

    def each(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """What it lists, separated by commas."""
        return tuple(filter(None, map(str.strip, self.of(environment).split(","))))


KEYS: Final = Setting("MESH_EDGE_JWKS")
"""File or URL of the key set that tokens are verified by; `<home>/edge/jwks.json`."""
ISSUER: Final = Setting("MESH_EDGE_ISSUER", "https://shop.internal")
"""Who issues them, the claim `iss`."""
AUDIENCE: Final = Setting("MESH_EDGE_AUDIENCE", "shop-edge")
"""Whom they are for, the claim `aud`."""


def authenticator(home: Path, environment: Mapping[str, str]) -> "Authenticator":
    """Verifies bearer tokens; `home` is the state folder.

    Raises:
        OSError: there are no keys for it.
    """
    from accord.edge import Authenticator, KeySet  # a command that only signs needs neither

    where = KEYS.of(environment) or str(home / "edge" / JWKS)
    try:
        keys = (KeySet.from_url if "://" in where else KeySet.from_file)(where)
    except (OSError, ValueError) as error:
        hint = "shopctl up makes them, MESH_EDGE_JWKS names those of others"
        raise OSError(f"no keys to verify bearer tokens by ({error}): {hint}") from error
    return Authenticator(keys, issuer=ISSUER.of(environment), audience=AUDIENCE.of(environment))
