"""What `shopctl up` is going to start."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from services import topology
from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor.programs import METRICS, Program, Selection, select, taken_ports

HOME = Path("/home/mesh")
EPHEMERAL = 32768
"""From here on Linux gives ports to whoever does not ask for a certain one."""


def selected(left_out: list[str] | None = None, offset: int = 0, nats_url: str = "") -> Selection:
    return select(
        HOME,
        offset=offset,
        left_out=left_out or [],
        database_url="",
        nats_url=nats_url,
        inherited={"PATH": "/usr/bin", "SECRET": "s3cret"},
    )


def test_everything_by_default() -> None:
    """The broker comes first and goes last; reserved services are not started."""
    programs = selected().programs
    assert programs[0].name == "broker"
    special = [program.name for program in programs if program.drains != 1]
    assert special == ["broker", *topology.GATEWAYS]
    assert {p.name for p in programs[1:]} == {*topology.SERVICES, *topology.GATEWAYS}


def test_offset_moves_every_port() -> None:
    """Every port is moved, and none is shared: neither by two programs nor by two shops."""
    shops = (0, *range(topology.MIN_OFFSET, topology.MAX_OFFSET + 1, topology.MIN_OFFSET))
    ports = {
        offset: [port for it in selected(offset=offset).programs for port in it.ports.values()]
        for offset in shops
    }
    assert all(ports[offset] == [port + offset for port in ports[0]] for offset in shops)
    assert topology.SMTP_PORT in ports[0]
    everywhere = [port for taken in ports.values() for port in taken]
    assert len(set(everywhere)) == len(everywhere)
    assert max(everywhere) < EPHEMERAL


def test_what_is_forked_knows_no_contract_yet() -> None:
    """What forks find imported is there, starts no thread, and has none of the shop's contracts."""
    imports = sorted({name for program in selected().programs for name in program.imports})
    tasks = "len(os.listdir('/proc/self/task'))" if sys.platform == "linux" else "1"
    contracts = "(name for name in sys.modules if name.startswith('shop.'))"
    code = f"import {', '.join(imports)}, sys, os; print({tasks}, *{contracts})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_ports_that_are_taken(tmp_path: Path) -> None:
    """What a program needs is named, with who has it; a metrics port costs no start."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (program, *_) = selected(["broker"]).programs
        needs = replace(program, ports={"gRPC": port})
        (taken,) = taken_ports([needs, replace(program, ports={METRICS: port})])
    assert taken.startswith(f"{port} (orders, gRPC")
    if sys.platform == "linux":
        assert f"; held by process {os.getpid()} (" in taken


def test_left_out() -> None:
    """What is left out is remembered with its address."""
    selection = selected(["orders"], offset=20)
    assert "orders" not in {program.name for program in selection.programs}
    assert selection.left_out == {"orders": "127.0.0.1:9071"}


@pytest.mark.parametrize(
    "left_out",
    [["warehouse"], ["Orders"], ["broker", *topology.SERVICES, *topology.GATEWAYS]],
)
def test_nonsense_is_refused(left_out: list[str]) -> None:
    """A name that cannot be left out is a usage error."""
    with pytest.raises(CommandError) as caught:
        selected(left_out)
    assert caught.value.code is ExitCode.USAGE


def test_a_broker_elsewhere_replaces_ours() -> None:
    """With a NATS_URL there is no broker of our own, left out or not."""
    for left_out in ([], ["broker"]):
        selection = selected(left_out, nats_url="nats://elsewhere:4222")
        assert "broker" not in {program.name for program in selection.programs}
        assert not selection.left_out


def test_secrets_are_not_in_the_repr() -> None:
    """A program that is printed by accident does not show its environment."""
    assert "s3cret" not in repr(selected())


def environment(nats_url: str, **inherited: str) -> Mapping[str, str]:
    """What a service is given."""
    return everybody(nats_url, inherited)["sandbox"].env


def everybody(nats_url: str, inherited: Mapping[str, str]) -> Mapping[str, Program]:
    selection = select(
        HOME,
        offset=50,
        left_out=[],
        database_url="postgresql://db",
        nats_url=nats_url,
        inherited=inherited,
    )
    return {program.name: program for program in selection.programs}


def test_child_environment() -> None:
    """A service gets what it reads on start-up, on top of what we were given."""
    assert environment("", LANG="C", LOG_FORMAT="text") == {
        "LANG": "C",
        "MESH_HOME": "/home/mesh",
        "MESH_PORT_OFFSET": "50",
        "DATABASE_URL": "postgresql://db",
        "NATS_URL": "tls://127.0.0.1:4272",
        "LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
        "MESH_IDENTITY": "/home/mesh/certs/sandbox",
        "MESH_INSECURE": "0",
    }


def test_what_no_service_reads_is_not_for_services() -> None:
    """Secrets in the shell of whoever starts the shop stay there; settings go on."""
    kept = {"OTEL_EXPORTER_OTLP_HEADERS": "k=v", "PGPASSFILE": "/p", "HTTPS_PROXY": "http://p"}
    given = environment("", AWS_SECRET_ACCESS_KEY="a", GITHUB_TOKEN="g", SECRET="s", **kept)
    assert not {"AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SECRET"} & set(given)
    assert kept.items() <= given.items()


def test_token_goes_with_its_broker() -> None:
    """An inherited NATS_TOKEN is for the inherited NATS_URL and never for our own broker."""
    assert environment("nats://elsewhere", NATS_TOKEN="t")["NATS_TOKEN"] == "t"
    assert "NATS_TOKEN" not in environment("", NATS_TOKEN="t")


def test_the_edge_has_no_secret_of_the_record() -> None:
    """Who meets strangers knows neither the database nor the broker; its own settings it gets."""
    inherited = {"NATS_TOKEN": "t", "PGPASSFILE": "/p", "MESH_EDGE_ISSUER": "https://login.example"}
    edge = everybody("nats://elsewhere", inherited)["edge"]
    assert edge.env["MESH_IDENTITY"] == "/home/mesh/certs/edge"
    assert edge.env["MESH_EDGE_ISSUER"] == "https://login.example"
    assert not [name for name in edge.env if name.startswith(("DATABASE", "NATS", "PG"))]
    assert edge.ports == {"HTTP": 8130, METRICS: 12130}


def test_the_edge_is_not_waited_for_in_vain() -> None:
    """Where a service is left out, to be started by hand, the edge serves as soon as it lives."""
    for left_out, path in (([], "/healthz"), (["orders"], "/livez")):
        edge = next(each for each in selected(left_out).programs if each.name == "edge")
        assert isinstance(edge.health, partial)
        assert edge.health.keywords == {"path": path}


def test_topology_targets() -> None:
    """`MESH_TARGETS` overrides single targets and nothing else."""
    targets = topology.targets(20, "orders=10.0.0.1:5, payments = dns:///pay:1 ,")
    assert targets["orders"] == "10.0.0.1:5"
    assert targets["payments"] == "dns:///pay:1"
    assert targets["customers"] == "127.0.0.1:9076"
    with pytest.raises(ValueError, match="MESH_TARGETS"):
        topology.targets(0, "orders")


@pytest.mark.parametrize("offset", [-1, topology.MIN_OFFSET - 1, topology.MAX_OFFSET + 1])
def test_topology_offset_range(offset: int) -> None:
    """An offset with which the ports would meet those of another shop is refused."""
    with pytest.raises(ValueError, match="port offset"):
        topology.port("orders", offset)
