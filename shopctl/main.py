"""The console script `shopctl`."""

import os
import sys
from importlib import import_module
from typing import Annotated, Final, NoReturn

import typer

import services
from shopctl.errors import CommandError, ExitCode
from shopctl.terminal import harmless

COMMANDS: Final = (
    "up",
    "status",
    "down",
    "reset",
    "backup",
    "restore",
    "replay",
    "demo",
    "load",
    "audit",
    "certs",
    "mesh",
    "console",
    "curl",
    "token",
    "authz",
    "order",
    "customer",
    "product",
    "work",
    "operation",
    "view",
    "report",
    "webhook",
    "saga",
    "policy",
    "fault",
)
"""Modules of `shopctl.commands`, each with an `app`, in the order of the help."""


def command_line(first: str = "") -> typer.Typer:
    """The command line.

    Args:
        first: its first word. When it names a command nothing but that one is there: importing
            all of them takes several times as long as importing one.
    """
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Run the shop and talk to it.",
    )
    app.callback()(_options)  # it makes a command of a group of one that is alone, too
    for name in [first] if first in COMMANDS else COMMANDS:
        app.add_typer(import_module(f"shopctl.commands.{name}").app)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"shopctl {services.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What `shopctl` is told before a command."""


def main() -> None:
    """Runs the command line. Every error is one line; `SHOPCTL_DEBUG=1` shows the traceback."""
    try:
        # A shell that completes a command has the line in its environment.
        line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
        words = line.split() if "_SHOPCTL_COMPLETE" in os.environ else sys.argv
        command_line(*words[1:2])(prog_name="shopctl")
    except CommandError as error:
        _end(str(error), error.code)
    except Exception as error:
        if os.environ.get("SHOPCTL_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}"
        _end(f"{what} (SHOPCTL_DEBUG=1 shows where)", ExitCode.FAILED)


def _end(message: str, code: ExitCode) -> NoReturn:
    typer.echo("shopctl: " + harmless(" ".join(message.split())), err=True)
    sys.exit(code)
