"""The command line as a whole."""

import subprocess
import sys
from importlib import metadata

import pytest
from typer.testing import CliRunner

from shopctl.main import COMMANDS, command_line


def usage(first: str, *arguments: str) -> str:
    result = CliRunner().invoke(command_line(first), [*arguments, "--help"], prog_name="shopctl")
    assert result.exit_code == 0, result.output
    return result.output


def test_all_commands_are_listed() -> None:
    """The help names every command, in their order."""
    text = usage("")
    places = [text.index(f" {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_version() -> None:
    """`--version` says that of the distribution, and nothing else."""
    result = CliRunner().invoke(command_line("--version"), ["--version"], prog_name="shopctl")
    assert (result.exit_code, result.output) == (0, f"shopctl {metadata.version('accord-shop')}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_alone_is_the_same(name: str) -> None:
    """What is imported besides it makes no difference to a command."""
    assert usage(name, name) == usage("", name)


def test_a_command_is_there_at_once() -> None:
    """None of them loads what only a service needs: its runtime, the broker, validation."""
    program = """if True:
        import sys
        from shopctl.main import command_line
        command_line()
        services = {"accord_runtime.service", "aiohttp", "nats", "protovalidate", "psycopg"}
        print(*services & set(sys.modules))
    """
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "\n"
