"""Keeps the certificates of a running shop valid, and says when their files have changed."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from services.topology import BROKER
from shopctl.certs.authority import OLD_ROOT, Authority
from shopctl.errors import CommandError

LOOK: Final = 1.0
"""Seconds between two looks at the files: others may change them, too."""
SOONEST: Final = 0.1


async def keep(
    authority: Authority, say: Callable[[str], None], on_change: Callable[[], None]
) -> None:
    """Renews what is due until cancelled.

    Args:
        authority: the shop's; one of somebody else's is only looked at.
        say: gets a line about what was renewed, and about what cannot be, once.
        on_change: called when a file has changed, whoever did it.
    """
    due, seen, problem = 0.0, _files(authority), ""
    while True:
        if not authority.foreign and time.time() >= due:
            try:
                renewed = await asyncio.to_thread(authority.renew_due)
                if renewed:
                    say(_said(renewed))
                due, problem = authority.next_due(), ""
            except (CommandError, OSError, ValueError) as error:
                if str(error) != problem:
                    say(f"certificates cannot be renewed: {error}")
                due, problem = time.time() + LOOK, str(error)
        if (now := _files(authority)) != seen:
            seen, due = now, 0.0 if problem else min(due, time.time())
            on_change()
        await asyncio.sleep(min(LOOK, max(due - time.time(), SOONEST)))


def _said(renewed: list[str]) -> str:
    """One line. That a root is trusted no more is said also when many leaves were renewed."""
    leaves = [name for name in renewed if name != OLD_ROOT]
    which = ", ".join(leaves) if len(leaves) < 4 else f"{len(leaves)} of them"
    said = [f"renewed certificates: {which}"] if leaves else []
    return "; ".join([*said, f"dropped {OLD_ROOT}"] if OLD_ROOT in renewed else said)


def _files(authority: Authority) -> dict[str, int]:
    """When the folders of those that have certificates were changed, and what the broker reads.

    Whoever replaces a file changes its folder. What is written in place is looked for where nobody
    else does: all but the broker look at their own files.
    """
    broker = _entries(authority.folder / BROKER)
    found = {}
    for each in (*_entries(authority.folder), *broker):
        with suppress(FileNotFoundError):
            found[each.path] = each.stat().st_mtime_ns
    return found


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing, if it has gone or cannot be read."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []
