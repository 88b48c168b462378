"""What a service is told by its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services import topology


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a service listens, keeps its state and finds the others.

    Every field has a default that works on a fresh machine, without a file.
    """

    name: str
    """The service: a name of `topology.SERVICES`."""
    home: Path = Path(".mesh")
    """Folder of all state: databases, broker, mails (`MESH_HOME`)."""
    port_offset: int = 0
    """Added to every port (`MESH_PORT_OFFSET`)."""
    database_url: str = ""
    """Where the record is kept; empty for `<home>/<name>.db` (`DATABASE_URL`)."""
    nats_url: str = ""
    """The broker; empty for the local one (`NATS_URL`)."""
    nats_token: str = field(default="", repr=False)
    """Password of the broker; empty for the one in `<home>/nats.token` (`NATS_TOKEN`)."""
    smtp: str = ""
    """`host:port` of the mail server; empty for the sandbox's (`SMTP_ADDRESS`)."""
    log_format: str = "json"
    """`json` or `text` (`LOG_FORMAT`)."""
    targets: str = ""
    """Addresses of other services that differ from the usual (`MESH_TARGETS`)."""
    listen: str = ""
    """`host:port` to listen on; empty for the usual (`MESH_LISTEN`)."""

    @classmethod
    def from_environment(cls, name: str, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings of a service.

        Raises:
            ValueError: a variable has a value that cannot be used.
        """
        offset = environment.get("MESH_PORT_OFFSET", "") or "0"
        if not offset.isdecimal():
            raise ValueError(f"MESH_PORT_OFFSET={offset!r}: expected a number of 0 or more")
        log_format = environment.get("LOG_FORMAT", "") or "json"
        if log_format not in ("json", "text"):
            raise ValueError(f"LOG_FORMAT={log_format!r}: expected json or text")
        # Raises for an offset that is too large and for overrides that cannot be read.
        topology.targets(int(offset), environment.get("MESH_TARGETS", ""))
        return cls(
            name=name,
            home=Path(environment.get("MESH_HOME", "") or ".mesh"),
            port_offset=int(offset),
            database_url=environment.get("DATABASE_URL", ""),
            nats_url=environment.get("NATS_URL", ""),
            nats_token=environment.get("NATS_TOKEN", ""),
            smtp=environment.get("SMTP_ADDRESS", ""),
            log_format=log_format,
            targets=environment.get("MESH_TARGETS", ""),
            listen=environment.get("MESH_LISTEN", ""),
        )

    @property
    def address(self) -> str:
        """`host:port` on which the service listens."""
        return self.listen or topology.address(self.name, self.port_offset)

    @property
    def metrics_port(self) -> int:
        """Port of `/metrics`, on loopback."""
        return int(self.address.rpartition(":")[2]) + topology.METRICS_DISTANCE

    @property
    def database(self) -> str:
        """URL of the service's own database."""
        return self.database_url or f"sqlite:///{self.home.absolute() / self.name}.db"

    @property
    def broker(self) -> str:
        """URL of the broker."""
        return self.nats_url or f"nats://{topology.address(topology.BROKER, self.port_offset)}"

    @property
    def broker_token(self) -> str | None:
        """Password of the broker, if there is one."""
        file = self.home / "nats.token"
        return self.nats_token or (file.read_text().strip() if file.exists() else None)

    @property
    def mail_server(self) -> str:
        """`host:port` of the mail server."""
        return self.smtp or f"{topology.HOST}:{topology.smtp_port(self.port_offset)}"

    @property
    def peers(self) -> dict[str, str]:
        """Name -> `host:port` of every service."""
        return topology.targets(self.port_offset, self.targets)
