"""The environment that `shopctl up` gives its children."""

from collections.abc import Mapping
from pathlib import Path

from services import topology


def child_environment(
    inherited: Mapping[str, str],
    *,
    home: Path,
    offset: int,
    database_url: str,
    nats_url: str,
) -> dict[str, str]:
    """What a service reads on start-up, on top of what it inherits.

    Args:
        inherited: the environment of the supervisor.
        home: absolute path of the state folder.
        offset: port offset.
        database_url: empty for a SQLite file per service.
        nats_url: a broker that somebody else runs; empty for the one that `shopctl up` starts.
            The token of our own stays in its file, where services look for it: an environment
            is easily dumped.
    """
    environment = dict(inherited)
    environment.update(
        MESH_HOME=str(home),
        MESH_PORT_OFFSET=str(offset),
        DATABASE_URL=database_url,
        NATS_URL=nats_url or own_nats_url(offset),
        LOG_FORMAT="json",
        PYTHONUNBUFFERED="1",
    )
    if not nats_url:
        environment.pop("NATS_TOKEN", None)  # belongs to another broker
    return environment


def own_nats_url(offset: int) -> str:
    """URL of the broker that `shopctl up` starts."""
    return f"nats://{topology.address(topology.BROKER, offset)}"
