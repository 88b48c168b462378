"""`shopctl down`."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from shopctl.errors import CommandError, ExitCode
from shopctl.options import DEFAULT_HOME, HomeOption
from shopctl.supervisor.state import LOCK_FILE, lock_holder

POLL_SECONDS: Final = 0.05

app = typer.Typer()


@app.command()
def down(
    home: HomeOption = DEFAULT_HOME,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the shop to stop.")
    ] = 30.0,
) -> None:
    """Stop the shop that `shopctl up` started, and wait until it has stopped."""
    pid = lock_holder(home)
    if pid is None:
        raise CommandError(f"nothing runs in {home}", ExitCode.NOT_RUNNING)
    if (home / LOCK_FILE).stat().st_uid != os.geteuid():
        # What is in it might be any process, which we may end and its owner may not.
        raise CommandError(f"the shop in {home} is another user's, who can stop it")
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not _released(home, timeout):
        raise CommandError(
            f"process {pid} still runs after {timeout:g} s; to end it at once: kill -9 {pid}",
            ExitCode.FAILED,
        )
    typer.echo("stopped")


def _released(home: Path, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while lock_holder(home) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
