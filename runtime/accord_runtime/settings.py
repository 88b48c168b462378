"""What a service is told by its environment."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from accord_runtime.work.backlog import BOUND

_SEED: Final = re.compile(r"(nats|tls|wss?)://\S*[^\s:/@](:[0-9]{1,5})?/?")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the processes of a mesh listen unless one of them is told otherwise, as `host:port`."""

    services: Mapping[str, str]
    """Service name -> address, of all services."""
    gateways: Mapping[str, str] = field(default_factory=dict)
    """Name -> address of what others call by HTTP, and no service of the mesh calls."""
    broker: str = "127.0.0.1:4222"
    mail: str = ""
    """The mail server, if services of the mesh send mails."""
    health_distance: int = 1000
    """How far above it its health is served without certificates, if it has one itself."""
    metrics_distance: int = 2000
    """How far above a service's own port its `/metrics` are served."""


def targets(text: str) -> dict[str, str]:
    """Service name -> address, read from the form of `MESH_TARGETS`: `name=host:port,...`.

    An address may have commas of its own: `name=ipv4:10.0.0.7:1,10.0.0.8:1`.

    Raises:
        ValueError: an entry is not of that form.
    """
    result: dict[str, str] = {}
    key = last = ""
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, separator, target = (part.strip() for part in entry.partition("="))
        if not separator and last.startswith(("ipv4:", "ipv6:")):
            name, separator, target = key, ",", f"{last},{name}"
        if not (name and separator and target):
            raise ValueError(f"MESH_TARGETS: {entry!r} is not of the form name=host:port")
        result[name] = last = target
        key = name
    return result


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a service listens, keeps its state and finds the others.

    Every field beyond the first two has a default that works on a fresh machine, without a file.
    """

    name: str
    """The process: a name of `addresses.services`, or of its gateways."""
    addresses: Addresses
    """Where the mesh listens, with `port_offset` added to every port."""
    home: Path = Path(".mesh")
    """Folder of all state: databases, broker, mails (`MESH_HOME`)."""
    port_offset: int = 0
    """Added to every port (`MESH_PORT_OFFSET`)."""
    database_url: str = ""
    """Where the record is kept; empty for `<home>/<name>.db` (`DATABASE_URL`, in which `{service}`
    is the service's name)."""
    nats_url: str = ""
    """The broker, or several of one cluster; empty for the local one (`NATS_URL`)."""
    nats_replicas: int = 1
    """Copies that the broker keeps of a stream, at least: 1, 3 or 5 (`NATS_REPLICAS`)."""
    nats_token: str = field(default="", repr=False)
    """Password of the broker; empty for the one in `<home>/nats.token` (`NATS_TOKEN`)."""
    max_backlog: int = BOUND
    """Items of work that may wait before more is refused (`MAX_BACKLOG`)."""
    smtp: str = ""
    """`host:port` of the mail server; empty for the usual (`SMTP_ADDRESS`)."""
    shared_mail: bool = False
    """Whether mails go to the e-mail queue, which mailers share (`MAIL_QUEUE=shared`)."""
    log_format: str = "json"
    """`json` or `text` (`LOG_FORMAT`)."""
    targets: str = ""
    """Addresses of other services that differ from the usual (`MESH_TARGETS`)."""
    outbound_networks: str = ""
    """Networks that outsiders may have called beside public addresses, as `10.1.0.0/16,...`
    (`OUTBOUND_NETWORKS`)."""
    outbound_http: bool = False
    """Whether outsiders may have HTTP without TLS called, too (`OUTBOUND_HTTP=1`)."""
    listen: str = ""
    """`host:port` to listen on; empty for the usual (`MESH_LISTEN`)."""
    health: str = ""
    """`host:port` for health without certificates; empty for the usual (`MESH_HEALTH`)."""
    identity: Path | None = None
    """Folder of its certificate, key and roots; None: without TLS (`MESH_IDENTITY`, or
    `<home>/certs/<name>`; `MESH_INSECURE=1`)."""
    routes: str = ""
    """File that says which version of a target gets which calls: docs/xds.md (`MESH_ROUTES`)."""
    control_plane: str = ""
    """Address of a control plane for several processes (`MESH_CONTROL_PLANE`)."""

    @classmethod
    def from_environment(
        cls,
        name: str,
        addresses: Callable[[int], Addresses],
        environment: Mapping[str, str] = os.environ,
    ) -> "Settings":
        """Read the settings of a service.

        Args:
            name: the service.
            addresses: port offset -> where the mesh listens; raises ValueError for one that is
                too large.
            environment: the variables.

        Raises:
            ValueError: a variable has a value that cannot be used.
        """
        offset = environment.get("MESH_PORT_OFFSET", "") or "0"
        if not offset.isdecimal():
            raise ValueError(f"MESH_PORT_OFFSET={offset!r}: expected a number of 0 or more")
        log_format = environment.get("LOG_FORMAT", "") or "json"
        if log_format not in ("json", "text"):
            raise ValueError(f"LOG_FORMAT={log_format!r}: expected json or text")
        targets(environment.get("MESH_TARGETS", ""))  # Raises when they cannot be read.
        mail = environment.get("MAIL_QUEUE", "")
        if mail not in ("", "own", "shared"):
            raise ValueError(f"MAIL_QUEUE={mail!r}: expected own or shared")
        replicas = environment.get("NATS_REPLICAS", "") or "1"
        if replicas not in ("1", "3", "5"):
            raise ValueError(f"NATS_REPLICAS={replicas!r}: expected 1, 3 or 5")
        bound = environment.get("MAX_BACKLOG", "") or str(BOUND)
        if not (bound.isascii() and bound.isdecimal() and int(bound)):
            raise ValueError(f"MAX_BACKLOG={bound!r}: expected a number of 1 or more")
        nats_url = environment.get("NATS_URL", "")
        for seed in filter(None, nats_url.split(",")):
            if not _SEED.fullmatch(seed.strip()):
                # Without its password.
                seed = seed.rpartition("@")[2].strip()
                raise ValueError(f"NATS_URL: {seed!r} is not of the form nats://host:port")
        networks = environment.get("OUTBOUND_NETWORKS", "")
        for network in filter(None, map(str.strip, networks.split(","))):
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"OUTBOUND_NETWORKS: {error}") from None
        usual, listen = addresses(int(offset)), environment.get("MESH_LISTEN", "")
        own = {**usual.services, **usual.gateways}
        if not listen and name not in own:
            known = ", ".join(own) or "none"
            raise ValueError(f"no address is known of {name!r}, only of {known}; see MESH_LISTEN")
        home = Path(environment.get("MESH_HOME", "") or ".mesh")
        identity = _identity(environment, home / "certs" / name, listen or own[name])
        routes = environment.get("MESH_ROUTES", "")
        control_plane = environment.get("MESH_CONTROL_PLANE", "")
        if identity is None and (routes or control_plane):
            raise ValueError("MESH_ROUTES, MESH_CONTROL_PLANE: without TLS nobody obeys them")
        return cls(
            name=name,
            addresses=usual,
            home=home,
            port_offset=int(offset),
            database_url=environment.get("DATABASE_URL", "").replace("{service}", name),
            nats_url=nats_url,
            nats_replicas=int(replicas),
            max_backlog=int(bound),
            nats_token=environment.get("NATS_TOKEN", ""),
            smtp=environment.get("SMTP_ADDRESS", ""),
            shared_mail=mail == "shared",
            log_format=log_format,
            targets=environment.get("MESH_TARGETS", ""),
            outbound_networks=networks,
            outbound_http=environment.get("OUTBOUND_HTTP", "") == "1",
            listen=listen,
            health=environment.get("MESH_HEALTH", ""),
            identity=identity,
            routes=routes,
            control_plane=control_plane,
        )

    @property
    def revoked(self) -> Path | None:
        """Serials of certificates that are not accepted; the file need not exist."""
        return self.identity and self.identity.parent / "revoked.txt"

    @property
    def address(self) -> str:
        """`host:port` on which the service listens."""
        return self.listen or {**self.addresses.services, **self.addresses.gateways}[self.name]

    @property
    def health_address(self) -> str:
        """`host:port` of its health without certificates; empty: all its calls go without."""
        host, _, port = self.address.rpartition(":")
        host = host if is_loopback(self.address) else "127.0.0.1"
        usual = f"{host}:{int(port) + self.addresses.health_distance}" if self.identity else ""
        return self.health or usual

    @property
    def metrics_port(self) -> int:
        """Port of `/metrics`, on loopback."""
        return int(self.address.rpartition(":")[2]) + self.addresses.metrics_distance

    @property
    def database(self) -> str:
        """URL of the service's own database."""
        return self.database_url or f"sqlite:///{self.home.absolute() / self.name}.db"

    @property
    def broker(self) -> list[str]:
        """URLs of the broker."""
        seeds = [seed.strip() for seed in self.nats_url.split(",")]
        scheme = "tls" if self.identity else "nats"
        return list(filter(None, seeds)) or [f"{scheme}://{self.addresses.broker}"]

    @property
    def broker_by_certificate(self) -> bool:
        """Whether the broker knows the service by its certificate: by `tls://` without a user."""
        return all(seed.startswith("tls://") and "@" not in seed for seed in self.broker)

    @property
    def own_broker(self) -> bool:
        """Whether the broker is the mesh's own, which has a certificate of its name."""
        return self.broker == [f"tls://{self.addresses.broker}"]

    @property
    def broker_token(self) -> str | None:
        """Password of the broker, if there is one."""
        file = self.home / "nats.token"
        return self.nats_token or (file.read_text().strip() if file.exists() else None)

    @property
    def mail_server(self) -> str:
        """`host:port` of the mail server."""
        return self.smtp or self.addresses.mail

    @property
    def peers(self) -> dict[str, str]:
        """Name -> `host:port` of every service."""
        return {**self.addresses.services, **targets(self.targets)}


def _identity(environment: Mapping[str, str], usual: Path, address: str) -> Path | None:
    """The folder of the identity; None: none is wanted, and nobody else can get at the port.

    Raises:
        ValueError: there is none.
    """
    insecure = environment.get("MESH_INSECURE", "")
    if insecure not in ("", "0", "1"):
        raise ValueError(f"MESH_INSECURE={insecure!r}: expected 1 or nothing")
    if insecure == "1":
        if not is_loopback(address):
            raise ValueError(
                f"MESH_INSECURE=1 is for loopback only, not for {address}:"
                " whoever reaches it could call everything"
            )
        return None
    folder = Path(environment.get("MESH_IDENTITY", "") or usual)
    if not folder.is_dir():
        raise ValueError(
            f"no identity: there is no folder {folder} with tls.crt, tls.key and ca.crt"
            " (MESH_IDENTITY names another); without TLS on loopback: MESH_INSECURE=1"
        )
    return folder


def is_loopback(address: str) -> bool:
    """Whether a `host:port`, or the path of a socket, is reached from this host only."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith(("unix:", "unix-abstract:")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
