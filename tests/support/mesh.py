"""Settings of a service under test: a folder of its own, free ports, nothing shared."""

from pathlib import Path

from accord_runtime.settings import Settings
from services import topology
from tests.support.ports import free_port


def settings_of(
    name: str, home: Path, *, database_url: str = "", nats_url: str = "", listen: str = ""
) -> Settings:
    """By default SQLite in `home`, a free port, and no broker."""
    return Settings(
        name,
        topology.addresses(),
        home=home,
        database_url=database_url,
        nats_url=nats_url or f"nats://127.0.0.1:{free_port()}",
        listen=listen or f"127.0.0.1:{free_port()}",
    )
