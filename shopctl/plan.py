"""Which programs `shopctl up` starts, and with what environment."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services import topology
from shopctl import broker, environment
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.health import BrokerHealth, GrpcHealth
from shopctl.program import Program


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        programs: to be started, the broker first.
        left_out: somebody else runs these, perhaps; name -> address.
    """

    programs: tuple[Program, ...]
    left_out: Mapping[str, str]


def make_plan(
    home: Path,
    *,
    offset: int,
    left_out: Sequence[str],
    database_url: str,
    nats_url: str,
    inherited: Mapping[str, str],
) -> Plan:
    """Plans the shop; starts and writes nothing.

    Args:
        home: absolute path of the state folder.
        offset: port offset.
        left_out: names of programs not to start.
        database_url: empty for a SQLite file per service.
        nats_url: empty to start a broker of our own.
        inherited: the environment of this process.

    Raises:
        CommandError: a name is unknown, nothing is left, or the broker is not installed.
    """
    _check_names(left_out)
    env = environment.child_environment(
        inherited, home=home, offset=offset, database_url=database_url, nats_url=nats_url
    )
    programs = []
    if topology.BROKER not in left_out and not nats_url:
        programs.append(_broker(home, offset, inherited))
    programs += [_service(n, offset, env) for n in topology.SERVICES if n not in left_out]
    return Plan(
        programs=tuple(programs),
        left_out={
            name: topology.address(name, offset)
            for name in dict.fromkeys(left_out)
            if not (name == topology.BROKER and nats_url)
        },
    )


def _check_names(left_out: Sequence[str]) -> None:
    known = (topology.BROKER, *topology.SERVICES)
    for name in left_out:
        if name not in known:
            raise CommandError(
                f"--except {name}: there is no such program; there are {', '.join(known)}",
                ExitCode.USAGE,
            )
    if set(left_out) == set(known):
        raise CommandError("--except leaves nothing to start", ExitCode.USAGE)


def _service(name: str, offset: int, env: Mapping[str, str]) -> Program:
    port = topology.port(name, offset)
    ports = {"gRPC": port, "metrics": port + topology.METRICS_DISTANCE}
    if name == "sandbox":
        ports["SMTP"] = topology.smtp_port(offset)
    address = topology.address(name, offset)
    return Program(
        name=name,
        argv=(sys.executable, "-m", f"services.{name}"),
        env=env,
        address=address,
        ports=ports,
        health=GrpcHealth(address),
    )


def _broker(home: Path, offset: int, inherited: Mapping[str, str]) -> Program:
    address = topology.address(topology.BROKER, offset)
    return Program(
        name=topology.BROKER,
        argv=broker.command(home),
        env=broker.environment(inherited),
        address=address,
        ports={"NATS": topology.port(topology.BROKER, offset)},
        health=BrokerHealth(address),
        drain_last=True,  # services publish what they still have
    )
