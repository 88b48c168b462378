"""What an attacker does to a server: `python -m tests.abuse.attacks NAME ADDRESS SECONDS`.

One connection, or one after the other, of no more than a laptop. Prints what it has done.
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from tests.accord.kit import path
from tests.support.http2 import Connection, ask, call, reset

READERS: Final = 1000
"""Streams of one connection whose reader stops."""

RESETS: Final = 20_000
"""Streams of one connection that are opened and reset within `RESET_TIME` seconds."""

RESET_TIME: Final = 2.0

PAUSE: Final = 6.0
"""Seconds after which they come again."""


def bad_paths(address: str, until: float) -> str:
    """Calls whose path is no UTF-8: each would end a `grpc.aio` server."""
    calls = 0
    while time.monotonic() < until:
        ask(address, b"/\xff", b"")
        calls += 1
        time.sleep(0.01)
    return f"{calls} calls"


def stopped_readers(address: str, until: float) -> str:
    """Streams that are opened and never read; for each that ends another is opened."""
    opened = ended = 0
    with Connection(address, window=0) as connection:
        while time.monotonic() < until:
            if opened - ended < READERS:
                connection.open(2 * opened + 1, path("Quiet").encode())
                opened += 1
            else:
                time.sleep(0.05)
            ended = len(connection.ended)
    return f"{opened} streams, {ended} of them ended"


def rapid_reset(address: str, until: float) -> str:
    """Calls that are cancelled as soon as they are made."""
    rounds = 0
    while not rounds or time.monotonic() + PAUSE < until:
        time.sleep(PAUSE if rounds else 0)
        with Connection(address) as connection, suppress(OSError):
            begun = time.monotonic()
            for stream in range(1, 2 * RESETS, 2):
                connection.send(call(stream, path("Unary").encode()) + reset(stream))
                if stream % 100 == 1:
                    ahead = RESET_TIME * stream / 2 / RESETS - (time.monotonic() - begun)
                    time.sleep(max(0.0, ahead))
        rounds += 1
    return f"{rounds} times {RESETS} calls"


ATTACKS: Final[Mapping[str, Callable[[str, float], str]]] = MappingProxyType(
    {each.__name__: each for each in (bad_paths, stopped_readers, rapid_reset)}
)

if __name__ == "__main__":
    _, name, address, seconds = sys.argv
    print(ATTACKS[name](address, time.monotonic() + float(seconds)))
