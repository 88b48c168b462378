"""What the edge is told by its environment, beside what every process of the mesh is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.bearer_tokens import Setting

ORIGINS: Final = Setting("MESH_EDGE_ORIGINS")
PROXIES: Final = Setting("MESH_EDGE_PROXIES")
DEVELOPMENT: Final = Setting("MESH_EDGE_DEVELOPMENT")


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Whom the edge answers."""

    origins: tuple[str, ...]
    """Origins whose pages may call from a browser, such as `https://app.example`
    (`MESH_EDGE_ORIGINS`); none by default."""
    proxies: str
    """Addresses and networks of proxies that are believed in whom they forward for
    (`MESH_EDGE_PROXIES`); none by default."""
    development: bool
    """Whether GraphQL tells its schema to whoever asks (`MESH_EDGE_DEVELOPMENT=1`)."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "EdgeSettings":
        """Read them."""
        return cls(
            origins=ORIGINS.each(environment),
            proxies=PROXIES.of(environment),
            development=DEVELOPMENT.of(environment) == "1",
        )
