"""What `shopctl up` is going to start."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from services import topology
from shopctl.errors import CommandError, ExitCode
from shopctl.supervisor.programs import Selection, select

HOME = Path("/home/mesh")


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
    assert [program.name for program in programs if program.drain_last] == ["broker"]
    assert {p.name for p in programs[1:]} == set(topology.SERVICES)


def test_offset_moves_every_port() -> None:
    """No port stays where it was, and no two programs share one."""
    here = [port for program in selected().programs for port in program.ports.values()]
    moved = [port for program in selected(offset=7).programs for port in program.ports.values()]
    assert moved == [port + 7 for port in here]
    assert len(set(here)) == len(here)
    assert topology.SMTP_PORT in here


def test_left_out() -> None:
    """What is left out is remembered with its address."""
    selection = selected(["orders"], offset=1)
    assert "orders" not in {program.name for program in selection.programs}
    assert selection.left_out == {"orders": "127.0.0.1:50052"}


@pytest.mark.parametrize(
    "left_out", [["analytics"], ["Orders"], ["broker", *topology.SERVICES.keys()]]
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
    return (
        select(
            HOME,
            offset=5,
            left_out=[],
            database_url="postgresql://db",
            nats_url=nats_url,
            inherited=inherited,
        )
        .programs[-1]
        .env
    )


def test_child_environment() -> None:
    """A service gets what it reads on start-up, on top of what we were given."""
    assert environment("", LANG="C", LOG_FORMAT="text") == {
        "LANG": "C",
        "MESH_HOME": "/home/mesh",
        "MESH_PORT_OFFSET": "5",
        "DATABASE_URL": "postgresql://db",
        "NATS_URL": "nats://127.0.0.1:4227",
        "LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
    }


def test_token_goes_with_its_broker() -> None:
    """An inherited NATS_TOKEN is for the inherited NATS_URL and never for our own broker."""
    assert environment("nats://elsewhere", NATS_TOKEN="t")["NATS_TOKEN"] == "t"
    assert "NATS_TOKEN" not in environment("", NATS_TOKEN="t")


def test_topology_targets() -> None:
    """`MESH_TARGETS` overrides single targets and nothing else."""
    targets = topology.targets(1, "orders=10.0.0.1:5, payments = dns:///pay:1 ,")
    assert targets["orders"] == "10.0.0.1:5"
    assert targets["payments"] == "dns:///pay:1"
    assert targets["customers"] == "127.0.0.1:50057"
    with pytest.raises(ValueError, match="MESH_TARGETS"):
        topology.targets(0, "orders")


@pytest.mark.parametrize("offset", [-1, topology.MAX_OFFSET + 1])
def test_topology_offset_range(offset: int) -> None:
    """An offset that would leave the range of ports is refused."""
    with pytest.raises(ValueError, match="port offset"):
        topology.port("orders", offset)
