"""What a shell is told when it completes a command line."""

import pytest
from google.protobuf import descriptor_pb2
from typer.testing import CliRunner

from shopctl.main import COMMANDS, command_line
from shopctl.supervisor.programs import SERVICES
from tools import releases

ORDERS = "shop.orders.v1.OrderService/"


def completed(line: str) -> set[str]:
    """What bash offers for the last word of a line."""
    environment = {
        "_SHOPCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    first = line.split(" ")[1]
    result = CliRunner().invoke(command_line(first), env=environment, prog_name="shopctl")
    return set(result.output.split())


def test_commands_and_options() -> None:
    """Commands, those below them, their options and values are completed."""
    assert completed("shopctl ") == set(COMMANDS)
    assert completed("shopctl fault ") == {"inject", "list", "clear"}
    assert "--through" in completed("shopctl fault inject --")
    assert completed("shopctl work list --state p") == {"parked"}
    assert completed("shopctl fault inject --abort UN") == {
        "UNAUTHENTICATED",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN",
    }


@pytest.mark.parametrize(
    "line", ["audit --service ", "policy get --service ", "fault clear m --through "]
)
def test_services(line: str) -> None:
    """Wherever a service is named, those that there are."""
    assert completed(f"shopctl {line}") == set(SERVICES)
    assert completed(f"shopctl {line}inv") == {"inventory"}


@pytest.mark.parametrize("line", ["policy get ", "policy set ", "fault inject ", "mesh --method "])
def test_methods_come_from_the_contracts(line: str) -> None:
    """Wherever a method is named, those of the contracts; no list of them is kept by hand."""
    image = releases.image_of(list(releases.released().values())[-1]).read_bytes()
    released = {
        f"{file.package}.{service.name}/{method.name}"
        for file in descriptor_pb2.FileDescriptorSet.FromString(image).file
        if file.package.startswith("shop.")
        for service in file.service
        for method in service.method
    }
    offered = completed(f"shopctl {line}shop.")
    assert released <= offered
    assert f"{ORDERS}CreateOrder" in offered
    assert all(name.startswith(f"{ORDERS}Get") for name in completed(f"shopctl {line}{ORDERS}Get"))
