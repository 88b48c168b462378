"""Settings of a service under test: a folder of its own, free ports, nothing shared."""

import socket
from pathlib import Path

from services.runtime.settings import Settings


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings_of(
    name: str, home: Path, *, database_url: str = "", nats_url: str = "", listen: str = ""
) -> Settings:
    """By default SQLite in `home`, a free port, and no broker."""
    return Settings(
        name,
        home=home,
        database_url=database_url,
        nats_url=nats_url or f"nats://127.0.0.1:{free_port()}",
        listen=listen or f"127.0.0.1:{free_port()}",
    )
