"""Which programs `shopctl up` starts, with what environment and on which ports."""

import errno
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from accord_runtime.ports import holder
from services import topology
from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor import broker, environment
from shopctl.supervisor.health import Check, broker_health, check_of

SERVICES: Final = tuple(topology.SERVICES)
"""Services that there are."""

GATEWAYS: Final = tuple(topology.GATEWAYS)
"""What is reached by HTTP."""

PROGRAMS: Final = (topology.BROKER, *SERVICES, *GATEWAYS)
"""What `shopctl up` starts."""

_SECRETS: Final = ("DATABASE_", "NATS_", "PG")
"""Variables that are none of the business of who meets strangers."""

_IMPORTS: Final = ("accord_runtime.process", "uvloop")
"""What services are built on. Their own code, and the contracts that they know, each imports."""

_BY_HTTP: Final = ("accord.edge", "services.http_server", "strawberry")
"""What those are built on, beside, that are reached by HTTP."""

METRICS: Final = "metrics"
"""What the port of a service's `/metrics` is for."""


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
        drains: when it is stopped: after all with a smaller number have gone.
        watched: asked for its health for as long as it runs, and started again if it refuses.
        module: what `argv` runs, if it is one of Python's that can be forked.
        imports: what it needs, which its fork finds imported.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # holds the database URL and the broker token
    address: str
    ports: Mapping[str, int]
    health: Check
    drains: int = 1
    watched: bool = False
    module: str = ""
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """What is started and what is not.

    Attributes:
        programs: to be started, the broker first.
        left_out: somebody else runs these, perhaps; name -> address.
    """

    programs: tuple[Program, ...]
    left_out: Mapping[str, str]


def select(
    home: Path,
    *,
    offset: int,
    left_out: Sequence[str],
    database_url: str,
    nats_url: str,
    inherited: Mapping[str, str],
    insecure: bool = False,
) -> Selection:
    """The programs of the shop; starts and writes nothing.

    `home` is an absolute path. Without `database_url` there is a SQLite file per service, without
    `nats_url` a broker of our own; `inherited` is the environment of this process, of which they
    get what they read; `insecure`: they go without TLS.

    Raises:
        CommandError: a name is unknown, nothing is left, or the broker is not installed.
    """
    _check_names(left_out)
    scheme = "nats" if insecure else "tls"
    env = {
        **environment.of_services(inherited),
        "MESH_HOME": str(home),
        "MESH_PORT_OFFSET": str(offset),
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url or f"{scheme}://{topology.address(topology.BROKER, offset)}",
        "LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
        "MESH_INSECURE": str(int(insecure)),
    }
    if not nats_url:
        # It belongs to another broker. The token of our own stays in its file, where services look
        # for it: an environment is easily dumped.
        env.pop("NATS_TOKEN", None)
    programs = []
    if topology.BROKER not in left_out and not nats_url:
        programs.append(_broker(home, offset, inherited))
    secure = None if insecure else home
    programs += [_service(name, offset, env, secure) for name in SERVICES if name not in left_out]
    whole = not left_out
    for name in GATEWAYS:
        if name not in left_out:
            programs.append(_gateway(name, offset, env, secure, whole=whole))
    return Selection(
        programs=tuple(programs),
        left_out={
            name: topology.address(name, offset)
            for name in dict.fromkeys(left_out)
            if not (name == topology.BROKER and nats_url)
        },
    )


def taken_ports(programs: Iterable[Program]) -> list[str]:
    """The ports that `programs` need and something else listens on: what for, and who does.

    Without their metrics services start all the same, and say so.
    """
    return [
        f"{port} ({program.name}, {purpose}{found and f'; held by {found}'})"
        for program in programs
        for purpose, port in program.ports.items()
        if purpose != METRICS and not _is_free(port)
        for found in [holder(port)]
    ]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that linger in TIME_WAIT after a restart are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((topology.HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _check_names(left_out: Sequence[str]) -> None:
    for name in left_out:
        if name not in PROGRAMS:
            raise CommandError(
                f"--except {name}: there is no such program; there are {', '.join(PROGRAMS)}",
                ExitCode.USAGE,
            )
    if set(left_out) == set(PROGRAMS):
        raise CommandError("--except leaves nothing to start", ExitCode.USAGE)


def _service(name: str, offset: int, env: Mapping[str, str], home: Path | None) -> Program:
    port = topology.port(name, offset)
    ports = {"gRPC": port, METRICS: port + topology.METRICS_DISTANCE}
    if home:
        ports["health"] = port + topology.HEALTH_DISTANCE
    if name == "sandbox":
        ports["SMTP"] = topology.smtp_port(offset)
    return _python(name, offset, env, home, ports)


def _gateway(
    name: str, offset: int, env: Mapping[str, str], home: Path | None, *, whole: bool
) -> Program:
    port = topology.port(name, offset)
    ports = {"HTTP": port, METRICS: port + topology.GATEWAY_METRICS_DISTANCE}
    own = {key: value for key, value in env.items() if not key.startswith(_SECRETS)}
    # Requests that it has taken end before the services do.
    program = _python(name, offset, own, home, ports)
    return replace(program, drains=0, health=check_of(name, whole=whole))


def _python(
    name: str, offset: int, env: Mapping[str, str], home: Path | None, ports: Mapping[str, int]
) -> Program:
    module = f"services.{name}"
    return Program(
        name=name,
        argv=(sys.executable, "-m", module),
        env={**env, "MESH_IDENTITY": str(home / "certs" / name) if home else ""},
        address=topology.address(name, offset),
        ports=ports,
        health=check_of(name, home),
        module=module,
        imports=(*_IMPORTS, *(_BY_HTTP if name in GATEWAYS else ())),
    )


def _broker(home: Path, offset: int, inherited: Mapping[str, str]) -> Program:
    address = topology.address(topology.BROKER, offset)
    health = int(broker_health(address).rpartition(":")[2])
    return Program(
        name=topology.BROKER,
        argv=broker.command(home),
        env=broker.environment(inherited),
        address=address,
        ports={"NATS": topology.port(topology.BROKER, offset), "health": health},
        health=check_of(topology.BROKER),
        drains=2,  # services publish what they still have
        watched=True,
    )
