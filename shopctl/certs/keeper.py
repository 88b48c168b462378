"""Keeps the certificates of a running shop valid, and says when their files have changed."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from shopctl.certs.authority import Authority
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
                    which = ", ".join(renewed) if len(renewed) < 4 else f"{len(renewed)} of them"
                    say(f"renewed certificates: {which}")
                due, problem = authority.next_due(), ""
            except (CommandError, OSError, ValueError) as error:
                if str(error) != problem:
                    say(f"certificates cannot be renewed: {error}")
                due, problem = time.time() + LOOK, str(error)
        if (now := _files(authority)) != seen:
            seen, due = now, 0.0 if problem else min(due, time.time())
            on_change()
        await asyncio.sleep(min(LOOK, max(due - time.time(), SOONEST)))


def _files(authority: Authority) -> dict[str, int]:
    """When each file that others read was written."""
    found = {}
    for path in (*authority.folder.glob("*/*.*"), authority.folder / "revoked.txt"):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return found
