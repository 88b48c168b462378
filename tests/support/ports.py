"""Free ports.

They lie above the range from which the kernel takes ports for outgoing connections and for whoever
does not say which: nobody gets one of them by accident before it is listened on. Tests that run
beside each other never ask for the same one: each worker has every eighth, and gives them in turn.
Offsets of whole shops, which lie below that range, are few: a run holds those that it uses.
"""

import fcntl
import itertools
import os
import random
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from services import topology

_FIRST: Final = 61_000
_LAST: Final = 65_535 - topology.METRICS_DISTANCE
_TRIES: Final = 1000
_WORKERS: Final = 8  # divides METRICS_DISTANCE: a port and that of its metrics belong to one worker
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS


def _in_turn(choices: Sequence[int]) -> Iterator[int]:
    """For ever; it starts anywhere, so that two runs on one machine hardly meet."""
    return itertools.islice(itertools.cycle(choices), random.randrange(len(choices)), None)


_ports = _in_turn([port for port in range(_FIRST, _LAST + 1) if port % _WORKERS == _worker])
_slots: Final = range(topology.MIN_OFFSET, topology.MAX_OFFSET + 1, topology.MIN_OFFSET)
_offsets = _in_turn(_slots)
_held: deque[int] = deque()


def free_port() -> int:
    """A port that nothing listens on right now, nor on those for its health and its metrics."""
    for port in itertools.islice(_ports, _TRIES):
        above = (0, topology.HEALTH_DISTANCE, topology.METRICS_DISTANCE)
        if all(_free(port + distance) for distance in above):
            return port
    raise AssertionError("no free port")


def listens(port: int) -> bool:
    """Whether something listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((topology.HOST, port)) == 0


def free_offset() -> int:
    """A port offset with which every port of the shop is free, and that no other test run takes."""
    for offset in itertools.islice(_offsets, len(_slots)):
        names = (topology.BROKER, *topology.GATEWAYS, *topology.SERVICES)
        ports = [topology.port(name, offset) for name in names]
        above = (0, topology.HEALTH_DISTANCE, topology.METRICS_DISTANCE)
        ports = [port + distance for port in ports for distance in above]
        distance = topology.GATEWAY_METRICS_DISTANCE
        ports += [topology.port(name, offset) + distance for name in topology.GATEWAYS]
        if _ours(offset) and all(_free(port) for port in [*ports, topology.smtp_port(offset)]):
            return offset
    raise AssertionError("no free ports")


def _ours(offset: int) -> bool:
    """Hold an offset until three more have been given out, or this process has ended.

    There are too few of them for chance, and a shop takes seconds to listen on all of its ports.
    """
    path = Path(tempfile.gettempdir(), f"accord-tests-offset-{offset}")
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return False
    _held.append(held)
    if len(_held) > 3:
        os.close(_held.popleft())
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((topology.HOST, port))
        except OSError:
            return False
    return True
