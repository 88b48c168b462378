"""The console script `shopctl`."""

import os
import sys
from typing import NoReturn

import typer

from shopctl import customer, fault, order, policy, product, saga, work
from shopctl.audit import audit
from shopctl.demo import demo
from shopctl.down import down
from shopctl.errors import CommandError
from shopctl.exit_codes import ExitCode
from shopctl.mesh import mesh
from shopctl.replay.command import replay
from shopctl.reset import reset
from shopctl.status import status
from shopctl.up import up

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run the shop and talk to it.",
)
for command in (up, status, down, reset, replay, demo, audit, mesh):
    app.command()(command)
app.add_typer(order.app, name="order")
app.add_typer(customer.app, name="customer")
app.add_typer(product.app, name="product")
app.add_typer(work.app, name="work")
app.add_typer(saga.app, name="saga")
app.add_typer(policy.app, name="policy")
app.add_typer(fault.app, name="fault")


def main() -> None:
    """Runs the command line. Every error is one line; `SHOPCTL_DEBUG=1` shows the traceback."""
    try:
        app(prog_name="shopctl")
    except CommandError as error:
        _end(str(error), error.code)
    except Exception as error:
        if os.environ.get("SHOPCTL_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}"
        _end(f"{what} (SHOPCTL_DEBUG=1 shows where)", ExitCode.FAILED)


def _end(message: str, code: ExitCode) -> NoReturn:
    typer.echo("shopctl: " + " ".join(message.split()), err=True)
    sys.exit(code)
