"""The command line `accord`: what can be done with contracts besides serving them.

Each command is a module with `register(commands)`, which adds its parser and names the function
that runs it: `parser.set_defaults(run=...)`, given the parsed arguments, answering the exit code.
What cannot be done is raised as `Refused` and becomes one line and exit code 1.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from accord_checks import Refused

_INTERRUPTED: Final = 130
"""What a shell says of a program that Ctrl-C has ended: 128 and the number of SIGINT."""

Run: TypeAlias = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    # Imported here, so that Ctrl-C is answered from the beginning.
    from accord_checks import baseline, diff_command, explain_command, export_command

    found = argparse.ArgumentParser(prog="accord", description="The service mesh in your contract.")
    areas = found.add_subparsers(required=True, metavar="AREA")
    contracts = areas.add_parser("contracts", help="compare, explain and export contracts")
    commands = contracts.add_subparsers(required=True, metavar="COMMAND")
    diff_command.register(commands)
    explain_command.register(commands)
    export_command.register(commands)
    baseline.register(commands)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is its answer, 1 when it could not be done, 130 for Ctrl-C."""
    try:
        chosen = parser().parse_args(arguments)
        run: Run = chosen.run
        answer = run(chosen)
        _flush()
        return answer
    except Refused as refused:
        print(f"accord: {refused}", file=sys.stderr)
    except BrokenPipeError:  # whoever read it, such as `head`, has seen enough
        _drop()
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        print(f"accord: {file}{error.strerror or error}", file=sys.stderr)
        _drop()
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 1


def _flush() -> None:
    if sys.stdout is not None:  # `>&-` closes it
        sys.stdout.flush()


def _drop() -> None:
    """Throw away what could not be written: the interpreter would try again, and show a trace."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
