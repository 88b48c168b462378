"""Retrying many items: shown first, and when told to go, called one after the other.

Each call is an intervention with its own audit record. So a run that is cut off has done what it
has printed, and the same command finds the rest.
"""

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import typer

from shopctl.errors import CommandError, ExitCode

MOST: Final = 100_000
"""Items that are found at a time."""

SAMPLE: Final = 10
"""Items that are shown before anything is retried."""


async def retry(
    found: Mapping[str, Callable[[], None]],
    act: Callable[[str, str], Awaitable[None]],
    rate: float,
    key: str,
    *,
    go: bool,
) -> None:
    """Retry what was found, at most `rate` a second; unless told to `go`, show it and say how.

    `found` has by its id how each is shown, `act` gets the id and an idempotency key of its own.
    What it is refused for is passed over: that has gone on by itself meanwhile.

    Raises:
        CommandError: the service does not answer; the rest is left as it was.
    """
    if not found:
        typer.echo("nothing to retry found", err=True)
        return
    if not go:
        for show in [*found.values()][:SAMPLE]:
            show()
        how = shlex.join(["shopctl", *sys.argv[1:], "--go"])
        typer.echo(f"{len(found)} to retry in {len(found) / rate:.0f} s or more: {how}", err=True)
        return
    done, others = 0, ""
    clock = asyncio.get_running_loop().time
    turn = 0.0
    for id_ in found:
        await asyncio.sleep(turn - clock())
        turn = clock() + 1 / rate
        try:
            await act(id_, f"{key}/{id_}")
            done += 1
        except CommandError as error:
            if error.code is not ExitCode.REFUSED:
                text = f"{done} of {len(found)} are retried; the same command finds the rest"
                raise CommandError(f"{text}: {error}", error.code) from None
            others = f"; of the others, the last: {error}"
    typer.echo(f"{done} of {len(found)} are retried{others}", err=True)
