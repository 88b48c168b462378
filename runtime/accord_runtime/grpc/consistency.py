"""Waits until this process can show what its caller has seen (`accord.policies.consistency`).

For handlers of replicas and of views, which follow a record and may be behind it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import accord
from accord_runtime.database import Database, Tx
from accord_runtime.events.notifier import Notifier

RESERVE: Final = 0.2
"""Seconds before the deadline of the call at which the wait ends, for the answer to arrive."""

PATIENCE: Final = 5.0
"""Seconds to wait for a call without a deadline."""

LOOK: Final = 0.1
"""Seconds between looks where nobody tells of a change."""


def seen(things: str) -> str:
    """The thing that the caller has seen, without what its name begins with; "" if it is no such.

    `things`: as in "orders/".
    """
    call = accord.current()
    of = call.seen.of if call is not None and call.seen is not None else ""
    return of.removeprefix(things) if of.startswith(things) else ""


async def caught_up(
    database: Database, notifier: Notifier, of: str, key: str, position: Callable[[Tx], int]
) -> None:
    """Return once the state of a thing, read by `position`, is what the caller has seen, or later.

    At once if the caller has not said that it has seen the thing. `key`: of the events by which it
    changes, if those are of this service.

    Raises:
        Unavailable: it was not reached in the time that the call has (NOT_CAUGHT_UP).
    """
    call = accord.current()
    if call is None or call.seen is None or call.seen.of != of:
        return
    left = call.remaining()
    ends = asyncio.get_running_loop().time() + (PATIENCE if left is None else left - RESERVE)
    with notifier.watching(key) as watch:
        while (at := await database.read(position)) < call.seen.position:
            left = ends - asyncio.get_running_loop().time()
            if left <= 0:
                text = f"{of} is at {at} here, and its caller has seen {call.seen.position}"
                raise accord.Unavailable("NOT_CAUGHT_UP", 1.0, text)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK)):
                    await watch.wait()
