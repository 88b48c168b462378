"""Free ports.

They lie above the range from which the kernel takes ports for outgoing connections and for whoever
does not say which: nobody gets one of them by accident before it is listened on. Tests that run
beside each other never ask for the same one: each worker has every eighth, and gives them in turn.
"""

import itertools
import os
import random
import socket
from typing import Final

from services import topology

_FIRST: Final = 61_000
_LAST: Final = 65_535 - topology.METRICS_DISTANCE
_TRIES: Final = 1000
_WORKERS: Final = 8  # divides METRICS_DISTANCE: a port and that of its metrics belong to one worker
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_mine = [port for port in range(_FIRST, _LAST + 1) if port % _WORKERS == _worker]
# Where it starts is random, so that two runs on one machine hardly meet.
_turn = itertools.islice(itertools.cycle(_mine), random.randrange(len(_mine)), None)


def free_port() -> int:
    """A port that nothing listens on right now, nor on that for its metrics."""
    for port in itertools.islice(_turn, _TRIES):
        if _free(port) and _free(port + topology.METRICS_DISTANCE):
            return port
    raise AssertionError("no free port")


def free_offset() -> int:
    """A port offset with which every port of the shop is free."""
    for _ in range(_TRIES):
        offset = random.randrange(_FIRST - min(topology.SERVICES.values()), topology.MAX_OFFSET)
        ports = [topology.port(name, offset) for name in (topology.BROKER, *topology.SERVICES)]
        ports += [port + topology.METRICS_DISTANCE for port in ports]
        if all(_free(port) for port in [*ports, topology.smtp_port(offset)]):
            return offset
    raise AssertionError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((topology.HOST, port))
        except OSError:
            return False
    return True
